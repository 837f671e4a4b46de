"""ProbCover: records whose neighbourhoods cover as many others as possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import ActiveLearningError, PoolExhausted
from al_lightning.features.blocks import check_finite, rows_of
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.query.clusters import check_clusters, usual_clusters
from al_lightning.query.nearest import Nearest, squared_norms
from al_lightning.query.work import PickSize

MOST_NEIGHBOURS = 128
"""Neighbours within delta that a record may have on average, so that the graph takes no more than 3 KB a record."""
_SMALL = 1 << 20
"""Pairs that a graph may always have."""
_BLOCK = 1024
"""Records compared with as many others at once."""
_SAMPLE = 1000
"""Records that delta is estimated on."""


def prob_cover_picks(
    features: np.ndarray, ids: np.ndarray, centers: np.ndarray, size: int, delta: float, rng: np.random.Generator
) -> np.ndarray:
    """Cover greedily: each pick is the candidate with the most uncovered candidates within ``delta``.

    Distances are Euclidean; a candidate within ``delta`` of a center or a pick is covered. To find all neighbours takes
    ``n^2 d + 2 n L d`` floating-point operations for n candidates and L centers, block by block; the greedy part visits
    every pair of neighbours once. Memory beside the features: at most 24 bytes a pair of neighbours, 3 KB a candidate.

    Args:
        features: ``(N, d)``, row i belongs to id i; a memory map or float16 is fine.
        ids: candidates, ``(n,)``, distinct.
        centers: ids that are covered already, ``(L,)``.
        size: how many to pick.
        delta: radius.
        rng: breaks ties; draws what is left when everything is covered.

    Returns:
        ``(size,)`` distinct ids, in the order they were picked.

    Raises:
        PoolExhausted: fewer candidates than ``size``.
        BadScores: features of a candidate or a center are NaN or infinite; the ids are named.
        ActiveLearningError: candidates have more than :data:`MOST_NEIGHBOURS` neighbours on average.
    """
    return _prob_cover(features, ids, centers, size, delta, rng)[0]


def _prob_cover(
    features: np.ndarray, ids: np.ndarray, centers: np.ndarray, size: int, delta: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    n = len(ids)
    if size > n:
        raise PoolExhausted(size, n, "candidates")
    everyone = np.concatenate([ids, centers])
    check_finite(features, everyone)
    origin = rows_of(features, ids[:_BLOCK]).mean(axis=0, dtype=np.float64).astype(np.float32)
    nearest = Nearest(lambda at: (rows_of(features, everyone[at]),), n, np.arange(n, len(everyone)), 0, origin=origin)
    nearest.bring(np.arange(n))
    covered = nearest.bound <= delta**2
    starts, others = _neighbours(features, ids, origin, delta)
    return ids[_cover(starts, others, covered, size, rng)], nearest.flops + float(n) * n * features.shape[1]


def _cover(
    starts: np.ndarray, others: np.ndarray, covered: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions, greedily; ``others[starts[i]:starts[i + 1]]`` are the neighbours of i, itself among them."""
    n = len(covered)
    running = np.concatenate([[0], np.cumsum(~covered[others])])
    gain = running[starts[1:]] - running[starts[:-1]]
    picked: list[int] = []
    while len(picked) < size:
        most = gain.max()
        if most <= 0:  # everything is covered
            left = np.setdiff1d(np.arange(n), picked)
            picked.extend(rng.choice(left, size - len(picked), replace=False).tolist())
            break
        picked.append(int(rng.choice(np.flatnonzero(gain == most))))
        mine = others[starts[picked[-1]] : starts[picked[-1] + 1]]
        newly = mine[~covered[mine]]
        covered[newly] = True
        counts = starts[newly + 1] - starts[newly]
        at = np.arange(counts.sum()) + np.repeat(starts[newly] - (np.cumsum(counts) - counts), counts)
        gain -= np.bincount(others[at], minlength=n)
        gain[picked[-1]] = -n  # what was uncovered about it is covered now: it falls no further
    return np.array(picked, dtype=np.int64)


