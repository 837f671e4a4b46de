"""Rotating subsets: each round another part of the pool is inferred, and what looked best when it was last scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State, check_share, share_to_count
from al_lightning.pool.view import PoolView


@dataclass(frozen=True)
class RotatingSubset(CandidateSelector):
    """Infer a share of the pool: partly what scored best when it was last scored, partly what was scored longest ago.

    The second part goes round the pool, never-scored records first, so that every record has its turn within
    ``1 / (share * (1 - best))`` rounds. That is where it differs from a random share, which after as many rounds has
    not looked at a third of the pool yet. The first part looks again at records that were nearly queried.

    Sources: stale scores decide what is scored next: A. Tsvigun et al., "Towards computationally feasible deep active
    learning", Findings of NAACL 2022; G. Nemeth and T. Matuszka, "Compute-efficient active learning", RealML at
    NeurIPS 2023. Both draw by the stale score alone; the turns are ours: docs/cards/staggered.md has the difference.

    Args:
        share: fraction of the unlabelled records to infer, ``0 < share <= 1``. Never fewer than the query needs.
        best: fraction of them taken by their last score, ``0 <= best < 1``. Strategies without a score leave it out.
        spend: what scoring may cost over the run, as a fraction of one training on the labels it buys. Of a large pool
            that is less than ``share``, and rho does not grow with the pool. None, or where the price of scoring is
            not known (a hand-written loop, a Trainer without a limit on epochs): ``share`` alone decides.

    Example:
        >>> RotatingSubset(0.3).count(unlabelled=900, size=10)
        270
    """

    share: float
    best: float = 0.25
    spend: float | None = None

    def __post_init__(self) -> None:
        check_share(self.share, type(self).__name__)
        if not 0 <= self.best < 1:
            raise ValueError(
                f"RotatingSubset(best={self.best}): a fraction of the records to infer, allowed: 0 <= best < 1. "
                "With nothing but the best, most of the pool would never be looked at."
            )
        if self.spend is not None and not self.spend > 0:
            raise ValueError(f"RotatingSubset(spend={self.spend}): a share of one training, allowed: above 0, or None.")

    def count(self, *, unlabelled: int, size: int, price: float | None = None, turn: int = 0) -> int:
        count = share_to_count(self.share, unlabelled, size)
        if self.spend is not None and price:
            count = min(count, max(size, int(self.spend * size / price)))
        return count

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        ids = view.unlabelled
        count = self.count(unlabelled=len(ids), size=size, price=view.score_cost)
        ties = rng.random(len(ids))
        scores = view.scores[ids]
        known = np.count_nonzero(~np.isnan(scores))
        by_score = np.lexsort((ties, -scores))[: min(known, int(self.best * count))]  # NaN sorts last
        turn = np.lexsort((ties, view.score_rounds[ids]))
        turn = turn[~np.isin(turn, by_score)][: count - len(by_score)]
        return ids[np.concatenate([by_score, turn])], state
