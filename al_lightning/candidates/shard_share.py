"""Whole shards: a share of the pool is inferred for which only that share of its bytes is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State, check_share, share_to_count
from al_lightning.pool.view import PoolView


def draw_from_shards(
    ids: np.ndarray,
    shard: np.ndarray,
    scores: np.ndarray,
    last_scored: np.ndarray,
    count: int,
    best: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw ``count`` ids from as few shards as hold them: all that a shard has, then the next; of the last one, a part.

    First come the shards with the highest mean of the scores remembered in them, until ``best * count`` records are
    drawn; then those that nothing was scored of for longest, never-scored ones before. What was left of a shard is
    drawn first when its turn comes again.

    Args:
        ids: records to draw from, ``(n,)``.
        shard: shard of each of them, ``(n,)`` int.
        scores: last score of each, ``(n,)``, NaN where there is none.
        last_scored: round each was last scored in, ``(n,)``, -1 for never.
        count: how many, at most ``n``.
        best: fraction of ``count`` that shards are taken for by their scores.
        rng: breaks ties.

    Returns:
        ``(count,)`` ids, shard by shard.
    """
    _, of, members = np.unique(shard, return_inverse=True, return_counts=True)
    ties = rng.random(len(members))
    last_turn = np.full(len(members), -1)
    np.maximum.at(last_turn, of, last_scored)
    turn = np.lexsort((ties, last_turn))
    known = ~np.isnan(scores)
    scored = np.bincount(of[known], minlength=len(members))
    total = np.bincount(of[known], weights=scores[known], minlength=len(members))
    with_scores = np.flatnonzero(scored)
    by_score = with_scores[np.lexsort((ties[with_scores], -total[with_scores] / scored[with_scores]))]
    by_score = by_score[np.cumsum(members[by_score]) - members[by_score] < best * count]
    place = np.empty(len(members), dtype=np.int64)
    place[np.concatenate([by_score, turn[~np.isin(turn, by_score)]])] = np.arange(len(members))
    return ids[np.lexsort((rng.random(len(ids)), last_scored, place[of]))[:count]]


@dataclass(frozen=True)
class ShardShare(CandidateSelector):
    """Infer a share of the pool, whole shards at a time, so that only their bytes are read: other shards each round.

    Needs a pool in shards (``ParquetShards``, ``TarShards``). Without ``best``, every shard has its turn before any
    has a second. Candidates are as like each other as the records of a shard are: write shards of shuffled records.

    Args:
        share: fraction of the unlabelled records to infer, ``0 < share <= 1``. Never fewer than the query needs.
        best: fraction of them for which shards are taken by the mean of their records' last scores, ``0 <= best < 1``.
            Worth something where shards differ (by source, by day). Strategies without a score leave it out.

    Example:
        >>> ShardShare(0.05).uses_shards
        True
    """

    share: float
    best: float = 0.0

    uses_shards = True

    def __post_init__(self) -> None:
        check_share(self.share, type(self).__name__)
        if not 0 <= self.best < 1:
            raise ValueError(
                f"ShardShare(best={self.best}): a fraction of the records to infer, allowed: 0 <= best < 1. With "
                "nothing but the best shards, most would never be looked at."
            )

    def count(self, *, unlabelled: int, size: int, price: float | None = None, turn: int = 0) -> int:
        return share_to_count(self.share, unlabelled, size)

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        ids = view.unlabelled
        count = self.count(unlabelled=len(ids), size=size)
        shard = view.shard_of[ids]
        return draw_from_shards(ids, shard, view.scores[ids], view.score_rounds[ids], count, self.best, rng), state
