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


def rows_of(features: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """``(m, d)`` float32, features of some records."""
    return np.asarray(features[ids], dtype=np.float32)


def check_finite(features: np.ndarray, ids: np.ndarray) -> None:
    """Raise BadScores, naming the ids, where features of these records are NaN or infinite; block by block."""
    bad = []
    for block in row_blocks(len(ids), features.shape[1]):
        rows = rows_of(features, ids[block])
        with np.errstate(all="ignore"):  # one product tells most blocks apart; a sum may overflow where no number does
            doubtful = np.flatnonzero(~np.isfinite(rows @ np.ones(rows.shape[1], np.float32)))
        bad.append(ids[block][doubtful[~np.isfinite(features[ids[block][doubtful]]).all(axis=1)]])
    if any(len(block) for block in bad):
        raise BadScores(np.sort(np.concatenate(bad)).tolist(), "features")
