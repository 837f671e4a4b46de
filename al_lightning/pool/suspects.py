"""Labels that a later model contradicts: name them, set them aside, have them asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from al_lightning.errors import OutputMismatch, PoolError
from al_lightning.oracles.oracle import SKIP, Oracle
from al_lightning.pool.label_codec import same

if TYPE_CHECKING:
    from al_lightning.pool.datamodule import PoolDataModule


def suspects(labels: Sequence[int] | np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return which labels are firmly contradicted, the firmest first.

    A class is meant where its probability is at least what it is on average on records labelled so; a label is suspect
    if another class is meant, and is the most probable of those that are.

    Source: Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021,
    arXiv:1911.00068.

    Args:
        labels: classes given, ``(n,)``.
        probabilities: a model's, ``(n, C)``, **of records it was not trained on**: one that was repeats their labels.
            Train on part of the labelled records and predict the others.

    Returns:
        Positions in ``labels``, ``(k,)``, by how much more probable the other class is.

    Raises:
        OutputMismatch: shapes that do not match, labels that are no class, or numbers that are no probabilities.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise OutputMismatch(f"labels have shape {y.shape} and probabilities {p.shape}; allowed: (n,) and (n, C).")
    if not (np.isfinite(p).all() and (p >= 0).all() and (p <= 1 + 1e-6).all()):
        raise OutputMismatch("probabilities hold numbers that are not between 0 and 1: pass a softmax of the logits.")
    if len(y) and not (np.isin(y, np.arange(p.shape[1])).all()):
        raise OutputMismatch(
            f"labels are {y.min()} to {y.max()}; with {p.shape[1]} columns allowed: 0 to {p.shape[1] - 1}."
        )
    rows = np.arange(len(y))
    usual = np.array([p[y == c, c].mean() if (y == c).any() else np.inf for c in range(p.shape[1])])
    meant = np.where(p >= usual, p, -1.0)
    if not len(y):
        return rows
    said = meant.argmax(axis=1)
    found = np.flatnonzero((meant[rows, said] >= 0) & (said != y))
    return found[np.argsort(-(p[found, said[found]] - p[found, y[found]]), kind="stable")]


def quarantine(pool: PoolDataModule, ids: Sequence[int] | np.ndarray) -> None:
    """Withdraw labels: fits leave those records out, and no query takes them, until :func:`ask_again` has an answer.

    For a hand-written loop; in a run folder, labels are withdrawn and corrected where people gave them.

    Args:
        pool: changed in place.
        ids: labelled ids.

    Raises:
        PoolError: an id that has no label; nothing is changed then.
    """
    missing = sorted({int(i) for i in ids} - set(pool.labelled.tolist()))
    if missing:
        raise PoolError(f"cannot quarantine ids {missing[:10]}: they have no label.")
    pool.state.correct({int(i): SKIP for i in ids})


def ask_again(pool: PoolDataModule, ids: Sequence[int] | np.ndarray, oracle: Oracle | Mapping[int, Any]) -> int:
    """Ask for labels of records that have been answered before; what comes back stands.

    The new answers are bought as well: count them, ``Budget(labels=)`` does not.

    Args:
        pool: changed in place.
        ids: labelled, quarantined or refused ids. Those that no answer comes for stay as they are.
        oracle: who answers, or the answers themselves as ``{id: label or SKIP}``.

    Returns:
        How many records have another label than before, or one again.

    Raises:
        PoolError: an id that was never answered, or an answer that is no label; nothing is changed then.
    """
    asked = np.asarray(ids, dtype=np.int64)
    if isinstance(oracle, Mapping):
        found = pool.plain(oracle)
    else:
        oracle.ask(pool.request(asked, len(pool.labelled)))
        found = pool.plain(oracle.collect())
    wanted = set(asked.tolist())
    answers = {i: answer for i, answer in found.items() if i in wanted}
    pool.check_labels(answers)
    before = dict(pool.state.labels)
    pool.state.correct(answers)
    return sum(not same(pool.state.labels.get(i), before.get(i)) for i in answers)
