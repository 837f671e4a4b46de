"""Features are read block by block, so that a memory map larger than memory will do."""

from __future__ import annotations

import numpy as np

from al_lightning.errors import BadScores

_BLOCK = 1 << 22
"""Numbers read at once: 16 MiB of float32."""


def row_blocks(rows: int, width: int, numbers: int | None = None) -> list[slice]:
    """Slices that cover ``rows`` rows of ``width`` numbers, at most ``numbers`` (by default 4 million) numbers each."""
    step = max(1, (numbers or _BLOCK) // width)
    return [slice(start, start + step) for start in range(0, rows, step)]


def rows_of(features: np.ndarray, ids: np.ndarray | range) -> np.ndarray:
    """``(m, d)`` float32, features of some records; those of a range are not gathered one by one."""
    at = slice(ids.start, ids.stop) if isinstance(ids, range) else ids
    return np.asarray(features[at], dtype=np.float32)


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


def check_finite(features: np.ndarray, ids: np.ndarray | range) -> None:
    """Raise BadScores, naming the ids, where features of these records are NaN or infinite; block by block."""
    bad = []
    for block in row_blocks(len(ids), features.shape[1]):
        rows = rows_of(features, ids[block])
        with np.errstate(all="ignore"):  # one product tells most blocks apart; a sum may overflow where no number does
            doubtful = np.flatnonzero(~np.isfinite(rows @ np.ones(rows.shape[1], np.float32)))
        bad.append(np.asarray(ids[block])[doubtful[~np.isfinite(rows[doubtful]).all(axis=1)]])
    if any(len(block) for block in bad):
        raise BadScores(np.sort(np.concatenate(bad)).tolist(), "features")
