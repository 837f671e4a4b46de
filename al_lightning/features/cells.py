"""Nearest centroids among very many: only those in the cells around a record are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

MOST_FLAT = 2048
"""Cells that are searched one by one; more of them are searched through cells of their own."""
_PRODUCTS = 1 << 24
"""Distances held at once: 64 MiB of float32."""
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
        half_norms: half of every point's squared length, ``(k,)``.
    """

    points: torch.Tensor
    starts: list[int]
    order: np.ndarray
    half_norms: torch.Tensor = field(repr=False)

    @classmethod
    def by(cls, cells: np.ndarray, points: np.ndarray, n_cells: int) -> Grouped:
        """Sort points by their cells."""
        order = np.argsort(cells, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=n_cells))]).tolist()
        inside = torch.from_numpy(points[order])
        return cls(inside, starts, order, inside.square().sum(dim=1) / 2)

    def nearest(self, rows: np.ndarray, probes: np.ndarray, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """The nearest point in each of the cells that a row probes.

        Args:
            rows: ``(n, d)`` float32.
            probes: cells to look into, ``(n, m)`` int.
            tally: of the distances computed.

        Returns:
            Places in :attr:`points`, ``(n, m)`` int64, and half their squared distance less half the row's squared
            length, ``(n, m)`` float32; infinite where a cell is empty.
        """
        data, m = torch.from_numpy(rows), probes.shape[1]
        place = torch.zeros(probes.size, dtype=torch.int64)
        value = torch.full((probes.size,), torch.inf)
        asked = torch.from_numpy(np.argsort(probes, axis=None, kind="stable"))
        ends = np.cumsum(np.bincount(probes.ravel(), minlength=len(self.starts) - 1)).tolist()
        for begin, end, low, high in zip([0, *ends], ends, self.starts, self.starts[1:], strict=False):
            if begin == end or low == high:
                continue
            tally.count(end - begin, high - low, rows.shape[1])
            points, norms = self.points[low:high].T, self.half_norms[low:high]
            for at in asked[begin:end].split(max(1, _PRODUCTS // (high - low))):
                some = data.index_select(0, at // m)
                value[at], where = torch.addmm(norms, some, points, alpha=-1).min(dim=1)
                place[at] = where + low
        return place.view(-1, m).numpy(), value.view(-1, m).numpy()

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
            found[lost] = flat_index(self.points.numpy()).search(rows[lost], 1)[1][:, 0]
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
        found = np.empty((len(rows), m), dtype=np.int64)
        order = np.argsort(home, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(home[order])) + 1):
            near = self._around[home[group[0]]]
            self._tally.count(len(group), len(near), rows.shape[1])
            found[group] = near[flat_index(self._centres[near]).search(rows[group], m)[1]]
        return found


def flat_index(points: np.ndarray) -> Any:
    """FAISS's exact search among ``(n, d)`` float32 points."""
    import faiss  # 0.1 s that runs without clusters need not pay

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(points))
    return index
