"""Cluster representatives: a few members of every cluster stand for the rest of it, other members every round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State, check_share, share_to_count
from al_lightning.candidates.ranks import ranks
from al_lightning.pool.view import PoolView

MOST_CLUSTERS = 4096
"""Most clusters by default: clustering is on the bill, and its cost grows with their number."""


def cluster_worth(scores: np.ndarray, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return what one more member of each cluster promises: the mean rank of the scores remembered in it.

    Ranks, not values: any finite score will do, also below zero, and a few huge ones do not take every draw.
    Every cluster counts one more record at the mean of all ranks. So a cluster nobody has scored is worth the overall
    mean, a cluster known from one record is not believed blindly, and none falls to zero and out of sight.

    Args:
        scores: last score of each record that may still be drawn, ``(n,)``, NaN where there is none.
        clusters: cluster of each of them, ``(n,)`` int in ``[0, k)``.
        n_clusters: number of clusters, ``k``.

    Returns:
        ``(k,)`` float64 in ``(0, 1]``.
    """
    known = np.flatnonzero(~np.isnan(scores))
    if not len(known):
        return np.ones(n_clusters)
    rank = ranks(scores[known])
    count = np.bincount(clusters[known], minlength=n_clusters)
    total = np.bincount(clusters[known], weights=rank, minlength=n_clusters)
    return (total + rank.mean()) / (count + 1)


def draw_from_clusters(
    ids: np.ndarray,
    clusters: np.ndarray,
    last_scored: np.ndarray,
    worth: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw ``count`` ids, over clusters in proportion to members x worth, within one the longest unscored first.

    The allocation is a divisor method: the r-th member in turn of a cluster with m members and worth w stands at
    ``(r + u) / (m w)``, u uniform and one per cluster, and the ``count`` lowest places are taken. Draws are then exact
    in number, never more than a cluster has, and proportional up to one draw a cluster (on average too, unless clusters
    and draws are only a handful); no loop over clusters or records is needed.

    Args:
        ids: records to draw from, ``(n,)``.
        clusters: cluster of each of them, ``(n,)`` int in ``[0, k)``.
        last_scored: round each was last scored in, ``(n,)``, -1 for never. Ties are broken by ``rng``.
        worth: ``(k,)``, positive.
        count: how many, at most ``n``.
        rng: the turn among ties, and the share of a cluster whose quota is a fraction.

    Returns:
        ``(count,)`` ids, unsorted.
    """
    order = np.lexsort((rng.random(len(ids)), last_scored, clusters))
    cluster = clusters[order]
    members = np.bincount(cluster, minlength=len(worth))
    turn = np.arange(len(ids)) - (np.cumsum(members) - members)[cluster]
    place = (turn + rng.random(len(worth))[cluster]) / (members * worth)[cluster]
    if count < len(ids):
        order = order[np.argpartition(place, count)[:count]]
    return ids[order]


@dataclass(frozen=True)
class Representatives(CandidateSelector):
    """Infer a share of every cluster, a different part of it each round.

    Features are clustered once (k-means); the model is not asked. A query still holds only records that were inferred:
    clusters decide where to look, never what a record is worth.

    Args:
        share: fraction of the unlabelled records to infer, ``0 < share <= 1``. Never fewer than the query needs.
        n_clusters: number of clusters. By default one per record inferred in the first round, at most
            :data:`MOST_CLUSTERS`; the number is then kept for the run, so that clustering is paid once.
        memory: whether clusters with high remembered scores are looked at more (see :func:`cluster_worth`); without
            it, every cluster gets draws in proportion to its unlabelled members. Off by default: no measurement so
            far puts it above rotation alone (docs/cards/representatives.md).

    Example:
        >>> Representatives(0.1).uses_features
        True
    """

    share: float
    n_clusters: int | None = None
    memory: bool = False

    uses_features = True

    def __post_init__(self) -> None:
        check_share(self.share, type(self).__name__)
        if self.n_clusters is not None and self.n_clusters < 1:
            raise ValueError(
                f"Representatives(n_clusters={self.n_clusters}): allowed: a number >= 1, or None for one cluster per "
                f"record inferred in the first round, at most {MOST_CLUSTERS}."
            )

    def count(self, *, unlabelled: int, size: int, price: float | None = None, turn: int = 0) -> int:
        return share_to_count(self.share, unlabelled, size)

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        count = self.count(unlabelled=len(view.unlabelled), size=size)
        if not count:
            return view.unlabelled, state
        n_clusters = self.n_clusters or state.get("n_clusters") or min(count, MOST_CLUSTERS)
        assignments = view.clusters(n_clusters).assignments
        ids = view.unlabelled
        clusters = assignments[ids]
        worth = cluster_worth(view.scores[ids], clusters, n_clusters) if self.memory else np.ones(n_clusters)
        drawn = draw_from_clusters(ids, clusters, view.score_rounds[ids], worth, count, rng)
        return drawn, {"n_clusters": n_clusters}
