"""TypiClust: the most typical record of every region that has the fewest labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.features.blocks import check_finite, rows_of
from al_lightning.features.cluster import kmeans_flops
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.query.clusters import round_robin
from al_lightning.query.work import PickSize

SMALL = 5
"""Clusters of no more records, labelled ones counted, are left until the others are used up."""
_AT_ONCE = 64
"""Picks from one cluster before its neighbours are searched anew."""
_LARGER = 2
"""Squares of the sizes of clusters that give a record / the square of the mean size: the largest give first."""
_FINALISTS = 32
"""Records whose distances are taken exactly: the expansion that a search uses cancels, and duplicates must tie."""


def typical(rows: np.ndarray, count: int, neighbours: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Pick the record with the smallest mean distance to its nearest neighbours, leave it out, and again.

    Each time ``min(neighbours, m // 2)`` neighbours among the m records that are left count, as in the authors' code.
    A search over all pairs takes ``2 m^2 d`` floating-point operations, once for every 64 picks, and its lists
    ``12 m (neighbours + 64)`` bytes.

    Args:
        rows: ``(m, d)`` float32.
        count: how many to pick, at most ``m``.
        neighbours: how many count, at most.
        rng: breaks ties.

    Returns:
        ``(count,)`` distinct positions in the order they were picked, and the floating-point operations it took.
    """
    picked, flops, left = list[int](), 0.0, np.arange(len(rows))
    while len(picked) < count:
        some = min(count - len(picked), _AT_ONCE)
        found = _typical(rows[left], some, neighbours, rng)
        picked.extend(left[found].tolist())
        flops += 2.0 * len(left) ** 2 * rows.shape[1]
        left = np.delete(left, found)
    return np.array(picked, dtype=np.int64), flops


def _typical(rows: np.ndarray, count: int, neighbours: int, rng: np.random.Generator) -> list[int]:
    import faiss

    m = len(rows)
    width = min(m - 1, neighbours + count - 1)  # so that enough are left of a list when others have been picked
    centred = np.ascontiguousarray(rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32))
    squared, who = faiss.knn(centred, centred, width + 1)
    own = who == np.arange(m)[:, None]
    own[~own.any(axis=1), -1] = True  # a record with many duplicates may not find itself: the last goes instead
    distance = np.sqrt(np.maximum(squared[~own], 0)).reshape(m, width)
    who = who[~own].reshape(m, width)
    alive, picked = np.ones((m, width), dtype=bool), list[int]()
    for _ in range(count):
        k = min(neighbours, (m - len(picked)) // 2)
        counted = alive & (np.cumsum(alive, axis=1) <= k)
        mean = np.where(counted, distance, 0).sum(axis=1) / max(k, 1)
        mean[picked] = np.inf
        finalists = np.lexsort((rng.random(m), mean))[: min(_FINALISTS, m - len(picked))]
        first = np.argsort(~counted[finalists], axis=1, kind="stable")[:, :k]
        apart = rows[np.take_along_axis(who[finalists], first, axis=1)] - rows[finalists][:, None]
        exact = np.sqrt(np.einsum("fkd,fkd->fk", apart, apart)).sum(axis=1)
        picked.append(int(rng.choice(finalists[exact == exact.min()])))
        alive &= who != picked[-1]
    return picked


@dataclass(frozen=True)
class TypiClust(Strategy):
    """Query the most typical record of the clusters with the fewest labels: for when there are very few.

    The pool's features are clustered into as many clusters as there will be labels, at most ``max_clusters``. Clusters
    take turns, those with the fewest labels first and the largest of those first, and each gives the record with the
    highest typicality, one over the mean distance to its nearest neighbours in the cluster. Clusters of no more than
    :data:`SMALL` records come last. Nothing is inferred.

    Source: G. Hacohen, A. Dekel and D. Weinshall, "Active learning on a budget: opposite strategies suit high and low
    budgets", ICML 2022. The number of clusters differs from round to round until it is ``max_clusters``, as there, and
    each number is another clustering to pay.

    Args:
        max_clusters: at most so many clusters.
        neighbours: nearest neighbours that typicality is the distance to.

    Raises:
        ValueError: a setting below 1.

    Example:
        >>> TypiClust().needs_inference
        False
    """

    max_clusters: int = 500
    neighbours: int = 20

    requires = frozenset({"features"})

    def __post_init__(self) -> None:
        for name in ("max_clusters", "neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"TypiClust({name}={getattr(self, name)}): allowed: 1 or more.")

    def work(self, at: PickSize) -> float:
        """FLOPs of another clustering, while their number grows, and of distances within the clusters that give."""
        before, now = (min(labels, self.max_clusters, at.records) for labels in (at.labelled, at.labelled + at.size))
        clustering = kmeans_flops(at.records, at.features, now) if now > before else 0.0
        within = _LARGER * (at.candidates / now) ** 2 * at.features
        return clustering + 2.0 * within * (min(at.size, now) + at.size // _AT_ONCE)

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        features = view.features
        check_finite(features, ids)
        n_clusters = min(len(view.labelled) + size, self.max_clusters, view.size)
        assignments = view.clusters(n_clusters).assignments
        clusters = assignments[ids]
        labelled = np.bincount(assignments[view.labelled], minlength=n_clusters)
        members = np.bincount(clusters, minlength=n_clusters) + labelled
        between = np.empty(n_clusters, dtype=np.int64)
        between[np.lexsort((rng.random(n_clusters), -members, labelled))] = np.arange(n_clusters)
        large = members[clusters] > SMALL
        turns = [_turns(clusters[part], between) for part in (large, ~large)]
        turn = np.concatenate(turns)[:size]  # which cluster gives the first record, the second, ...
        picked, flops = np.empty(size, dtype=np.int64), 0.0
        with Stopwatch.running() as watch:
            order = np.argsort(clusters, kind="stable")
            ends = np.searchsorted(clusters[order], np.arange(n_clusters + 1))
            for cluster in np.unique(turn):
                mine = ids[order[ends[cluster] : ends[cluster + 1]]]
                places = np.flatnonzero(turn == cluster)
                found, cost = typical(rows_of(features, mine), len(places), self.neighbours, rng)
                picked[places] = mine[found]
                flops += cost
        if view.spend is not None:
            view.spend(flops, watch.seconds)
        return picked


def _turns(clusters: np.ndarray, between: np.ndarray) -> np.ndarray:
    return clusters[round_robin(clusters, np.arange(len(clusters)), between)]
