"""K-means with very many centroids: two levels, so that no record is compared with all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from al_lightning.features.blocks import row_blocks
from al_lightning.features.cells import MOST_FLAT, Cells, Tally

PER_CELL = 64
"""Centroids of a cell, on average."""
FIRST, WIDE, NARROW = 8, 16, 6
"""Cells probed per record: while centroids are rough; to rank the cells, and at the end; in between."""
_BLOCK = 1 << 26
"""Numbers read at once: 256 MiB of float32. Larger blocks make larger matrix products within a cell."""


@dataclass(frozen=True)
class Rows:
    """Features as float32 around an origin, read block by block.

    Args:
        features: ``(N, d)``, of any floating type, in memory or mapped.
        origin: subtracted, ``(d,)`` float32.
        ids: the rows meant, ascending; None for all.
    """

    features: np.ndarray
    origin: np.ndarray
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features) if self.ids is None else len(self.ids)

    @property
    def width(self) -> int:
        """Numbers per row."""
        return int(self.features.shape[1])

    @property
    def blocks(self) -> list[slice]:
        """Slices that cover the rows."""
        return row_blocks(len(self), self.width, _BLOCK)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        chosen = self.features[rows if self.ids is None else self.ids[rows]]
        return np.subtract(chosen, self.origin, dtype=np.float32, order="C", casting="same_kind")


@dataclass(frozen=True)
class Partition:
    """Hold what :func:`fit` found.

    Args:
        cells: the coarse level.
        centroids: ``(k, d)`` float32, around the rows' origin.
        probes: cells around every row it was fitted on, ``(n, WIDE)``.
    """

    cells: Cells
    centroids: np.ndarray
    probes: np.ndarray


def flat(rows: np.ndarray, k: int, seed: int, iterations: int) -> np.ndarray:
    """FAISS's k-means on ``(n, d)`` float32 rows: ``(k, d)`` centroids. Costs ``2 n k d iterations`` operations."""
    import faiss  # 0.1 s that runs without clusters need not pay

    found = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,  # fewer than its default makes FAISS print warnings
        max_points_per_centroid=len(rows),
    )
    found.train(rows)
    return np.asarray(found.centroids, dtype=np.float32)


def fit(rows: Rows, k: int, seed: int, iterations: int, tally: Tally) -> Partition:
    """Lloyd's k-means from k records at random, where a record looks only at the centroids in the cells around it.

    The cells are ``k / 64`` k-means centroids of a sample. They stay; each centroid belongs to the one it is nearest
    to, and each record probes the nearest of them: 8 in the first two passes, 16 in the third. There its cells are
    ranked by their nearest centroid, and 6 are probed from then on.

    Args:
        rows: ``n`` of them.
        k: number of centroids, at most ``n``.
        seed: of the records it starts from and of the cells.
        iterations: how often the centroids are moved.
        tally: of the floating-point operations.
    """
    rng = np.random.default_rng(seed)
    cells = _cells(rows, -(-k // PER_CELL), rng, seed, iterations, tally)
    probes = np.empty((len(rows), WIDE), dtype=np.uint16 if cells.count < 1 << 16 else np.int32)
    for block in rows.blocks:
        probes[block] = cells.around(rows[block], WIDE)
    centroids = rows[np.sort(rng.permutation(len(rows))[:k])]
    for i in range(iterations):
        width = FIRST if i < 2 else WIDE if i == 2 else NARROW
        centroids = _moved(rows, cells, centroids, probes[:, :width], rng, tally, rank=i == 2)
    return Partition(cells, centroids, probes)


def assign(rows: Rows, partition: Partition, tally: Tally, *, fitted: bool) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of every row.

    Args:
        rows: what is assigned.
        partition: by :func:`fit`.
        tally: of the floating-point operations.
        fitted: whether these are the rows it was fitted on, whose cells are known.

    Returns:
        ``(n,)`` int32, and the centroids in the order meant, ``(k, d)`` float32.
    """
    grouped = partition.cells.group(partition.centroids)
    assigned = np.empty(len(rows), dtype=np.int32)
    for block in rows.blocks:
        some = rows[block]
        probes = partition.probes[block] if fitted else partition.cells.around(some, WIDE)
        assigned[block] = grouped.nearest_of_all(some, probes, tally)[0]
    return assigned, grouped.points


def _cells(rows: Rows, count: int, rng: np.random.Generator, seed: int, iterations: int, tally: Tally) -> Cells:
    sample = rows[np.sort(rng.permutation(len(rows))[: count * PER_CELL])]
    if count <= MOST_FLAT:
        tally.count(len(sample) * iterations, count, rows.width)
        return Cells(flat(sample, count, seed, iterations), tally)
    within = fit(Rows(sample, np.zeros(rows.width, np.float32)), count, seed, iterations, tally)
    return Cells(within.centroids, tally, coarse=within.cells)


def _moved(
    rows: Rows,
    cells: Cells,
    centroids: np.ndarray,
    probes: np.ndarray,
    rng: np.random.Generator,
    tally: Tally,
    *,
    rank: bool,
) -> np.ndarray:
    """The mean of every centroid's records; ``rank`` sorts the probes, in place, by their nearest centroid."""
    grouped = cells.group(centroids)
    sums, counts = torch.zeros(centroids.shape), np.zeros(len(centroids), dtype=np.int64)
    for block in rows.blocks:
        some = rows[block]
        assigned, distances = grouped.nearest_of_all(some, probes[block], tally)
        if rank:
            probes[block] = np.take_along_axis(probes[block], np.argsort(distances, axis=1, kind="stable"), axis=1)
        sums.index_add_(0, torch.from_numpy(assigned), torch.from_numpy(some))
        counts += np.bincount(assigned, minlength=len(counts))
    moved = sums.numpy()
    moved /= np.maximum(counts, 1).astype(np.float32)[:, None]
    empty = np.flatnonzero(counts == 0)
    if len(empty):  # as FAISS does: part of a cluster that has many
        donors = rng.choice(len(counts), size=len(empty), p=np.maximum(counts - 1, 0) / np.maximum(counts - 1, 0).sum())
        moved[empty] = moved[donors] * (1 + 2**-10 * rng.choice([-1, 1], size=(len(empty), 1)).astype(np.float32))
    return moved
