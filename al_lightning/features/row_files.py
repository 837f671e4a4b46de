"""Files of activations: rows of some records, memory-mapped, that say what they hold; and a dataset made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from al_lightning.features import cache


class Rows:
    """Rows of some of the records, in memory-mapped files.

    Args:
        size: records of the pool.
        shape: of a row.
    """

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._files: list[np.ndarray] = []
        self._at = np.full((size, 2), -1, dtype=np.int32)  # file, and row in it

    def add(self, file: np.ndarray) -> None:
        """Take in a file, ``(n,)`` of ``id`` and ``row``."""
        self._at[file["id"]] = np.stack([np.full(len(file), len(self._files)), np.arange(len(file))], axis=1)
        self._files.append(file)

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Those of the ids that have no row, ascending."""
        return np.unique(ids[self._at[ids, 0] < 0])

    def __getitem__(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """``(n, *shape)`` float32, read now."""
        file, row = self._at[np.asarray(ids)].T
        found = np.empty((len(row), int(np.prod(self.shape))), dtype=np.float32)
        for number in np.unique(file):
            here = file == number
            found[here] = self._files[number]["row"][row[here]]
        return found.reshape(-1, *self.shape)


class RecordsOfRows(Dataset[Any]):
    """The pool's records with activations in the place of inputs; nothing of the dataset is read.

    The targets are those of one record: training puts the bought labels there, scoring does not look.

    Args:
        rows: the activations.
        example: an item of the dataset.
        place: of its input, see :func:`~al_lightning.features.stand_in.place_of_input`.
    """

    def __init__(self, rows: Rows, example: Any, place: int | str, size: int) -> None:
        self._rows, self._example, self._place, self._size = rows, example, place, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, id: int) -> Any:
        return self.__getitems__([id])[0]

    def __getitems__(self, ids: Sequence[int]) -> list[Any]:
        rows, example = torch.from_numpy(self._rows[ids]), self._example
        if isinstance(example, Mapping):
            return [{**example, self._place: row} for row in rows]
        return [type(example)((row, example[1])) for row in rows]


def as_file(ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what a file of these rows, ``(n, ...)``, holds: ``(n,)`` of ``id`` and ``row``, float32 and flat."""
    flat = rows.reshape(len(ids), -1)
    file = np.empty(len(ids), dtype=[("id", np.int64), ("row", np.float32, (flat.shape[1],))])
    file["id"], file["row"] = ids, flat
    return file


def about(file: np.ndarray, made_from: str, shape: Sequence[int]) -> cache.About:
    """Return what a file says of itself.

    Args:
        file: of :func:`as_file`.
        made_from: fingerprint of the weights that made its rows.
        shape: of a row.
    """
    return {**cache.about({"rows": file}, made_from=made_from, version=0), "shape": list(shape)}


def read(path: Path, says: cache.About) -> np.ndarray:
    """Map a file into memory, having gone through it once.

    Args:
        path: the file.
        says: what it must be.

    Raises:
        Stale: it is not.
    """
    file: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if about(file, says["made_from"], says["shape"]) != says:
        raise cache.Stale("other rows than it says")
    return file
