"""How far records lie from the labelled ones, in few dimensions, so that asking costs little."""

from __future__ import annotations

import numpy as np

from al_lightning.features.blocks import row_blocks


def project(features: np.ndarray, dims: int, *, seed: int) -> tuple[np.ndarray, float]:
    """Random projection, which keeps distances up to a few percent (Johnson & Lindenstrauss, 1984).

    Args:
        features: ``(N, d)``; a memory map is read block by block.
        dims: width to come down to; features that are no wider stay as they are.
        seed: of the projection.

    Returns:
        ``(N, min(d, dims))`` float32, and the floating-point operations it took, ``2 N d dims``.
    """
    n, width = features.shape
    if width <= dims:
        return np.ascontiguousarray(features, dtype=np.float32), 0.0
    matrix = np.random.default_rng(seed).normal(scale=dims**-0.5, size=(width, dims)).astype(np.float32)
    projected = np.empty((n, dims), dtype=np.float32)
    for block in row_blocks(n, width):
        projected[block] = np.asarray(features[block], dtype=np.float32) @ matrix
    return projected, 2.0 * n * width * dims


def distance_to_nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Euclidean distance of every point to the nearest of the others, exact.

    Args:
        points: ``(n, d)`` float32.
        others: ``(m, d)`` float32, at least one.

    Returns:
        ``(n,)`` float32, and the floating-point operations it took, ``2 n m d``.
    """
    import faiss

    origin = others.mean(axis=0)  # FAISS expands |x - y|^2, which cancels far from zero
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(others - origin))
    squared = index.search(np.ascontiguousarray(points - origin), 1)[0][:, 0]
    return np.sqrt(np.maximum(squared, 0)), 2.0 * len(points) * len(others) * points.shape[1]
