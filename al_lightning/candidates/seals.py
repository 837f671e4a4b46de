"""SEALS: only what lies near a labelled record is inferred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State
from al_lightning.cost.ledger import Stopwatch
from al_lightning.features.blocks import check_finite, row_blocks, rows_of
from al_lightning.pool.view import PoolView

_QUERIES = 4096
"""Labelled records searched for at once."""


def neighbours_of(features: np.ndarray, ids: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return the ``k`` records nearest to each of ``ids``, itself not counted, exact; the pool is read block by block.

    Args:
        features: ``(N, d)``, row i belongs to id i; a memory map or float16 is fine.
        ids: ``(n,)``.
        k: how many.
        rng: breaks ties.

    Returns:
        ``(n, min(k, N - 1))`` ids, and the floating-point operations it took, ``2 n N d``.

    Raises:
        BadScores: features are NaN or infinite; the ids are named.
    """
    import faiss

    n, width = features.shape
    k = min(k, n - 1)
    found = np.empty((len(ids), k), dtype=np.int64)
    blocks = row_blocks(n, width)
    for start in range(0, len(ids), _QUERIES):
        some = ids[start : start + _QUERIES]
        check_finite(features, some)
        queries = rows_of(features, some)
        origin = queries.mean(axis=0, dtype=np.float64).astype(np.float32)  # FAISS expands |x - y|^2, which cancels
        queries = np.ascontiguousarray(queries - origin)
        best = np.full((len(some), 0), np.inf, dtype=np.float32)
        who = np.empty((len(some), 0), dtype=np.int64)
        for b in rng.permutation(len(blocks)):  # the first of equals stays: in random order no position is preferred
            rows = rng.permutation(np.arange(blocks[b].start, min(blocks[b].stop, n)))
            check_finite(features, rows)
            squared, at = faiss.knn(
                queries, np.ascontiguousarray(rows_of(features, rows) - origin), min(k + 1, len(rows))
            )
            squared[rows[at] == some[:, None]] = np.inf
            best, who = np.hstack([best, squared]), np.hstack([who, rows[at]])
            order = np.argsort(best, axis=1, kind="stable")[:, :k]
            best, who = np.take_along_axis(best, order, axis=1), np.take_along_axis(who, order, axis=1)
        found[start : start + _QUERIES] = who
    return found, 2.0 * len(ids) * n * width


@dataclass(frozen=True)
class SEALS(CandidateSelector):
    """Infer the nearest neighbours of the labelled records, and nothing else.

    For classes so rare that a random share holds hardly any of them, and whose members lie together in the features:
    what is labelled leads to more. Each round, the neighbours of the newly labelled records are added; every labelled
    record is searched for once. Where there are fewer candidates than the query needs, others are drawn.

    Source: C. Coleman et al., "Similarity search for efficient active learning and search of rare concepts", AAAI 2022.

    Args:
        neighbours: of each labelled record, at least 1.

    Raises:
        ValueError: fewer than one neighbour.

    Example:
        >>> SEALS(20).uses_features
        True
    """

    neighbours: int = 100

    uses_features = True

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"SEALS(neighbours={self.neighbours}): of each labelled record, allowed: 1 or more.")

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        features, ids = view.features, view.unlabelled
        searched = state.get("searched", 0)
        if searched and (searched > len(view.labelled) or int(view.labelled[searched - 1]) != state["last"]):
            state, searched = {}, 0  # labels were withdrawn: what was near them is no candidate
        near = np.array(state.get("near", []), dtype=np.int64)
        new = view.labelled[searched:]
        if len(new):
            with Stopwatch.running() as watch:
                found, flops = neighbours_of(features, new, self.neighbours, rng)
            if view.spend is not None:
                view.spend(flops, watch.seconds)
            near = np.union1d(near, found)
        near = np.intersect1d(near, ids)
        missing = min(size, len(ids)) - len(near)
        drawn = rng.choice(np.setdiff1d(ids, near), missing, replace=False) if missing > 0 else ids[:0]
        last = int(view.labelled[-1]) if len(view.labelled) else -1
        return np.union1d(near, drawn), {"searched": len(view.labelled), "last": last, "near": near.tolist()}
