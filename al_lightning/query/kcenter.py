"""k-center greedy: records that leave no part of the feature space far from a labelled one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import PoolExhausted
from al_lightning.features.blocks import check_finite, rows_of
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.query.nearest import Group, Nearest
from al_lightning.query.work import PickSize

_HOT = 512
"""Candidates, the farthest, that every new center is compared with at once."""
_FIRST = 64
"""Centers that every candidate is compared with, before only the farthest of them are compared with the rest."""


def k_center_greedy(
    features: np.ndarray, ids: np.ndarray, centers: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Pick the candidate farthest from every center, make it a center, and again, ``size`` times.

    A 2-approximation of the k-center problem (Gonzalez 1985; Sener & Savarese 2018, algorithm 1). Distances are
    Euclidean, in float32.

    Distances to the nearest center only fall. So a candidate that once was near is compared with no further center
    before it is among the farthest again, and then with all it has missed by one matrix product. The picks are those of
    comparing everything with every center, which takes ``2 (L + size) n d`` floating-point operations for n candidates
    and L centers and reads the features ``size`` times; that many operations are the worst case here, a fifth to a half
    are usual, and the features are read a few times. Memory beside the features: about ``50 n + 4 (L + size) d`` bytes;
    they are read block by block, so a memory map or float16 is fine.

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
    return _k_center_greedy(features, ids, centers, size, rng)[0]


def _k_center_greedy(
    features: np.ndarray, ids: np.ndarray, centers: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    n = len(ids)
    if size > n:
        raise PoolExhausted(size, n, "candidates")
    everyone = np.concatenate([ids, centers])
    check_finite(features, everyone)
    origin = rows_of(features, everyone[-_HOT:]).mean(axis=0, dtype=np.float64).astype(np.float32)
    nearest = Nearest(
        lambda at: (rows_of(features, everyone[at]),), n, np.arange(n, len(everyone)), size, origin=origin
    )
    turn = rng.permutation(n)  # who comes first among ties
    picked: list[int] = []
    if size and not len(centers):
        picked.append(int(turn.argmin()))
        nearest.add(picked[0])
    nearest.bring(np.arange(n), _FIRST)
    while len(picked) < size:
        if nearest.bound.max() <= 0:  # duplicates of centers are left, in a pool of few distinct points
            left = np.flatnonzero(nearest.bound == 0)
            picked.extend(left[np.argsort(turn[left])][: size - len(picked)].tolist())
        else:
            picked += _pick_among_farthest(nearest, turn, size - len(picked))
    return ids[np.array(picked, dtype=np.int64)], nearest.flops


def _pick_among_farthest(nearest: Nearest, turn: np.ndarray, most: int) -> list[int]:
    """Pick from the farthest candidates for as long as none of the others can be farther; at least one, if any is."""
    hot, bar = _farthest(nearest, turn)
    group, order = Group(nearest, hot), turn[hot]
    picked: list[int] = []
    while len(picked) < most:
        top = int(group.bound.argmax())  # the first in turn among ties: hot is in that order
        if group.bound[top] <= 0 or (float(group.bound[top]), -int(order[top])) < bar:
            break
        picked.append(int(hot[top]))
        group.add(top)
    group.close()
    return picked


def _farthest(nearest: Nearest, turn: np.ndarray) -> tuple[np.ndarray, tuple[float, int]]:
    """The farthest candidates, compared with every center, in turn; and the key the best of the others has at most."""
    many = _HOT
    while True:
        hot, bar = _highest(nearest.bound, turn, _HOT)
        if (nearest.seen[hot] == nearest.count).all():
            return hot, bar
        nearest.bring(_highest(nearest.bound, turn, many)[0])
        many *= 2  # bounds that fall below the others' bring others up: a few rounds reach all that matter


def _highest(bound: np.ndarray, turn: np.ndarray, size: int) -> tuple[np.ndarray, tuple[float, int]]:
    """Positions of the ``size`` highest bounds, first in turn among ties, ordered by turn; and the key of the next."""
    if size >= len(bound):
        return np.argsort(turn), (-np.inf, 0)
    lowest = np.partition(bound, -size)[-size]
    above, tied = np.flatnonzero(bound > lowest), np.flatnonzero(bound == lowest)
    tied = tied[np.argsort(turn[tied])]
    taken = size - len(above)
    hot = np.concatenate([above, tied[:taken]])
    next_turn = int(turn[tied[taken]]) if taken < len(tied) else len(turn)
    return hot[np.argsort(turn[hot])], (float(lowest), -next_turn)


@dataclass(frozen=True)
class KCenterGreedy(Strategy):
    """Query the core set: each pick is the candidate farthest from everything labelled or picked so far.

    Reads the pool's features and nothing of the model, so nothing is inferred.

    Source: O. Sener and S. Savarese, "Active learning for convolutional neural networks: a core-set approach",
    ICLR 2018.

    Example:
        >>> KCenterGreedy().needs_inference
        False
    """

    requires = frozenset({"features"})

    def work(self, at: PickSize) -> float:
        """FLOPs of comparing every candidate with every label and pick, at most."""
        return 2.0 * at.candidates * (at.labelled + at.size) * at.features

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
            picked, flops = _k_center_greedy(features, ids, view.labelled, size, rng)
        if view.spend is not None:
            view.spend(flops, watch.seconds)
        return picked
