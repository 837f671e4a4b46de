"""Records in Parquet files: what is read as one is a row group."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.errors import DamagedShard, MissingExtra
from al_lightning.shards.files import ShardFile, Shards

_MAGIC = b"PAR1"


class ParquetShards(Shards):
    """Serve the rows of Parquet files as a map-style dataset. To read one row is to read its row group.

    Row groups that were read stay in memory, the last ones, so that records in the order of their ids are read once.

    Args:
        paths: of the files.
        to_record: ``{column: value} -> item``, of Python's own types (bytes, numbers, strings, lists).
        columns: to read, and pay for; default: all.
        cache_bytes: memory that row groups may take in each process; the last one is kept in any case.

    Attributes:
        nbytes: compressed bytes of these columns in each row group, ``(row groups,)`` int64.

    Raises:
        MissingExtra: pyarrow is not installed.
        DamagedShard: a file that is missing or no Parquet file, a row group that cannot be read, no such column.

    Example:
        >>> dataset = ParquetShards("data/*.parquet")  # doctest: +SKIP
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        to_record: Callable[[dict[str, Any]], Any],
        *,
        columns: Sequence[str] | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtra("pyarrow", "parquet", "ParquetShards") from None
        self.columns = None if columns is None else list(columns)
        self.cache_bytes = cache_bytes
        self._groups: OrderedDict[int, Any] = OrderedDict()
        super().__init__(paths, to_record)
        self._first_of = np.searchsorted(self._file_of, np.arange(len(self.paths)))

    def _look(self, path: Path, file: ShardFile) -> tuple[int, list[tuple[int, int]]]:
        made_of, about = _footer(path, file)
        missing = set(self.columns or ()) - set(about.schema.to_arrow_schema().names)
        if missing:
            raise DamagedShard(
                f"{path} has no column {', '.join(sorted(missing))}; it has "
                f"{', '.join(about.schema.to_arrow_schema().names)}."
            )
        return made_of, [self._size(about.row_group(i)) for i in range(about.num_row_groups)]

    def _size(self, group: Any) -> tuple[int, int]:
        chunks = (group.column(i) for i in range(group.num_columns))
        wanted = (c for c in chunks if self.columns is None or c.path_in_schema.split(".")[0] in self.columns)
        return group.num_rows, sum(chunk.total_compressed_size for chunk in wanted)

    def _open(self, path: Path, file: ShardFile) -> tuple[int, Any]:
        from pyarrow.parquet import ParquetFile

        made_of, about = _footer(path, file)
        # What is not asked for is not read ahead, and no threads are started that a fork would not survive.
        return made_of, ParquetFile(file, metadata=about, pre_buffer=False, page_checksum_verification=True)

    def _rows(self, shard: int, opened: Any, at: np.ndarray) -> list[dict[str, Any]]:
        return self._group(shard, opened).take(at).to_pylist()

    def _group(self, shard: int, opened: Any) -> Any:
        kept = self._groups
        if shard not in kept:
            number = shard - int(self._first_of[self._file_of[shard]])
            try:
                kept[shard] = opened.read_row_group(number, columns=self.columns, use_threads=False)
            except (OSError, ValueError) as error:  # pyarrow's own errors are among these
                path = self.paths[int(self._file_of[shard])]
                raise DamagedShard(
                    f"{path}: row group {number} (ids {self._starts[shard]} to {self._starts[shard + 1] - 1}) cannot "
                    f"be read: {error} Bring the file back from a copy."
                ) from error
        kept.move_to_end(shard)
        while len(kept) > 1 and sum(table.nbytes for table in kept.values()) > self.cache_bytes:
            kept.popitem(last=False)
        return kept[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_groups": OrderedDict()}


def _footer(path: Path, file: ShardFile) -> tuple[int, Any]:
    """Checksum of the footer, which says where everything lies, and what it says; only its own bytes are read."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    end = file.read_at(max(0, file.size - 8), 8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or length > file.size - 8:
        raise DamagedShard(f"{path} is no Parquet file, or not all of it is there: it has no footer. Write it again.")
    footer = file.read_at(file.size - 8 - length, length)
    try:
        about = read_metadata(pyarrow.BufferReader(footer + end))
    except (OSError, ValueError) as error:
        raise DamagedShard(f"{path}: its footer cannot be read: {error} Bring it back from a copy.") from error
    return zlib.crc32(footer), about
