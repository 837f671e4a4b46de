"""A candidate selector decides which records are worth inferring this round. It never sees the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from al_lightning.errors import ActiveLearningError
from al_lightning.pool.view import PoolView

State = dict[str, Any]
"""Plain data (JSON) a selector keeps between rounds; it lives in the run's store."""


def share_to_count(share: float, unlabelled: int, size: int) -> int:
    """``share`` of the unlabelled records, at least ``size`` (a query must be possible), at most all of them."""
    return min(unlabelled, max(size, int(np.ceil(share * unlabelled))))


def check_share(share: float, who: str, name: str = "share") -> None:
    """Raise ValueError unless ``0 < share <= 1``, naming the setting."""
    if not 0 < share <= 1:
        raise ValueError(f"{who}({name}={share}): a fraction of the unlabelled records, allowed: 0 < {name} <= 1.")


class CandidateSelector(ABC):
    """Serve as the base of every selector. It checks what comes out; the subclass writes ``_propose``.

    Attributes:
        reuses_scores: whether records scored in an earlier round may be queried by their stale score.
        uses_features: whether the pool's features are read.
        uses_shards: whether it must know which shard a record lies in.
    """

    reuses_scores: bool = False
    uses_features: bool = False
    uses_shards: bool = False

    def count(self, *, unlabelled: int, size: int, price: float | None = None, turn: int = 0) -> int:
        """Return how many records it will have inferred for a query, from counts alone; at most, where ids decide too.

        Args:
            unlabelled: records that could be inferred.
            size: of the query.
            price: compute of inferring one record / compute of the recipe for one label; None while unknown.
            turn: queries it has proposed candidates for before.
        """
        return unlabelled

    def propose(self, *, view: PoolView, size: int, rng: np.random.Generator, state: State) -> tuple[np.ndarray, State]:
        """Choose the ids to infer this round.

        Args:
            view: the pool, read-only.
            size: how many records will be queried.
            rng: generator of this seed and round.
            state: what this selector returned last round, ``{}`` at first.

        Returns:
            Ids ``(n,)`` int64, ascending, unlabelled, without duplicates; and the state for the next round. No ids
            means that nothing is inferred and the query is made from stale scores.
        """
        ids, state = self._propose(view=view, size=size, rng=rng, state=state)
        ids = np.sort(np.asarray(ids, dtype=np.int64))
        if len(np.unique(ids)) != len(ids) or not np.isin(ids, view.unlabelled).all():
            raise ActiveLearningError(f"{type(self).__name__} proposed ids twice, or ids that are not unlabelled.")
        return ids, state

    @abstractmethod
    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        """Return distinct unlabelled ids and the next state."""
