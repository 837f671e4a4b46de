"""The pool's bookkeeping."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from al_lightning.errors import PoolError, PoolExhausted
from al_lightning.oracles.oracle import SKIP
from al_lightning.pool.state import PoolState
from tests.helpers import pool_of


@pytest.fixture
def state() -> PoolState:
    made = PoolState(10)
    made.reserve([9])
    made.query([4, 2, 7, 1])
    made.answer({2: 0, 4: 1, 7: SKIP})
    return made


def test_every_record_is_in_one_place(state: PoolState) -> None:
    assert state.labelled.tolist() == [2, 4]
    assert state.waiting.tolist() == [1]
    assert state.stop_set.tolist() == [9]
    assert state.unlabelled.tolist() == [0, 3, 5, 6, 8]
    assert state.labels == {2: 0, 4: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.query([2]), "cannot query id 2: it is already labelled"),
        (lambda s: s.query([1]), "cannot query id 1: it is waiting for an answer"),
        (lambda s: s.query([7]), "cannot query id 7: it is refused by the oracle"),
        (lambda s: s.query([9]), "cannot query id 9: it is in the stop set"),
        (lambda s: s.query([0, 10]), r"cannot query ids \[10\]: ids of this pool are 0 to 9"),
        (lambda s: s.query([-1]), r"cannot query ids \[-1\]"),
        (lambda s: s.query([0, 0, 3]), r"cannot query ids \[0\]: given more than once"),
        (lambda s: s.answer({0: 1}), "cannot label id 0: it is unlabelled"),
        (lambda s: s.answer({1: 1, 2: 1}), "cannot label id 2: it is already labelled"),
        (lambda s: s.forget([1]), "cannot forget id 1"),
        (lambda s: s.reserve([2]), "cannot reserve id 2"),
        (lambda s: s.release([0]), "cannot release id 0"),
    ],
)
def test_what_cannot_be_changes_nothing(state: PoolState, change: Callable[[PoolState], None], message: str) -> None:
    before, labels = state.status.copy(), dict(state.labels)
    with pytest.raises(PoolError, match=message):
        change(state)
    assert (state.status == before).all()
    assert state.labels == labels


def test_draw_takes_unlabelled_records_only(state: PoolState) -> None:
    assert sorted(state.draw(5, np.random.default_rng(0)).tolist()) == [0, 3, 5, 6, 8]
    with pytest.raises(PoolExhausted, match="6 unlabelled records requested, 5 available"):
        state.draw(6, np.random.default_rng(0))


def test_skip_is_one_object_in_every_process() -> None:
    assert pickle.loads(pickle.dumps(SKIP)) is SKIP


@pytest.mark.parametrize("keys", [["a"] * 60, [*range(59), "7"], [f"{i}.png" for i in (*range(59), 3)]])
def test_two_records_of_one_key_are_refused_by_their_ids(keys: list[Any]) -> None:
    with pytest.raises(PoolError, match=r"keys has '.*' for ids \d+ and \d+: a key names one record"):
        pool_of(keys=keys)
