"""What users bring as features, as one kind of thing: ``(N, d)`` numbers whose distances float32 can hold."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_lightning.errors import PoolError
from al_lightning.features.blocks import LEAST, OnDemand, check_finite

ALLOWED = (
    "(N, d) numbers, one row per record: a NumPy array or memory map, a tensor, a DataFrame of numbers, a list of "
    "rows, a SciPy sparse matrix; or RawInputs(), Layer('name')"
)


class LazyRows(OnDemand):
    """Rows of something that is read when it is indexed and has ways of its own: HDF5, Zarr, xarray, SciPy's sparse.

    Args:
        rows: has ``shape``, ``dtype`` and rows by slices and by ascending positions.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.shape, self.dtype = tuple(rows.shape), np.dtype(rows.dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, at: slice | np.ndarray) -> np.ndarray:
        """Rows of a slice, or at positions in any order, ``(n, d)``."""
        if isinstance(at, slice):
            return self._dense(self._rows[at])
        found, back = np.unique(at, return_inverse=True)
        return self._dense(self._rows[found])[back]

    def _dense(self, rows: Any) -> np.ndarray:
        return np.asarray(rows.toarray() if hasattr(rows, "tocsr") else rows)


def taken_in(value: Any, *, size: int) -> Any:
    """:func:`as_features`, and :func:`check_numbers` of what is in memory; the rest is looked at before it is used."""
    found = as_features(value, size=size)
    if in_memory(found):
        check_numbers(found)
    return found


def as_features(value: Any, *, size: int | None = None, name: str = "features") -> Any:
    """Take what holds one row of numbers per record, unchanged but for its container.

    Arrays, memory maps and whatever is read row by row stay where they are. :func:`check_numbers` looks at the numbers.

    Args:
        value: the user's.
        size: how many records there are; None: not known yet.
        name: of the argument, for errors.

    Returns:
        ``(N, d)`` of booleans, integers or floating-point numbers, indexed by slices and by arrays of ids.

    Raises:
        PoolError: it is something else; it says what is allowed.
    """
    found = as_array(value, name)
    if found.ndim != 2 or (size is not None and found.shape[0] != size):
        rows = "N" if size is None else size
        way = {1: ": one number per record is features.reshape(-1, 1)", 2: ""}
        raise PoolError(
            f"{name} have shape {tuple(found.shape)}; expected ({rows}, d), one row per record"
            f"{way.get(found.ndim, ': flatten them, features.reshape(len(features), -1)')}."
        )
    if not found.shape[1]:
        raise PoolError(f"{name} have shape {tuple(found.shape)}: no number per record. Allowed: {ALLOWED}.")
    if found.dtype.kind not in "fiub":
        raise PoolError(f"{name} are of type {found.dtype}, got {type(value).__name__}. Allowed: {ALLOWED}.")
    return found


def in_memory(features: Any) -> bool:
    """Return whether all of it is in memory, so that looking through it is cheap."""
    while isinstance(features, np.ndarray) and not isinstance(features, np.memmap):
        features = features.base
    return not isinstance(features, np.memmap | OnDemand)


def check_numbers(features: Any) -> None:
    """Raise unless all numbers are finite and their squares neither overflow nor vanish; read block by block.

    Raises:
        PoolError: they do; the ids are named.
        BadScores: NaN or infinite numbers; the ids are named.
    """
    most = check_finite(features, range(len(features)))
    if 0 < most < LEAST:
        raise PoolError(
            f"features are {most:.3g} in size at most, and squares of their distances vanish in float32; allowed: "
            f"{LEAST:g} or more. Multiply them by a constant: features / np.abs(features).max()."
        )


def as_array(value: Any, name: str) -> Any:
    """Take an array of any shape and type out of its container; raises PoolError where there is none."""
    if isinstance(value, type):
        raise PoolError(f"{name}={value.__name__} is a class: pass an instance, {value.__name__}(...).")
    if isinstance(value, Tensor):
        return _of_tensor(value, name)
    if isinstance(value, np.memmap | OnDemand):
        return value
    if isinstance(value, np.ndarray):
        return _of_array(value, name)
    if hasattr(value, "tocsr"):
        return LazyRows(value.tocsr())
    if hasattr(value, "to_numpy") and not hasattr(value, "dims"):  # DataFrames and Series, not xarray's
        return _of_array(np.asarray(value.to_numpy()), name)
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__"):
        return LazyRows(value)
    if isinstance(value, list | tuple):
        return _of_rows(value, name)
    if hasattr(value, "__array_interface__"):  # images
        return np.asarray(value)
    raise PoolError(f"{name} are a {type(value).__name__}. Allowed: {ALLOWED}.")


def _of_tensor(value: Tensor, name: str) -> np.ndarray:
    """The same memory where NumPy can have it and no training changes it."""
    if value.layout != torch.strided or value.is_nested or value.is_meta or value.is_quantized or value.is_complex():
        raise PoolError(
            f"{name} are a tensor of {value.dtype}, layout {value.layout}, on {value.device}, which is no plain array "
            f"of numbers; a sparse one becomes one by .to_dense(). Allowed: {ALLOWED}."
        )
    plain = value.detach().clone() if value.requires_grad else value
    if plain.is_floating_point() and plain.dtype not in (torch.float16, torch.float32, torch.float64):
        plain = plain.float()  # bfloat16 and narrower: exact
    return plain.cpu().resolve_neg().numpy()


def _of_array(value: np.ndarray, name: str) -> np.ndarray:
    if np.ma.is_masked(value):
        ids = np.flatnonzero(np.ma.getmaskarray(value).reshape(len(value), -1).any(axis=1))[:10].tolist()
        raise PoolError(
            f"{name} are masked for ids {ids}: fill them, for example features.filled(0), or drop the mask."
        )
    plain = np.asarray(value)
    if plain.dtype != object:
        return plain
    if plain.ndim == 1 and all(isinstance(row, Tensor | np.ndarray | Sequence) for row in plain):
        return _of_rows(plain.tolist(), name)
    wrong = next((x for x in plain.flat if not isinstance(x, numbers.Real)), plain)
    if wrong is not plain:
        raise PoolError(f"{name} hold {wrong!r} ({type(wrong).__name__}), which is no number. Allowed: {ALLOWED}.")
    return plain.astype(np.float64)


def _of_rows(rows: Sequence[Any], name: str) -> np.ndarray:
    """Rows one by one, each an array, a tensor or a list; or numbers, which make one dimension."""
    if any(isinstance(row, Tensor | np.ndarray) for row in rows):
        rows = [_of_tensor(row, name) if isinstance(row, Tensor) else np.asarray(row) for row in rows]
    try:
        found = np.asarray(rows)
    except ValueError as error:
        raise PoolError(f"{name} are rows of different shapes ({error}). Allowed: {ALLOWED}.") from None
    return _of_array(found, name)
