"""Distance of every point to its nearest center, computed only where somebody looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_BLOCK = 1 << 18
"""Numbers of a block of rows, or of its products with centers: 1 MiB of float32, so that it stays in the cache."""
_LINES = 2048
"""Centers compared with a block at once."""

Rows = tuple[np.ndarray, ...]
"""Points: ``(m, d)`` alone, or the factors ``(m, C)`` and ``(m, e)`` of points that are matrices of rank one."""


def blocks(n: int, width: int) -> list[slice]:
    """Slices that cover ``n`` rows of ``width`` numbers, a bounded number of numbers each."""
    step = max(1, _BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, n, step)]


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """``(m,)``, squared Euclidean norms of ``(m, d)``."""
    return np.einsum("ij,ij->i", rows, rows)


def squared_distances(rows: Rows, others: Rows) -> np.ndarray:
    """Squared distances of points to as many others, ``(m,)``.

    Taken from differences: the expansion ``|x|^2 + |y|^2 - 2 x.y`` cancels, and duplicates must come out at exactly 0.
    """
    if len(rows) == 1:
        return squared_norms(rows[0] - others[0])
    (a, h), (b, k) = rows, others
    da, dh = a - b, h - k
    # a h' - b k' = a dh' + da k'
    cross = np.einsum("ij,ij->i", a, da) * np.einsum("ij,ij->i", dh, k)
    return np.maximum(squared_norms(a) * squared_norms(dh) + squared_norms(da) * squared_norms(k) + 2 * cross, 0)


class Nearest:
    """Squared distances of n points to the nearest of a growing list of centers.

    They only ever fall. So what was found for fewer centers is an upper bound, and a point whose bound decides nothing
    need not be read again; when it is, all the centers it has not seen are compared with it by one matrix product.

    Which center is nearest is read off float32 products, the distance to it off the difference. Memory: 8 bytes a
    point, and the centers.

    Args:
        read: positions ``(m,)`` -> rows there, float32.
        n: points are those at positions ``0 .. n - 1``; centers may stand at others.
        centers: positions of the first centers, ``(L,)``.
        most: how many can be added.
        origin: ``(d,)``, subtracted before products are taken, which cancel far from zero.

    Attributes:
        bound: ``(n,)`` float32, squared distance to the nearest of the centers a point has seen; infinite for none.
        seen: ``(n,)`` int32, how many centers, in the order they were added, each point was compared with.
        count: number of centers.
        flops: floating-point operations so far.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], Rows],
        n: int,
        centers: np.ndarray,
        most: int,
        origin: np.ndarray | None = None,
    ) -> None:
        self.read, self._origin = read, origin
        self.count, self.flops = len(centers), 0.0
        self.bound = np.full(n, np.inf, dtype=np.float32)
        self.seen = np.zeros(n, dtype=np.int32)
        rows = self.centred(read(centers))
        room = self.count + most
        self._at = np.empty(room, dtype=np.int64)
        self._lines = tuple(np.empty((room, part.shape[1]), np.float32) for part in rows)
        self._lengths = np.empty(room, dtype=np.float32)
        self._width = sum(part.shape[1] for part in rows)
        self._put(slice(0, self.count), centers, rows)

    def centred(self, rows: Rows) -> Rows:
        """Rows as products are taken of them."""
        return rows if self._origin is None else tuple(part - self._origin for part in rows)

    def _put(self, to: slice, at: np.ndarray, rows: Rows) -> None:
        self._at[to], self._lengths[to] = at, 1
        for kept, part in zip(self._lines, rows, strict=True):
            kept[to] = part
            self._lengths[to] *= squared_norms(part)

    def add(self, at: int) -> None:
        """Make the point at this position a center; it is at -1 from then on, below every distance."""
        where = np.array([at])
        self._put(slice(self.count, self.count + 1), where, self.centred(self.read(where)))
        self.count += 1
        self.bound[at] = -1

    def bring(self, at: np.ndarray, upto: int | None = None) -> None:
        """Compare the points at these positions with the centers they have not seen, or those of the first ``upto``."""
        upto = self.count if upto is None else min(upto, self.count)
        at = at[self.seen[at] < upto]
        at = at[np.argsort(self.seen[at], kind="stable")]  # so that a block's points lack about the same centers
        for block in blocks(len(at), max(self._width, min(_LINES, upto))):
            some = at[block]
            rows = self.read(some)
            nearest = self._nearest(self.centred(rows), int(self.seen[some[0]]), upto)
            found = squared_distances(rows, self.read(self._at[nearest]))
            self.bound[some] = np.minimum(self.bound[some], found)
            self.seen[some] = upto

    def _nearest(self, rows: Rows, first: int, last: int) -> np.ndarray:
        nearest, best = np.zeros(len(rows[0]), np.int64), np.full(len(rows[0]), np.inf, np.float32)
        for start in range(first, last, _LINES):
            lines = slice(start, min(start + _LINES, last))
            # |x - c|^2 without |x|^2, which does not change which center is nearest
            products = rows[0] @ self._lines[0][lines].T
            for mine, theirs in zip(rows[1:], self._lines[1:], strict=True):
                products *= mine @ theirs[lines].T
            products *= -2
            products += self._lengths[lines]
            closest = products.argmin(axis=1)
            value = products[np.arange(len(closest)), closest]
            nearest = np.where(value < best, start + closest, nearest)
            best = np.minimum(value, best)
            self.flops += 2.0 * products.size * self._width
        return nearest


class Group:
    """A few points, compared with every new center as it is added.

    Args:
        nearest: of which they are a part; it learns what was found by :meth:`close`.
        at: their positions, ``(m,)``, compared with every center already.

    Attributes:
        bound: ``(m,)`` float32, squared distance to the nearest center, -1 for a center.
    """

    def __init__(self, nearest: Nearest, at: np.ndarray) -> None:
        self._nearest, self._at = nearest, at
        self._rows = nearest.read(at)
        self._centred = nearest.centred(self._rows)
        self._lengths = np.prod([squared_norms(part) for part in self._centred], axis=0)
        self._width = sum(part.shape[1] for part in self._rows)
        self.bound = nearest.bound[at]

    def add(self, i: int) -> None:
        """Make the i-th of them a center."""
        self._nearest.add(int(self._at[i]))
        self._nearest.flops += 2.0 * len(self._at) * self._width
        # |x - c|^2 by products says who may have come nearer, the difference by how much
        products = self._centred[0] @ self._centred[0][i]
        for part in self._centred[1:]:
            products *= part @ part[i]
        scale = self._lengths + self._lengths[i]
        rounding = (self._width + 4) * np.finfo(np.float32).eps
        self.bound[i] = -1
        nearer = np.flatnonzero(scale - 2 * products - rounding * scale < self.bound)
        if len(nearer):
            center = tuple(np.broadcast_to(part[i], (len(nearer), part.shape[1])) for part in self._rows)
            found = squared_distances(tuple(part[nearer] for part in self._rows), center)
            self.bound[nearer] = np.minimum(self.bound[nearer], found)

    def close(self) -> None:
        """Write back what was found."""
        self._nearest.bound[self._at], self._nearest.seen[self._at] = self.bound, self._nearest.count
