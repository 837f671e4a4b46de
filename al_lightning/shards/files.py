"""Records in shards: files that hold many records each, read a part at a time, every byte counted."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from al_lightning.errors import DamagedShard
from al_lightning.pool.byte_count import ByteCount

_OPEN = 8
"""Files that are open at once, in each process."""


class ShardFile(io.RawIOBase):
    """A shard, opened for reading. What is read is counted, and where it is read is known here alone.

    So processes that were forked meanwhile do not move each other's position.

    Args:
        path: of the shard.
        count: told of every byte.

    Raises:
        DamagedShard: it cannot be opened.
    """

    def __init__(self, path: Path, count: ByteCount) -> None:
        self._handle = -1
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DamagedShard(
                f"{path} cannot be opened: {error.strerror}. Bring it back, or mount the storage it is on in every "
                "process that reads the pool (docs/distributed.md)."
            ) from error
        self._count, self._at = count, 0
        about = os.fstat(self._handle)
        self.size, self.written = about.st_size, about.st_mtime_ns

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.size - self._at) if size is None or size < 0 else size
        parts = []
        while left:
            part = os.pread(self._handle, left, self._at)  # gives no more than 2 GiB
            if not part:
                break
            self._count.add(len(part))
            self._at, left = self._at + len(part), left - len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer where the file ends."""
        self.seek(offset)
        return self.read(size)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        super().close()


class Shards(Dataset[Any], ABC):
    """Base of the datasets over shards. Ids go through the files in the order they are given in.

    Nothing is open in its pickle: workers of a DataLoader and of a cluster open files when they first read.

    Args:
        paths: of the shards; more can be appended between two starts of a run, at the end.
        to_record: makes an item of the dataset of what a shard holds of a record. It is pickled with the dataset, so a
            function of a module.

    Attributes:
        nbytes: bytes that reading a whole shard takes, ``(shards,)`` int64.

    Raises:
        DamagedShard: a file that is missing, or no shard.
    """

    nbytes: np.ndarray

    def __init__(self, paths: str | Path | Sequence[str | Path], to_record: Callable[[dict[str, Any]], Any]) -> None:
        self.paths = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        if not self.paths:
            raise DamagedShard(f"{type(self).__name__}(paths=[]): no shard is given. Look at the pattern they match.")
        self.to_record = to_record
        self._count = ByteCount()
        self._opened: OrderedDict[int, Any] = OrderedDict()
        self._index()

    def _index(self) -> None:
        """Look at every file: which shards there are, how many records and bytes each holds."""
        files: list[int] = []
        records: list[int] = []
        nbytes: list[int] = []
        self._made_of: list[int] = []
        for number, path in enumerate(self.paths):
            with ShardFile(path, self._count) as file:
                made_of, parts = self._look(path, file)
            self._made_of.append(made_of)
            for count, size in parts:
                files.append(number)
                records.append(count)
                nbytes.append(size)
        self._file_of = np.array(files, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(records, dtype=np.int64)])
        self.nbytes = np.array(nbytes, dtype=np.int64)

    @abstractmethod
    def _look(self, path: Path, file: ShardFile) -> tuple[int, Sequence[tuple[int, int]]]:
        """A checksum of what the file consists of; and of each of its shards, the records and the bytes."""

    @abstractmethod
    def _open(self, path: Path, file: ShardFile) -> tuple[int, Any]:
        """The checksum, and what reads of the file."""

    @abstractmethod
    def _rows(self, shard: int, opened: Any, at: np.ndarray) -> Sequence[dict[str, Any]]:
        """Return what the shard holds of its records at these places, in this order."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shard_of(self) -> np.ndarray:
        """Shard that each record lies in, ``(N,)`` int32; what is read as one."""
        return np.repeat(np.arange(len(self.nbytes), dtype=np.int32), np.diff(self._starts))

    @property
    def bytes_read(self) -> int:
        """Bytes read of the files so far, by this process and those it started (workers of a DataLoader)."""
        return self._count.total

    def identity(self, id: int) -> list[Any]:
        """Return what a record is recognised by when a run goes on, without reading it."""
        shard = int(self._shards(np.array([id]))[0])
        number = int(self._file_of[shard])
        return [self.paths[number].name, self._made_of[number], shard, id - int(self._starts[shard])]

    def where(self, id: int) -> str:
        """The record in words: its file, and its place in it."""
        return f"{self.paths[int(self._file_of[self._shards(np.array([id]))[0]])]}, record with id {id}"

    def _shards(self, ids: np.ndarray) -> np.ndarray:
        outside = ids[(ids < 0) | (ids >= len(self))]
        if len(outside):
            raise IndexError(f"id {outside[0]}; allowed: 0 to {len(self) - 1}.")
        return np.searchsorted(self._starts, ids, side="right") - 1

    def __getitem__(self, id: int) -> Any:
        return self.__getitems__([int(id)])[0]

    def __getitems__(self, ids: Sequence[int]) -> list[Any]:
        at = np.asarray(ids, dtype=np.int64)
        shards, items = self._shards(at), [None] * len(at)
        for shard in np.unique(shards).tolist():  # each is read once
            positions = np.flatnonzero(shards == shard)
            rows = self._rows(shard, self._reader(int(self._file_of[shard])), at[positions] - self._starts[shard])
            for position, row in zip(positions.tolist(), rows, strict=True):
                items[position] = self._item(row, int(at[position]))
        return items

    def _reader(self, number: int) -> Any:
        if number not in self._opened:
            path = self.paths[number]
            made_of, opened = self._open(path, ShardFile(path, self._count))
            if made_of != self._made_of[number]:
                raise DamagedShard(
                    f"{path} has changed since it was indexed: ids would mean other records. Shards are not written "
                    "over: bring the file back, or append what is new in a file of its own and open the dataset again."
                )
            self._opened[number] = opened
            if len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        return self._opened[number]

    def _item(self, row: dict[str, Any], id: int) -> Any:
        try:
            return self.to_record(row)
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedShard(
                f"{self.where(id)}: to_record fails on it: {type(error).__name__}: {error}. It holds {', '.join(row)}. "
                "Repair the record, or to_record."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": OrderedDict()}
