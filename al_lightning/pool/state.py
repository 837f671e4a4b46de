"""What is known about each record: labelled, waiting for an answer, refused, kept for the stop set, or free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from al_lightning.errors import PoolError, PoolExhausted
from al_lightning.oracles.oracle import SKIP

FREE, WAITING, LABELLED, SKIPPED, STOP_SET = range(5)
_NAMES = ("unlabelled", "waiting for an answer", "already labelled", "refused by the oracle", "in the stop set")


def checked_costs(costs: Any) -> np.ndarray:
    """``(N,)`` float64; raises PoolError, which names the ids, unless every record's label costs a number above 0."""
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 1:
        raise PoolError(f"label_costs have shape {costs.shape}; allowed: (N,), one price per record.")
    wrong = np.flatnonzero(~(np.isfinite(costs) & (costs > 0)))
    if len(wrong):
        named = ", ".join(f"{costs[i]:g} for id {i}" for i in wrong[:5])
        raise PoolError(
            f"label_costs holds {named} ({len(wrong)} in all); allowed: numbers above 0, multiples of Prices.label. "
            "Leave out of the dataset what cannot be labelled, and give a small number to what costs next to nothing."
        )
    return costs


def check_keys(keys: Sequence[Any]) -> None:
    """Raise PoolError, which names two ids, where two records have one key: people tell records apart by it."""
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        before = first.setdefault(str(key), i)
        if before != i:
            raise PoolError(
                f"keys has {str(key)!r} for ids {before} and {i}: a key names one record, in label files and when a "
                "run goes on. Make keys unique, for example with the folder before the file's name, or leave keys out."
            )


class PoolState:
    """Bookkeeping in ids; every change is checked here, at one seam.

    Args:
        size: number of records.
    """

    def __init__(self, size: int) -> None:
        self.status = np.zeros(size, dtype=np.uint8)
        self.labels: dict[int, Any] = {}  # as they came in; in a run see Saved.placed
        self.scores = np.full(size, np.nan, dtype=np.float32)
        self.score_rounds = np.full(size, -1, dtype=np.int32)

    @property
    def size(self) -> int:
        """Number of records."""
        return len(self.status)

    @property
    def unlabelled(self) -> np.ndarray:
        """Ids that may be queried, ascending."""
        return np.flatnonzero(self.status == FREE)

    @property
    def waiting(self) -> np.ndarray:
        """Ids queried and not answered yet, ascending."""
        return np.flatnonzero(self.status == WAITING)

    @property
    def queried(self) -> np.ndarray:
        """Ids that were ever queried, answered or not, ascending."""
        return np.flatnonzero((self.status != FREE) & (self.status != STOP_SET))

    @property
    def stop_set(self) -> np.ndarray:
        """Ids kept for measuring agreement, ascending."""
        return np.flatnonzero(self.status == STOP_SET)

    @property
    def labelled(self) -> np.ndarray:
        """Ids with a label, in the order of labelling."""
        return np.fromiter(self.labels, dtype=np.int64, count=len(self.labels))

    def _checked(self, ids: Iterable[int], allowed: tuple[int, ...], action: str) -> np.ndarray:
        array = np.asarray(list(ids), dtype=np.int64)
        outside = array[(array < 0) | (array >= self.size)]
        if len(outside):
            raise PoolError(f"cannot {action} ids {outside[:10].tolist()}: ids of this pool are 0 to {self.size - 1}.")
        if len(np.unique(array)) != len(array):
            twice = [i for i, n in zip(*np.unique(array, return_counts=True), strict=True) if n > 1]
            raise PoolError(f"cannot {action} ids {[int(i) for i in twice[:10]]}: given more than once.")
        wrong = array[~np.isin(self.status[array], allowed)]
        if len(wrong):
            raise PoolError(f"cannot {action} id {wrong[0]}: it is {_NAMES[self.status[wrong[0]]]}.")
        return array

    def reserve(self, ids: Iterable[int]) -> None:
        """Keep ids for the stop set; they are never queried."""
        self.status[self._checked(ids, (FREE,), "reserve")] = STOP_SET

    def query(self, ids: Iterable[int]) -> None:
        """Mark ids as queried."""
        self.status[self._checked(ids, (FREE,), "query")] = WAITING

    def release(self, ids: Iterable[int]) -> None:
        """Free ids again whose query failed."""
        self.status[self._checked(ids, (WAITING,), "release")] = FREE

    def answer(self, answers: Mapping[int, Any]) -> None:
        """Store answers to queried ids: a label, or SKIP."""
        for i in self._checked(answers, (WAITING,), "label").tolist():
            if answers[i] is SKIP:
                self.status[i] = SKIPPED
            else:
                self.status[i] = LABELLED
                self.labels[i] = answers[i]

    def correct(self, answers: Mapping[int, Any]) -> None:
        """Change answers that are in already: another label in the same place, a label withdrawn, or a late one."""
        for i in self._checked(answers, (LABELLED, SKIPPED), "correct").tolist():
            if answers[i] is SKIP:
                self.status[i] = SKIPPED
                self.labels.pop(i, None)
            else:
                self.status[i] = LABELLED
                self.labels[i] = answers[i]

    def arrange(self, places: Mapping[int, int]) -> None:
        """Put the labels in the order of these places, id -> place; those that are in it already stay as they are."""
        order = [places[i] for i in self.labels]
        if order != sorted(order):
            self.labels = dict(sorted(self.labels.items(), key=lambda item: places[item[0]]))

    def forget(self, ids: Iterable[int]) -> None:
        """Free labelled ids again, to enter them as a run's first query."""
        for i in self._checked(ids, (LABELLED,), "forget").tolist():
            self.status[i] = FREE
            del self.labels[i]

    def record_scores(self, ids: np.ndarray, scores: np.ndarray, round: int) -> None:
        """Remember fresh scores; they are stale from the next round on."""
        self.scores[ids] = scores
        self.score_rounds[ids] = round

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """``size`` unlabelled ids at random.

        Raises:
            PoolExhausted: fewer are left.
        """
        free = self.unlabelled
        if size > len(free):
            raise PoolExhausted(size, len(free))
        return rng.choice(free, size=size, replace=False)
