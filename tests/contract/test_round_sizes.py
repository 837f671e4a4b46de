from __future__ import annotations

import pytest

from al_lightning.history import History


@pytest.mark.parametrize("round", [0, 1, 7, 40])
@pytest.mark.parametrize("labelled", [0, 1, 1000])
def test_a_whole_number_zero_or_more_and_the_same_again(sizes, round, labelled):
    history = History(pool_size=2000, unlabelled=2000 - labelled, labelled=labelled, round=round)
    size = sizes(history)
    assert type(size) is int
    assert size >= 0
    assert sizes(history) == size  # no memory of its own: a resumed run asks for the same


def test_the_first_round_asks_for_something(sizes):
    assert sizes(History(pool_size=10, unlabelled=10)) > 0
