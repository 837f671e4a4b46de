"""Every k-th round: in between, the query is made from scores of earlier rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State
from al_lightning.pool.view import PoolView


@dataclass(frozen=True)
class EveryK(CandidateSelector):
    """Infer in one round, then query from stale scores for ``k - 1`` rounds.

    Also infers, and starts counting anew, when fewer unlabelled records have a score than the query needs. Only
    strategies that are one number per record can query by a stale score.

    Args:
        selector: which records to infer when it is time to.
        k: rounds from one inference to the next; 1 is the selector alone, except that stale scores count.

    Example:
        >>> from al_lightning.candidates import WholePool
        >>> EveryK(WholePool(), 2).count(unlabelled=900, size=10, turn=0)
        900
    """

    selector: CandidateSelector
    k: int

    reuses_scores = True

    def __post_init__(self) -> None:
        if self.k < 1 or self.k != int(self.k):
            raise ValueError(f"EveryK(k={self.k}): k is the rounds between two inferences, allowed: 1, 2, 3, ...")
        for name in ("uses_features", "uses_shards"):
            object.__setattr__(self, name, getattr(self.selector, name))  # frozen, yet not a setting

    def count(self, *, unlabelled: int, size: int, price: float | None = None, turn: int = 0) -> int:
        if turn % self.k:
            return 0
        return self.selector.count(unlabelled=unlabelled, size=size, price=price, turn=turn // self.k)

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        since = state.get("since", self.k)  # rounds since the last inference; due at once in the first round
        scored = np.count_nonzero(~np.isnan(view.scores[view.unlabelled]))
        if since < self.k and scored >= size:
            return np.zeros(0, dtype=np.int64), {**state, "since": since + 1}
        ids, inner = self.selector.propose(view=view, size=size, rng=rng, state=state.get("selector", {}))
        return ids, {"since": 1, "selector": inner}
