from __future__ import annotations

import dataclasses

import pytest

from al_lightning.history import History
from al_lightning.round_size import Doubling, Fixed, Growing, Listed, Spread


def play(sizes, rounds, *, labelled=0, answered=1.0):
    """The queries of a run whose oracle answers a fixed share of each."""
    queries = []
    for n in range(rounds):
        history = History(pool_size=10**6, unlabelled=10**6 - labelled, labelled=labelled, round=n)
        queries.append(sizes(history))
        labelled += int(queries[-1] * answered)
    return queries


@pytest.mark.parametrize(
    ("sizes", "queries"),
    [
        (Fixed(100), [100, 100, 100, 100]),
        (Fixed(100, first=20), [20, 100, 100, 100]),
        (Doubling(200), [200, 200, 400, 800]),
        (Doubling(1), [1, 1, 2, 4]),
        (Growing(100, 3), [100, 200, 600, 1800]),
        (Growing(100, 1.5), [100, 50, 75, 112]),
        (Growing(3, 1.01), [3, 1, 1, 1]),
        (Spread(10, rounds=4), [3, 3, 2, 2]),
        (Spread(10, rounds=2), [5, 5, 0, 0]),
        (Growing(10, 1.1), [10, 1, 1, 1]),
        (Listed([200, 50]), [200, 50, 0, 0]),
    ],
)
def test_queries_of_a_run(sizes, queries):
    assert play(sizes, 4) == queries


def test_growing_follows_the_labels_that_came():
    assert play(Doubling(200), 3, answered=0.5) == [200, 100, 150]
    assert play(Doubling(200), 3, answered=0) == [200, 200, 200]
    assert play(Doubling(200), 2, labelled=500) == [200, 700]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Fixed(0), "size=0"),
        (lambda: Fixed(2.5), "size=2.5"),
        (lambda: Fixed(True), "size=True"),
        (lambda: Fixed(5, first=-1), "first=-1"),
        (lambda: Doubling(0), "Doubling: first=0"),
        (lambda: Growing(10, 1), "factor=1"),
        (lambda: Growing(10, float("nan")), "factor=nan"),
        (lambda: Growing(10, float("inf")), "factor=inf"),
        (lambda: Listed([]), r"sizes=\[\]"),
        (lambda: Listed([10, 0]), "size=0"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(make, says):
    with pytest.raises(ValueError, match=rf"{says}.*allowed"):
        make()


def test_settings_describe_themselves():
    assert dataclasses.asdict(Doubling(7)) == {"first": 7, "factor": 2.0}
    assert dataclasses.asdict(Listed([1, 2])) == {"sizes": (1, 2)}


def test_spread_asks_again_for_what_was_refused_and_counts_what_was_there():
    assert play(Spread(100, rounds=3), 5, answered=0.5) == [34, 42, 62, 31, 16]
    assert play(Spread(100, rounds=4), 5, labelled=60) == [10, 10, 10, 10, 0]


@pytest.mark.parametrize("rounds", [0, 11, 2.0])
def test_spread_needs_a_label_a_round(rounds):
    with pytest.raises(ValueError, match=rf"rounds={rounds}.*allowed: 1 to labels=10"):
        Spread(10, rounds=rounds)
