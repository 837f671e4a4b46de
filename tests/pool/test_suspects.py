"""Labels that are contradicted: named as confident learning names them, set aside, and asked again."""

from __future__ import annotations

import numpy as np
import pytest

from al_lightning import DatasetOracle
from al_lightning.errors import OutputMismatch, PoolError
from al_lightning.oracles.oracle import SKIP
from al_lightning.pool.suspects import ask_again, quarantine, suspects
from tests.helpers import CLASSES, net, pool_of, quiet


def by_the_book(labels: list[int], p: np.ndarray) -> set[int]:
    """The off-diagonal of the confident joint, an entry at a time."""
    usual = {c: np.mean([p[i, c] for i, y in enumerate(labels) if y == c]) for c in set(labels)}
    found = set()
    for i, y in enumerate(labels):
        meant = [c for c in usual if p[i, c] >= usual[c]]
        if meant and max(meant, key=lambda c: p[i, c]) != y:
            found.add(i)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_confident_joint(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), size=60)
    labels = rng.integers(0, 3, size=60)  # class 3 is never given
    found = suspects(labels, p)
    assert set(found.tolist()) == by_the_book(labels.tolist(), p)
    assert len(set(found.tolist())) == len(found)


def test_the_firmest_comes_first() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.86, 0.14], [0.99, 0.01]])
    assert suspects([0, 0, 1, 1, 1], p).tolist() == [4, 3]


def test_nothing_to_suspect() -> None:
    assert suspects([], np.empty((0, 3))).tolist() == []
    assert suspects([0, 1], np.eye(2)).tolist() == []


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0, 1], np.ones((3, 2)) / 2, r"\(2,\).*\(3, 2\)"),
        ([0, 2], np.ones((2, 2)) / 2, "0 to 2; with 2 columns allowed: 0 to 1"),
        ([0, 1], np.array([[2.0, -1.0], [0.0, 1.0]]), "softmax"),
        ([0, 1], np.array([[np.nan, 1.0], [0.0, 1.0]]), "softmax"),
    ],
)
def test_what_is_no_prediction_is_refused(labels: list[int], p: np.ndarray, message: str) -> None:
    with pytest.raises(OutputMismatch, match=message):
        suspects(labels, p)


def test_quarantined_records_are_not_trained_on_until_they_are_answered_again() -> None:
    pool = pool_of()
    pool.label(range(12), {i: 0 if i == 4 else i % CLASSES for i in range(12)})
    quarantine(pool, [4, 7])
    assert len(pool.labelled) == 10
    assert not {4, 7} & set(pool.unlabelled.tolist())
    quiet(max_epochs=1).fit(net(), datamodule=pool)
    assert len(pool.train_dataloader().dataset) == 10
    assert ask_again(pool, [4, 7, 8], DatasetOracle()) == 2  # 8 had its label, and has it still
    assert pool.labelled.tolist()[-2:] == [4, 7]
    assert {i: pool.state.labels[i] for i in (4, 7, 8)} == {4: 1, 7: 1, 8: 2}


def test_an_answer_may_be_missing_or_a_refusal() -> None:
    pool = pool_of()
    pool.label(range(3), {i: i % CLASSES for i in range(3)})
    assert ask_again(pool, [0, 1], {1: SKIP, 2: 0}) == 1
    assert pool.state.labels == {0: 0, 2: 2}  # 0 is not answered, 2 was not asked


def test_what_was_never_answered_is_refused() -> None:
    pool = pool_of()
    pool.label(range(3), {i: i % CLASSES for i in range(3)})
    with pytest.raises(PoolError, match=r"ids \[5\].*no label"):
        quarantine(pool, [0, 5])
    with pytest.raises(PoolError, match="cannot correct id 5"):
        ask_again(pool, [0, 5], {0: 1, 5: 1})
    with pytest.raises(PoolError, match="id 0 is -1"):
        ask_again(pool, [0], {0: -1})
    assert pool.state.labels == {0: 0, 1: 1, 2: 2}
