"""K-means clusters of the features, by FAISS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.errors import BadScores, PoolError
from al_lightning.features.blocks import row_blocks


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


def kmeans(
    features: np.ndarray, n_clusters: int, seed: int, *, iterations: int = 10, points_per_centroid: int = 64
) -> Clusters:
    """Cluster the features by k-means (Lloyd 1982), Euclidean, trained on a random sample.

    One pass over n records costs ``2 n k d`` floating-point operations. With ``m = min(N, k points_per_centroid)``
    records to train on, k-means costs ``2 k d (m iterations + N)``. Beside the features it takes
    ``4 (m + k) d + 4 N`` bytes; the features are read block by block, so a memory map or float16 is fine.
    With fewer distinct records than clusters, some clusters stay empty.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        n_clusters: number of clusters, ``k``, at most ``N``.
        seed: of the sample and of the first centroids; the same seed gives the same clusters.
        iterations: passes over the sample.
        points_per_centroid: records to train on, per cluster.

    Raises:
        PoolError: features are not ``(N, d)``, or there are more clusters than records.
        BadScores: features are NaN or infinite; the ids are named.
    """
    import faiss  # 0.1 s that runs without clusters need not pay

    if features.ndim != 2 or not features.shape[1]:
        raise PoolError(f"features of shape {features.shape} cannot be clustered; allowed: (N, d), one row per record.")
    n, width = features.shape
    if not 1 <= n_clusters <= n:
        raise PoolError(f"{n_clusters} clusters of {n} records; allowed: 1 to {n}. Ask for fewer clusters.")
    blocks = row_blocks(n, width)
    _check_finite(features, blocks)

    sample = np.arange(n)
    if n > n_clusters * points_per_centroid:
        sample = np.sort(np.random.default_rng(seed).permutation(n)[: n_clusters * points_per_centroid])
    training = np.array(features[sample], dtype=np.float32, order="C")
    # FAISS expands |x - c|^2, which cancels when the features lie far from zero
    origin = training.mean(axis=0, dtype=np.float64).astype(np.float32)
    training -= origin
    faiss_kmeans = faiss.Kmeans(
        width,
        n_clusters,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,  # fewer than its default makes FAISS print warnings
        max_points_per_centroid=len(sample),
    )
    faiss_kmeans.train(training)
    centroids = np.asarray(faiss_kmeans.centroids, dtype=np.float32)

    index = faiss.IndexFlatL2(width)
    index.add(centroids)
    assignments = np.empty(n, dtype=np.int32)
    for block in blocks:
        rows = np.ascontiguousarray(features[block], dtype=np.float32) - origin
        assignments[block] = index.search(rows, 1)[1][:, 0]
    trained = len(sample) * iterations if len(sample) > n_clusters else 0  # else every record is a centroid
    return Clusters(
        assignments=assignments,
        centroids=centroids + origin,
        flops=2.0 * n_clusters * width * (trained + n),
    )


def _check_finite(features: np.ndarray, blocks: list[slice]) -> None:
    bad = [block.start + np.flatnonzero(~np.isfinite(features[block]).all(axis=1)) for block in blocks]
    if any(len(ids) for ids in bad):
        raise BadScores(np.concatenate(bad).tolist(), "features")
