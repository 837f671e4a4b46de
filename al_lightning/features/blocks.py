"""Features are read block by block, so that a memory map larger than memory will do."""

from __future__ import annotations

import numpy as np

from al_lightning.errors import BadScores, PoolError

_BLOCK = 1 << 22
"""Numbers read at once: 16 MiB of float32."""


MOST, LEAST = 1e16, 1e-15
"""Sizes of numbers whose squares, summed over a row and expanded as FAISS does, neither overflow float32 nor vanish."""
PROJECTED = 50 * MOST
"""The same of a random projection, whose few numbers are larger than those it is made from."""


def row_blocks(rows: int, width: int, numbers: int | None = None) -> list[slice]:
    """Slices that cover ``rows`` rows of ``width`` numbers, at most ``numbers`` (by default 4 million) numbers each."""
    step = max(1, (numbers or _BLOCK) // width)
    return [slice(start, start + step) for start in range(0, rows, step)]


def rows_of(features: np.ndarray, ids: np.ndarray | range) -> np.ndarray:
    """``(m, d)`` float32, features of some records; those of a range are not gathered one by one."""
    at = slice(ids.start, ids.stop) if isinstance(ids, range) else ids
    return np.asarray(features[at], dtype=np.float32)


class OnDemand:
    """Base of features that are read when they are indexed, by a slice or by ids in any order, and not before."""


class Part:
    """Features of some records, which are read when they are asked for and never copied as a whole.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        ids: ``(n,)``, whose rows are the rows of this.
    """

    def __init__(self, features: np.ndarray, ids: np.ndarray) -> None:
        self._features, self._ids = features, ids
        self.shape, self.ndim = (len(ids), features.shape[1]), 2

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, at: slice | np.ndarray) -> np.ndarray:
        return self._features[self._ids[at]]


def check_finite(features: np.ndarray, ids: np.ndarray | range, *, limit: float = MOST) -> float:
    """Check that features of these records can be compared in float32; block by block.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        ids: records, ``(n,)``.
        limit: size that no number may exceed.

    Returns:
        The largest of their numbers in size, 0 without any.

    Raises:
        BadScores: NaN or infinite numbers; the ids are named.
        PoolError: numbers so large that squares of distances overflow; the ids are named.
    """
    bad, large, most = list[int](), list[int](), 0.0
    for block in row_blocks(len(ids), features.shape[1]):
        some = ids[block]
        rows = features[slice(some.start, some.stop) if isinstance(some, range) else some]
        rows = rows.astype(np.float32) if rows.dtype == np.float16 else rows  # whose extremes NumPy finds slowly
        found = max(float(rows.max()), -float(rows.min()))
        if found <= limit:
            most = max(most, found)
            continue
        finite, at = np.isfinite(rows).all(axis=1), np.asarray(some)
        bad += at[~finite].tolist()
        with np.errstate(invalid="ignore"):
            large += at[finite & (np.abs(rows.astype(np.float64)) > limit).any(axis=1)].tolist()
    if bad:
        raise BadScores(sorted(bad), "features")
    if large:
        raise PoolError(
            f"features of ids {sorted(large)[:10]} ({len(large)} in all) are above {limit:g} in size, and squares of "
            f"their distances do not fit into float32; allowed: up to {limit:g}. Divide them by a constant, for "
            "example features / np.abs(features).max(), or scale each column."
        )
    return most
