"""K-means clusters of the features, by FAISS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from al_lightning.errors import PoolError
from al_lightning.features.blocks import Part, check_finite, row_blocks
from al_lightning.features.cells import Tally, flat_index
from al_lightning.features.two_level import Rows, assign, fit, flat


@dataclass(frozen=True)
class Clusters:
    """A partition of the pool.

    Args:
        assignments: nearest centroid of every record, ``(N,)`` int32 in ``[0, k)``.
        centroids: ``(k, d)`` float32.
        flops: floating-point operations it took, for the ledger.
    """

    assignments: np.ndarray
    centroids: np.ndarray
    flops: float


MOST_FLAT = 4096
"""Most clusters that every record is compared with; beyond, records look only into the cells around them."""


def kmeans(
    features: np.ndarray,
    n_clusters: int,
    seed: int,
    *,
    ids: np.ndarray | None = None,
    iterations: int = 10,
    points_per_centroid: int = 64,
) -> Clusters:
    """Cluster the features by k-means (Lloyd 1982), Euclidean, trained on a random sample.

    One pass over n records costs ``2 n k d`` floating-point operations. With ``m = min(N, k points_per_centroid)``
    records to train on, k-means costs ``2 k d (m iterations + N)``. Beside the features it takes
    ``4 (m + k) d + 4 N`` bytes; the features are read block by block, so a memory map or float16 is fine.
    With fewer distinct records than clusters, some clusters stay empty.

    Above :data:`MOST_FLAT` clusters there are two levels (:func:`al_lightning.features.two_level.fit`; approximate
    k-means, Philbin et al. 2007, with cells in place of trees): a record is compared with the centroids in the 6 to 16
    cells around it, a cell having about 64. That costs about ``2 d N (k / 64 + 64 (16 + 6
    iterations))`` operations, more where records crowd, and ``k / 64`` becomes some hundreds above 131,072 clusters,
    whose cells have cells of their own: near-linear in N however many clusters. ``flops`` has what was computed. Beside
    the features it takes about ``16 k d + 32 m + 4 N`` bytes, and half a GB for a block. The sum of squared distances
    comes out 1 to 3 % above what flat k-means finds (benchmarks/clustering.py), and a record may have missed its
    nearest centroid.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        n_clusters: number of clusters, ``k``, at most ``N``.
        seed: of the sample and of the first centroids; the same seed gives the same clusters.
        ids: records to cluster, ``(n,)``, which assignments are then aligned with; None: all.
        iterations: passes over the sample.
        points_per_centroid: records to train on, per cluster.

    Raises:
        PoolError: features are not ``(N, d)``, or there are more clusters than records.
        BadScores: features are NaN or infinite; the ids are named.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise PoolError(f"features of shape {features.shape} cannot be clustered; allowed: (N, d), one row per record.")
    n = len(features) if ids is None else len(ids)
    if not 1 <= n_clusters <= n:
        raise PoolError(f"{n_clusters} clusters of {n} records; allowed: 1 to {n}. Ask for fewer clusters.")
    check_finite(features, range(n) if ids is None else ids)
    if ids is not None:
        features = cast("np.ndarray", Part(features, ids))

    sample = None
    if n > n_clusters * points_per_centroid:
        sample = np.sort(np.random.default_rng(seed).permutation(n)[: n_clusters * points_per_centroid])
    if n_clusters > MOST_FLAT:
        return _two_level(features, sample, n_clusters, seed, iterations)
    return _flat(features, sample, n_clusters, seed, iterations)


def kmeans_flops(
    records: int, width: int, n_clusters: int, *, iterations: int = 10, points_per_centroid: int = 64
) -> float:
    """Floating-point operations that :func:`kmeans` will take; beyond :data:`MOST_FLAT` clusters about as many."""
    k = n_clusters
    if k > MOST_FLAT:
        return 2.0 * width * records * (k / 64 + 64 * (16 + 6 * iterations))
    sample = min(records, k * points_per_centroid)
    return 2.0 * k * width * (sample * iterations * (sample > k) + records)


def nearest_centroid(features: np.ndarray, centroids: np.ndarray, *, start: int = 0) -> tuple[np.ndarray, float]:
    """The nearest centroid of every record from ``start`` on, exact, read block by block.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        centroids: ``(k, d)`` float32.
        start: first id.

    Returns:
        ``(N - start,)`` int32, and the floating-point operations it took, ``2 (N - start) k d``.

    Raises:
        BadScores: features are NaN or infinite; the ids are named.
    """
    check_finite(features, range(start, len(features)))
    blocks = [
        slice(start + block.start, start + block.stop) for block in row_blocks(len(features) - start, features.shape[1])
    ]
    origin = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    index = flat_index(centroids - origin)
    found = [np.zeros(0, np.int32), *(_search(index, features[block], origin) for block in blocks)]
    return np.concatenate(found), 2.0 * (len(features) - start) * centroids.size


def _search(index: Any, features: np.ndarray, origin: np.ndarray) -> np.ndarray:
    # FAISS expands |x - c|^2, which cancels when the features lie far from zero
    rows = np.ascontiguousarray(features, dtype=np.float32) - origin
    return np.asarray(index.search(rows, 1)[1][:, 0], dtype=np.int32)


def _flat(features: np.ndarray, sample: np.ndarray | None, k: int, seed: int, iterations: int) -> Clusters:
    n, width = features.shape
    training = np.array(features[:] if sample is None else features[sample], dtype=np.float32, order="C")
    origin = training.mean(axis=0, dtype=np.float64).astype(np.float32)
    training -= origin
    centroids = flat(training, k, seed, iterations)
    index = flat_index(centroids)
    assignments = np.concatenate([_search(index, features[block], origin) for block in row_blocks(n, width)])
    trained = len(training) * iterations if len(training) > k else 0  # else every record is a centroid
    return Clusters(assignments=assignments, centroids=centroids + origin, flops=2.0 * k * width * (trained + n))


def _two_level(features: np.ndarray, sample: np.ndarray | None, k: int, seed: int, iterations: int) -> Clusters:
    some = features[:: max(1, len(features) // 4096)]
    origin = np.asarray(some, dtype=np.float32).mean(axis=0, dtype=np.float64).astype(np.float32)
    tally = Tally()
    partition = fit(Rows(features, origin, sample), k, seed, iterations, tally)
    assignments, centroids = assign(Rows(features, origin), partition, tally, fitted=sample is None)
    return Clusters(assignments=assignments, centroids=centroids + origin, flops=tally.flops)
