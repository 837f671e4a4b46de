"""Records in tar files, as WebDataset lays them out: of a record, only its own bytes are read."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from al_lightning.errors import CannotWrite, DamagedShard
from al_lightning.pool.fingerprint import digest
from al_lightning.run.durable import UNREADABLE, move, read_arrays, write_aside
from al_lightning.shards.files import ShardFile, Shards

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class TarIndex:
    """Hold where everything is in a tar file, of n records in m members.

    Args:
        stamp: size of the file, and when it was written (nanoseconds), ``(2,)`` int64.
        keys: of the records, ``(n,)`` str.
        first: first member of each record, and m, ``(n + 1,)`` int64.
        extensions: of the members, ``(m,)`` str.
        offsets: of their data, ``(m,)`` int64.
        sizes: of their data, ``(m,)`` int64.
        headers: CRC-32 of the block before their data, ``(m,)`` int64.
    """

    stamp: np.ndarray
    keys: np.ndarray
    first: np.ndarray
    extensions: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    headers: np.ndarray

    @property
    def made_of(self) -> int:
        """A checksum of all headers and places."""
        return zlib.crc32(self.headers.tobytes() + self.offsets.tobytes() + self.sizes.tobytes())

    def span(self, record: int) -> tuple[int, int]:
        """Offset and length of a record's bytes, its headers among them."""
        start, last = int(self.offsets[self.first[record]]) - _BLOCK, int(self.first[record + 1]) - 1
        return start, int(self.offsets[last] + self.sizes[last]) - start

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        last = self.first[1:] - 1
        return int((self.offsets[last] + self.sizes[last] - self.offsets[self.first[:-1]] + _BLOCK).sum())


class TarShards(Shards):
    """Serve tar files in the layout of WebDataset as a map-style dataset: members ``key.ext`` of one key make a record.

    What is read as one, a shard, is a file; but of a record only its own bytes are read, so any selector reads as
    little. The offsets are looked up once, by the headers alone, and kept in a file beside each shard.

    Args:
        paths: of the files; not compressed, for they are read from the middle.
        to_record: ``{"__key__": key, ext: bytes} -> item``.
        index_dir: where indexes are kept; default: beside the shards.

    Attributes:
        nbytes: bytes of the records in each file, ``(files,)`` int64.

    Raises:
        DamagedShard: a file that is missing, or no tar file; a member that is not what was indexed. Shard and key are
            named.

    Example:
        >>> dataset = TarShards("data/*.tar")  # doctest: +SKIP
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        to_record: Callable[[dict[str, Any]], Any],
        *,
        index_dir: str | Path | None = None,
    ) -> None:
        self.index_dir = None if index_dir is None else Path(index_dir)
        super().__init__(paths, to_record)

    def _look(self, path: Path, file: ShardFile) -> tuple[int, list[tuple[int, int]]]:
        index = self._index_of(path, file)
        return index.made_of, [(len(index.keys), index.nbytes)]

    def _open(self, path: Path, file: ShardFile) -> tuple[int, tuple[ShardFile, TarIndex]]:
        index = self._index_of(path, file)
        return index.made_of, (file, index)

    def _rows(self, shard: int, opened: tuple[ShardFile, TarIndex], at: np.ndarray) -> list[dict[str, Any]]:
        return [self._row(self.paths[shard], *opened, int(record)) for record in at]

    def _row(self, path: Path, file: ShardFile, index: TarIndex, record: int) -> dict[str, Any]:
        start, length = index.span(record)
        data, key = file.read_at(start, length), str(index.keys[record])
        row: dict[str, Any] = {"__key__": key}
        for member in range(index.first[record], index.first[record + 1]):
            begins = int(index.offsets[member]) - start
            ends = begins + int(index.sizes[member])
            extension = str(index.extensions[member])
            if zlib.crc32(data[begins - _BLOCK : begins]) != index.headers[member] or ends > len(data):
                raise DamagedShard(
                    f"{path}: member {key}.{extension} is not what was indexed: the file was written over, or is "
                    "damaged there. Bring it back from a copy."
                )
            row[extension] = data[begins:ends]
        return row

    def _index_of(self, path: Path, file: ShardFile) -> TarIndex:
        kept = self._kept_at(path)
        try:
            index = TarIndex(**read_arrays(kept))
            if index.stamp.tolist() == [file.size, file.written]:
                return index
        except (*UNREADABLE, TypeError):  # none, or damaged: it is made again
            pass
        index = index_tar(path, file)
        try:  # several processes may do so at once
            aside = kept.with_name(f"{kept.name}-{uuid4().hex}")
            write_aside(aside, lambda opened: np.savez(opened, **vars(index)))
            move(aside, kept)
        except CannotWrite as error:
            raise DamagedShard(
                f"the index of {path} cannot be kept: {error.__cause__}. Say where it can be: TarShards(index_dir=...)."
            ) from error
        return index

    def _kept_at(self, path: Path) -> Path:
        if self.index_dir is None:
            return path.with_name(f"{path.name}.index.npz")
        return self.index_dir / f"{path.name}-{digest(str(path.resolve()))}.index.npz"


def index_tar(path: Path, file: ShardFile) -> TarIndex:
    """Look up where the records of a tar file are; data is skipped.

    Args:
        path: for messages.
        file: opened.

    Raises:
        DamagedShard: no tar file, or one that is cut off or damaged; the place is named.
    """
    keys: list[str] = []
    first: list[int] = []
    extensions: list[str] = []
    places: list[tuple[int, int, int]] = []
    for key, extension, member in _members(path, file):
        if not keys or keys[-1] != key:
            keys.append(key)
            first.append(len(places))
        elif extension in extensions[first[-1] :]:
            raise DamagedShard(f"{path}: {key}.{extension} is in it twice. Give every record a key of its own.")
        header = zlib.crc32(file.read_at(member.offset_data - _BLOCK, _BLOCK))
        extensions.append(extension)
        places.append((member.offset_data, member.size, header))
    offsets, sizes, headers = np.array(places, dtype=np.int64).reshape(-1, 3).T.copy()
    return TarIndex(
        stamp=np.array([file.size, file.written]),
        keys=np.array(keys, dtype=np.str_),
        first=np.array([*first, len(places)], dtype=np.int64),
        extensions=np.array(extensions, dtype=np.str_),
        offsets=offsets,
        sizes=sizes,
        headers=headers,
    )


def _members(path: Path, file: ShardFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, extension and place of all files with both; what is hidden or WebDataset's own is passed over."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                if member.isfile() and stem and extension and not stem.startswith("__"):
                    yield (f"{folder}/{stem}" if folder else stem), extension.lower(), member
            end = tar.offset
    except tarfile.TarError as error:
        raise DamagedShard(
            f"{path} is no tar file, or not all of it is there: {error}. A compressed one cannot be read from the "
            "middle: unpack it to .tar."
        ) from error
    if file.read_at(end, _BLOCK).strip(b"\0"):  # tarfile takes a damaged header for the end
        raise DamagedShard(f"{path} is damaged at byte {end}, where a header should be. Bring it back from a copy.")