def _neighbours(
    features: np.ndarray, ids: np.ndarray, origin: np.ndarray, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    n, pairs, total = len(ids), list[np.ndarray](), 0
    for start in range(0, n, _BLOCK):
        rows = rows_of(features, ids[start : start + _BLOCK])
        for other in range(start, n, _BLOCK):
            columns = rows if other == start else rows_of(features, ids[other : other + _BLOCK])
            i, j = _within(rows, columns, origin, delta)
            found = [(i + start) * n + j + other]
            if other != start:
                found.append((j + other) * n + i + start)
            pairs += found
            total += sum(map(len, found))
            if total > max(MOST_NEIGHBOURS * n, _SMALL):
                raise ActiveLearningError(
                    f"ProbCover: within delta={delta:.4g} the {n} candidates have more than {MOST_NEIGHBOURS} "
                    "neighbours each on average. Pass a smaller delta, or fewer candidates (RandomSubset, "
                    "Representatives)."
                )
    keys = np.concatenate(pairs)
    keys.sort()
    return np.searchsorted(keys, np.arange(n + 1) * n), (keys % n).astype(np.int32)


def _within(rows: np.ndarray, columns: np.ndarray, origin: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a row and a column no more than ``delta`` apart."""
    x, y = rows - origin, columns - origin
    u, v = squared_norms(x) / 2 - delta**2 / 4, squared_norms(y) / 2 - delta**2 / 4
    ones = np.ones((max(len(x), len(y)), 1), dtype=np.float32)
    # (delta^2 - distance^2) / 2 by one product
    inside = np.hstack([x, ones[: len(x)], -u[:, None]]) @ np.hstack([y, -v[:, None], ones[: len(y)]]).T
    rounding = (x.shape[1] + 8) * np.finfo(np.float32).eps * (np.abs(u).max() + np.abs(v).max() + delta**2)
    found = np.flatnonzero(inside >= -rounding)
    i, j = np.divmod(found, len(columns))
    keep, unsure = np.ones(len(found), dtype=bool), np.flatnonzero(inside.ravel()[found] <= rounding)
    for part in np.array_split(unsure, 1 + len(unsure) // _BLOCK):  # the difference says what the product cannot
        keep[part] = squared_norms(rows[i[part]] - columns[j[part]]) <= delta**2
    return i[keep], j[keep]


def pure_radius(
    features: np.ndarray, ids: np.ndarray, classes: np.ndarray, purity: float, *, seed: int = 0
) -> tuple[float, float]:
    """Return the largest radius within which a share ``purity`` of the records have only neighbours of their class.

    Exact for a sample of 1,000 of the records against all. A ball is pure until it reaches the nearest record of
    another class, so the radius is a quantile of those distances. ``2 * 1000 n d`` floating-point operations.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        ids: records, ``(n,)``.
        classes: class, or cluster, of each of them, ``(n,)``.
        purity: ``0 < purity < 1``.
        seed: of the sample.

    Returns:
        The radius, 0 where there is but one class, and the operations it took.
    """
    sample = np.random.default_rng(seed).permutation(len(ids))[:_SAMPLE]
    origin = rows_of(features, ids[sample]).mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = rows_of(features, ids[sample]) - origin
    lengths, reach = squared_norms(rows), np.full(len(sample), np.inf, dtype=np.float32)
    for start in range(0, len(ids), _BLOCK):
        block = slice(start, start + _BLOCK)
        columns = rows_of(features, ids[block]) - origin
        squared = lengths[:, None] + squared_norms(columns) - 2 * rows @ columns.T
        squared[classes[sample][:, None] == classes[block]] = np.inf
        reach = np.minimum(reach, squared.min(axis=1))
    flops = 2.0 * len(sample) * len(ids) * features.shape[1]
    if not np.isfinite(reach).any():
        return 0.0, flops
    return float(np.sqrt(np.maximum(np.quantile(reach, 1 - purity, method="lower"), 0))), flops


@dataclass(frozen=True)
class ProbCover(Strategy):
    """Query the records whose balls of radius ``delta`` cover the most candidates that nothing labelled covers yet.

    Nothing is inferred. Where everything is covered, the rest of the query is drawn.

    Source: O. Yehuda et al., "Active learning through a covering lens", NeurIPS 2022.

    Args:
        delta: the radius, in the features' own unit. By default estimated as in the paper: the largest radius for which
            95 % of the balls are pure, that is hold records of one pseudo-class; see :func:`pure_radius`.
        n_clusters: pseudo-classes of the estimate, k-means clusters of the pool: give the number of classes where it is
            known. By default the power of two nearest to the square root of the pool's size.

    Raises:
        ValueError: a setting out of range.

    Example:
        >>> ProbCover(delta=0.5).needs_inference
        False
    """

    delta: float | None = None
    n_clusters: int | None = None

    requires = frozenset({"features"})

    def __post_init__(self) -> None:
        check_clusters(self.n_clusters, "ProbCover", "the power of two nearest to the square root of the pool")
        if self.delta is not None and not self.delta >= 0:
            raise ValueError(f"ProbCover(delta={self.delta}): a radius, allowed: 0 or more, or None for an estimate.")

    def work(self, at: PickSize) -> float:
        """FLOPs of comparing all candidates with each other and with the labels, and of estimating the radius."""
        estimate = 0 if self.delta is not None else min(_SAMPLE, at.candidates)
        return at.features * at.candidates * (at.candidates + 2.0 * (at.labelled + estimate))

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        features, classes = view.features, None
        if self.delta is None:
            classes = view.clusters(self.n_clusters or usual_clusters(view.size)).assignments[ids]
        with Stopwatch.running() as watch:
            delta, estimate = (self.delta or 0.0, 0.0) if classes is None else pure_radius(features, ids, classes, 0.95)
            picked, flops = _prob_cover(features, ids, view.labelled, size, delta, rng)
        if view.spend is not None:
            view.spend(flops + estimate, watch.seconds)
        return picked
