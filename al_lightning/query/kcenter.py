"""k-center greedy: records that leave no part of the feature space far from a labelled one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.errors import BadScores, PoolExhausted
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy

_BLOCK = 1 << 18
"""Numbers of a block that distances are computed on: 1 MiB of float32, so that it stays in the cache."""
_LINES = 2048
"""Centers compared with a block at once, by one matrix product."""


def k_center_greedy(
    features: np.ndarray, ids: np.ndarray, centers: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Pick the candidate farthest from every center, make it a center, and again, ``size`` times.

    A 2-approximation of the k-center problem (Gonzalez 1985; Sener & Savarese 2018, algorithm 1). Distances are
    Euclidean, in float32. About ``2 (L + size) n d`` floating-point operations for n candidates and L centers, and
    O(n) memory beside the features, which are read block by block: a memory map or float16 is fine.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        ids: candidates, ``(n,)``, distinct.
        centers: ids that are covered already, ``(L,)``; with none, the first pick is drawn by ``rng``.
        size: how many to pick.
        rng: breaks ties, duplicate points included.

    Returns:
        ``(size,)`` distinct ids, in the order they were picked.

    Raises:
        PoolExhausted: fewer candidates than ``size``.
        BadScores: features of a candidate or a center are NaN or infinite; the ids are named.
    """
    if size > len(ids):
        raise PoolExhausted(size, len(ids), "candidates")
    _check_finite(features, np.concatenate([ids, centers]))
    distance = _to_nearest_center(features, ids, centers)
    picked = np.empty(size, dtype=np.int64)
    for i in range(size):
        farthest = rng.choice(np.flatnonzero(distance == distance.max()))
        picked[i] = ids[farthest]
        center = _rows(features, ids[farthest : farthest + 1])
        for block in _blocks(len(ids), features.shape[1]):
            np.minimum(distance[block], _squared(_rows(features, ids[block]) - center), out=distance[block])
        distance[farthest] = -1  # below every distance: never picked again, not even among duplicates
    return picked


def _rows(features: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.asarray(features[ids], dtype=np.float32)


def _squared(differences: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", differences, differences)


def _blocks(n: int, width: int) -> list[slice]:
    step = max(1, _BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, n, step)]


def _check_finite(features: np.ndarray, ids: np.ndarray) -> None:
    blocks = [ids[block] for block in _blocks(len(ids), features.shape[1])]
    bad = [block[~np.isfinite(features[block]).all(axis=1)] for block in blocks]
    if any(len(block) for block in bad):
        raise BadScores(np.sort(np.concatenate(bad)).tolist(), "features")


def _to_nearest_center(features: np.ndarray, ids: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest center, ``(n,)`` float32; infinite where there is no center."""
    distance = np.full(len(ids), np.inf, dtype=np.float32)
    if not len(centers):
        return distance
    origin = _rows(features, centers[:_LINES]).mean(axis=0, dtype=np.float64).astype(np.float32)
    for block in _blocks(len(ids), max(features.shape[1], _LINES)):
        rows = _rows(features, ids[block])
        nearest, best = centers[np.zeros(len(rows), dtype=np.int64)], np.full(len(rows), np.inf, dtype=np.float32)
        for start in range(0, len(centers), _LINES):
            some = centers[start : start + _LINES]
            lines = _rows(features, some) - origin
            # |x - c|^2 without |x|^2, which does not change which center is nearest
            partial = _squared(lines) - 2 * (rows - origin) @ lines.T
            closest = partial.argmin(axis=1)
            value = partial[np.arange(len(rows)), closest]
            nearest, best = np.where(value < best, some[closest], nearest), np.minimum(value, best)
        # the difference itself: the expansion above cancels, and a duplicate of a center must come out at exactly 0
        distance[block] = _squared(rows - _rows(features, nearest))
    return distance


@dataclass(frozen=True)
class KCenterGreedy(Strategy):
    """Query the core set: each pick is the candidate farthest from everything labelled or picked so far.

    Reads the pool's features and nothing of the model, so nothing is inferred.

    Source: O. Sener and S. Savarese, "Active learning for convolutional neural networks: a core-set approach",
    ICLR 2018.
    """

    requires = frozenset({"features"})

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return k_center_greedy(view.features, ids, view.labelled, size, rng)
