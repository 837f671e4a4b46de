"""Nearest centroids among very many: only those in the cells around a record are looked at."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

MOST_FLAT = 2048
"""Cells that are searched one by one; more of them are searched through cells of their own."""
_ROWS = 1 << 16
"""Rows of a cell gathered at once."""
_HOMES, _NEIGHBOURS = 8, 128
"""Coarse cells looked into for a record's own cell, and the cells around that one which are compared."""


@dataclass
class Tally:
    """Floating-point operations, as they are done."""

    flops: float = 0.0

    def count(self, rows: int, others: int, width: int) -> None:
        """Distances of ``rows`` vectors to ``others``: 2 operations a number."""
        self.flops += 2.0 * rows * others * width


@dataclass(frozen=True)
class Grouped:
    """Points sorted by the cell they lie in.

    Args:
        points: ``(k, d)`` float32, those of a cell side by side.
        starts: ``(cells + 1,)``: cell c holds ``points[starts[c] : starts[c + 1]]``.
        order: which of the points that were given stands where, ``(k,)``.
    """

    points: np.ndarray
    starts: np.ndarray
    order: np.ndarray

    @classmethod
    def by(cls, cells: np.ndarray, points: np.ndarray, n_cells: int) -> Grouped:
        """Sort points by their cells."""
        order = np.argsort(cells, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=n_cells))])
        return cls(points[order], starts, order)

    def nearest(self, rows: np.ndarray, probes: np.ndarray, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """The nearest point in each of the cells that a row probes.

        Args:
            rows: ``(n, d)`` float32.
            probes: cells to look into, ``(n, m)`` int.
            tally: of the distances computed.

        Returns:
            Places in :attr:`points`, ``(n, m)`` int32, and their squared distances, ``(n, m)`` float32, infinite where
            a cell is empty.
        """
        import faiss  # 0.1 s that runs without clusters need not pay

        place = np.zeros(probes.size, dtype=np.int32)
        value = np.full(probes.size, np.inf, dtype=np.float32)
        asked = np.argsort(probes, axis=None, kind="stable")
        counts = np.bincount(probes.ravel(), minlength=len(self.starts) - 1)
        tally.count(1, int(counts @ np.diff(self.starts)), rows.shape[1])
        ends = np.cumsum(counts)

        def look(cell: int) -> None:
            points = self.points[self.starts[cell] : self.starts[cell + 1]]
            for begin in range(ends[cell] - counts[cell], ends[cell] if len(points) else 0, _ROWS):
                at = asked[begin : min(begin + _ROWS, ends[cell])]
                distance, which = faiss.knn(rows.take(at // probes.shape[1], axis=0), points, 1)
                value[at], place[at] = distance[:, 0], which[:, 0] + self.starts[cell]

        _each(look, len(counts))
        return place.reshape(probes.shape), value.reshape(probes.shape)

    def nearest_of_all(self, rows: np.ndarray, probes: np.ndarray, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Place of the nearest point in all the cells a row probes, ``(n,)``; of all points, if those are empty.

        Returned with the distances by cell, as in :meth:`nearest`.
        """
        place, value = self.nearest(rows, probes, tally)
        best = value.argmin(axis=1)[:, None]
        found = np.take_along_axis(place, best, axis=1)[:, 0]
        lost = np.flatnonzero(np.isinf(np.take_along_axis(value, best, axis=1)[:, 0]))
        if len(lost):
            tally.count(len(lost), len(self.points), rows.shape[1])
            found[lost] = flat_index(self.points).search(rows[lost], 1)[1][:, 0]
        return found, value


class Cells:
    """Cells of a space, and which of them lie around a record.

    Args:
        centres: ``(c, d)`` float32.
        tally: of the distances computed.
        coarse: cells of the centres, if there are too many to search one by one. What is found is then approximate.
    """

    def __init__(self, centres: np.ndarray, tally: Tally, coarse: Cells | None = None) -> None:
        self.count, self._tally, self._coarse, self._centres = len(centres), tally, coarse, centres
        self._index = flat_index(centres)
        if coarse is not None:
            self._grouped = coarse.group(centres)
            tally.count(self.count, self.count, centres.shape[1])
            self._around = self._index.search(centres, _NEIGHBOURS)[1]

    def group(self, points: np.ndarray) -> Grouped:
        """Points sorted by their nearest cell."""
        return Grouped.by(self.around(points, 1)[:, 0], points, self.count)

    def around(self, rows: np.ndarray, m: int) -> np.ndarray:
        """The ``m`` nearest cells of every row, nearest first, ``(n, m)`` int64."""
        if self._coarse is None:
            self._tally.count(len(rows), self.count, rows.shape[1])
            return np.asarray(self._index.search(rows, m)[1])
        probes = self._coarse.around(rows, _HOMES)
        home = self._grouped.order[self._grouped.nearest_of_all(rows, probes, self._tally)[0]]
        return home[:, None] if m == 1 else self._around_home(rows, home, m)

    def _around_home(self, rows: np.ndarray, home: np.ndarray, m: int) -> np.ndarray:
        import faiss

        self._tally.count(len(rows), _NEIGHBOURS, rows.shape[1])
        found = np.empty((len(rows), m), dtype=np.int64)
        order = np.argsort(home, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=self.count))])

        def look(cell: int) -> None:
            group = order[starts[cell] : starts[cell + 1]]
            if len(group):
                near = self._around[cell]
                found[group] = near[faiss.knn(rows[group], self._centres[near], m)[1]]

        _each(look, self.count)
        return found


def _each(look: Callable[[int], None], count: int) -> None:
    """Call it with every number below ``count``, in as many threads as FAISS would use within each call.

    Calls are so short that threads within them would mostly wait for each other.
    """
    import faiss

    workers = faiss.omp_get_max_threads()
    bounds = np.linspace(0, count, min(count, 8 * workers) + 1).astype(int).tolist()

    def some(begin: int, end: int) -> None:
        for i in range(begin, end):
            look(i)

    # FAISS keeps the number for each thread: the caller's own stays as it is.
    with ThreadPoolExecutor(workers, initializer=partial(faiss.omp_set_num_threads, 1)) as pool:
        list(pool.map(some, bounds, bounds[1:]))


def flat_index(points: np.ndarray) -> Any:
    """FAISS's exact search among ``(n, d)`` float32 points."""
    import faiss  # 0.1 s that runs without clusters need not pay

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(points))
    return index
