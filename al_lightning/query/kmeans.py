"""k-means: the record nearest to each of as many centroids as the query is large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import PoolExhausted
from al_lightning.features.blocks import rows_of
from al_lightning.features.cluster import kmeans, kmeans_flops
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.query.clusters import round_robin
from al_lightning.query.nearest import blocks, squared_norms
from al_lightning.query.work import PickSize


def nearest_to_centroids(
    features: np.ndarray, ids: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Cluster the candidates into ``size`` clusters and pick the member nearest to each centroid.

    Empty clusters, of which duplicates make some, pick nothing; the largest clusters pick their next nearest instead.
    Costs what :func:`~al_lightning.features.cluster.kmeans` does, in operations and memory; about ``22 n size d``
    operations for n candidates of width d, fewer of more than ``64 size``.

    Args:
        features: ``(N, d)``, row i belongs to id i; a memory map or float16 is fine.
        ids: candidates, ``(n,)``, distinct.
        size: how many to pick.
        rng: of the first centroids; breaks ties.

    Returns:
        ``(size,)`` distinct ids, of the largest cluster first, and the floating-point operations it took.

    Raises:
        PoolExhausted: fewer candidates than ``size``.
        BadScores: features of a candidate are NaN or infinite; the ids are named.
    """
    if size > len(ids):
        raise PoolExhausted(size, len(ids), "candidates")
    found = kmeans(features, size, seed=int(rng.integers(2**31)), ids=ids)
    distance = np.empty(len(ids), dtype=np.float32)
    for block in blocks(len(ids), features.shape[1]):
        distance[block] = squared_norms(rows_of(features, ids[block]) - found.centroids[found.assignments[block]])
    within, between = np.empty(len(ids), dtype=np.int64), np.empty(size, dtype=np.int64)
    within[np.lexsort((rng.random(len(ids)), distance))] = np.arange(len(ids))
    members = np.bincount(found.assignments, minlength=size)
    between[np.lexsort((rng.random(size), -members))] = np.arange(size)
    picked = ids[round_robin(found.assignments, within, between)[:size]]
    return picked, found.flops + 3.0 * len(ids) * features.shape[1]


@dataclass(frozen=True)
class KMeans(Strategy):
    """Query the candidates nearest to the centroids of as many clusters as records are wanted.

    Every region is covered in proportion to its variance and density; a record far outside is one too. It reads the
    pool's features and nothing of the model: as the first query of a run it is centroid seeding.

    Source: O. Sener and S. Savarese, ICLR 2018, compare with it; as a first query, Y. Yuan et al., "Cold-start active
    learning through self-supervised language modeling", EMNLP 2020, section 3 (k-means of embeddings).

    Example:
        >>> KMeans().needs_inference
        False
    """

    requires = frozenset({"features"})

    def work(self, at: PickSize) -> float:
        """FLOPs of clustering the candidates."""
        return kmeans_flops(at.candidates, at.features, at.size) + 3.0 * at.candidates * at.features

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
        with Stopwatch.running() as watch:
            picked, flops = nearest_to_centroids(features, ids, size, rng)
        if view.spend is not None:
            view.spend(flops, watch.seconds)
        return picked
