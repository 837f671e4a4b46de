"""Recognise a dataset that was reordered or shrunk since labels were bought for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from al_lightning.errors import PoolChanged
from al_lightning.pool.items import ItemFormat
from al_lightning.shards.files import Shards

PROBES = 64


def digest(value: Any) -> str:
    """A content hash of tensors, arrays, images, numbers, strings and nests of them."""
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()[:16]


def _feed(state: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().numpy() if value.dtype.itemsize != 2 else value.float().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        state.update(str((value.dtype.str, value.shape)).encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            state.update(str(key).encode())
            _feed(state, value[key])
    elif isinstance(value, tuple | list):
        state.update(f"[{len(value)}".encode())
        for part in value:
            _feed(state, part)
    elif isinstance(value, str | bytes | int | float | bool | None):
        state.update(repr(value).encode())
    elif hasattr(value, "tobytes"):  # PIL images
        state.update(value.tobytes())
    else:
        state.update(type(value).__qualname__.encode())


def reader(data: Any, items: ItemFormat) -> Callable[[int], Any]:
    """Return what records are recognised by: their inputs; in shards, their place, for which nothing is read."""
    return data.identity if isinstance(data, Shards) else lambda id: items.input_of(data[id])


def take(size: int, keys: Sequence[Any] | None, read: Callable[[int], Any]) -> dict[str, Any]:
    """Fingerprint the first ``size`` records: all keys where there are keys, else the content of a few records.

    Args:
        size: records to cover.
        keys: one stable key per record, or None.
        read: id -> what the record is recognised by, see :func:`reader` (its target excluded: correcting a label
            changes no record).

    Returns:
        JSON-able data for :func:`check`. A dataset whose items differ from one read to the next (random
        augmentation and no ``eval_view``) yields no probes, only its size.
    """
    if keys is not None:
        return {"size": size, "keys": digest([str(key) for key in keys[:size]])}
    ids = np.unique(np.linspace(0, size - 1, min(size, PROBES)).astype(int)).tolist() if size else []
    if ids and digest(read(ids[0])) != digest(read(ids[0])):
        ids = []
    return {"size": size, "probes": {str(i): digest(read(i)) for i in ids}}


def check(taken: Mapping[str, Any], size: int, keys: Sequence[Any] | None, read: Callable[[int], Any]) -> None:
    """Raise :class:`PoolChanged` unless the dataset begins with the records that ``taken`` saw."""
    if size < taken["size"]:
        raise PoolChanged(
            f"the dataset shrank: {taken['size']} records when the run started, {size} now. Records may be appended, "
            "never removed: restore the dataset, or start a new run."
        )
    if "keys" in taken:
        if keys is None:
            raise PoolChanged("the run was started with keys, and this pool has none: pass PoolDataModule(keys=...).")
        if digest([str(key) for key in keys[: taken["size"]]]) != taken["keys"]:
            raise PoolChanged(
                f"the first {taken['size']} keys are not those the run started with: the dataset was reordered or "
                "records were replaced. Restore its order (append only), or start a new run."
            )
        return
    moved = [int(i) for i, seen in taken["probes"].items() if digest(read(int(i))) != seen]
    if moved:
        raise PoolChanged(
            f"records {moved[:5]} are not what they were when the run started ({len(moved)} of "
            f"{len(taken['probes'])} probes differ): the dataset was reordered. Restore its order (append only), or "
            "start a new run. Datasets that are read at random need PoolDataModule(eval_view=...) or keys=."
        )
