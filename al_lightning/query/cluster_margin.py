"""Cluster-Margin: the most uncertain records, taken in turns from the clusters they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy, top
from al_lightning.query.clusters import check_clusters, round_robin, usual_clusters
from al_lightning.query.margin import Margin
from al_lightning.query.wrapper import Wrapper

ORDERS = ("size", "score")


def cluster_turns(clusters: np.ndarray, order: str) -> np.ndarray:
    """Go round the clusters of records that come best first.

    Args:
        clusters: cluster of each record, ``(n,)`` int; the best record comes first.
        order: ``"size"``: the cluster with the fewest of these records has the first turn, the one with the better
            record among equals; ``"score"``: the cluster with the best record has.

    Returns:
        ``(n,)`` positions, in turn; within a cluster the best first.
    """
    rank = np.arange(len(clusters))
    best = np.full(clusters.max(initial=-1) + 1, len(clusters))
    np.minimum.at(best, clusters, rank)
    members = np.bincount(clusters, minlength=len(best)) if order == "size" else np.zeros(len(best))
    between = np.empty(len(best), dtype=np.int64)
    between[np.lexsort((best, members))] = np.arange(len(best))
    return round_robin(clusters, rank, between)


@dataclass(frozen=True)
class ClusterMargin(Wrapper):
    """Query the records with the smallest margins, in turns from the clusters of the pool they lie in.

    ``oversample * size`` records with the best scores are taken, and of them one of each cluster in turn, so that a
    large query does not hold one region many times. The paper clusters once by agglomeration (average linkage), which
    takes distances of all pairs, and draws within a cluster; here the clusters are those of k-means, made once, and
    within a cluster the best score comes first.

    Source: G. Citovsky et al., "Batch active learning at scale", NeurIPS 2021.

    Args:
        strategy: gives the score; any strategy with one score per record.
        n_clusters: of the pool; by default the power of two nearest to the square root of its size.
        oversample: records the query is made from, as a multiple of its size, at least 1.
        order: which cluster has the first turn: ``"size"``, the one with the fewest of these records, as in the paper,
            or ``"score"``, the one with the best of them.

    Raises:
        ValueError: a strategy without a score, or a setting out of range.

    Example:
        >>> ClusterMargin().needs_inference
        True
    """

    strategy: Strategy = field(default_factory=Margin)
    n_clusters: int | None = None
    oversample: float = 10.0
    order: str = "size"

    adds = frozenset({"features"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_clusters(self.n_clusters, "ClusterMargin", "the power of two nearest to the square root of the pool")
        if not self.oversample >= 1:
            raise ValueError(f"ClusterMargin(oversample={self.oversample}): a multiple of the query's size, 1 or more.")
        if self.order not in ORDERS:
            raise ValueError(f"ClusterMargin(order={self.order!r}): allowed: {', '.join(ORDERS)}.")

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        many = min(len(ids), int(np.ceil(self.oversample * size)))
        best = ids[top(arrays["score"], many, rng)]
        clusters = view.clusters(self.n_clusters or usual_clusters(view.size)).assignments[best]
        return best[cluster_turns(clusters, self.order)[:size]]
