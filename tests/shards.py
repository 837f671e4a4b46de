"""Blobs in shards, and datasets over them that write down every byte they are given."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from al_lightning.shards import ParquetShards, TarShards
from al_lightning.shards.files import ShardFile, Shards
from tests.helpers import blobs

PAD = 2000
"""Bytes beside the input, as an image would have."""


def rows_of(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Inputs, classes and padding of blobs."""
    inputs, labels = blobs(start + n).tensors
    pads = np.random.default_rng(n).bytes(n * PAD)
    return [
        {"x": inputs[i].numpy().tobytes(), "y": int(labels[i]), "pad": pads[k * PAD : (k + 1) * PAD]}
        for k, i in enumerate(range(start, start + n))
    ]


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], *, group: int) -> Path:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def write_tar(path: Path, rows: Sequence[dict[str, Any]], *, start: int = 0) -> Path:
    with tarfile.open(path, "w") as tar:
        for i, row in enumerate(rows, start):
            for extension, data in (("x", row["x"]), ("cls", str(row["y"]).encode()), ("pad", row["pad"])):
                member = tarfile.TarInfo(f"images/{i:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def parquet_files(folder: Path, n: int = 600, *, files: int = 3, group: int = 10) -> list[Path]:
    """``n`` blobs in Parquet files."""
    rows, each = rows_of(n), n // files
    return [write_parquet(folder / f"{k}.parquet", rows[k * each : (k + 1) * each], group=group) for k in range(files)]


def tar_files(folder: Path, n: int = 600, *, files: int = 20) -> list[Path]:
    """``n`` blobs in tar files."""
    rows, each = rows_of(n), n // files
    return [write_tar(folder / f"{k:02d}.tar", rows[k * each : (k + 1) * each], start=k * each) for k in range(files)]


def from_row(row: dict[str, Any]) -> Any:
    """An item of :func:`tests.helpers.blobs`."""
    return torch.frombuffer(bytearray(row["x"]), dtype=torch.float32), torch.tensor(row["y"])


def from_members(row: dict[str, Any]) -> Any:
    """The same."""
    return from_row({"x": row["x"], "y": int(row["cls"])})


class Noted(ShardFile):
    """Writes down how many bytes it hands out, whichever process it is in."""

    def __init__(self, notes: Path, *args: Any) -> None:
        super().__init__(*args)
        self._notes = os.open(notes, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        os.write(self._notes, len(data).to_bytes(8, "little"))
        return data

    def close(self) -> None:
        if not self.closed:
            os.close(self._notes)
        super().close()


class NotedShards(Shards):
    """A dataset over shards that reads through :class:`Noted`."""

    notes: Path

    def _look(self, path: Path, file: ShardFile) -> Any:
        with Noted(self.notes, path, self._count) as noted:
            return super()._look(path, noted)  # type: ignore[safe-super]

    def _open(self, path: Path, file: ShardFile) -> Any:
        return super()._open(path, Noted(self.notes, path, self._count))  # type: ignore[safe-super]


class NotedParquet(NotedShards, ParquetShards):
    def __init__(self, notes: Path, paths: Any, **more: Any) -> None:
        self.notes = notes
        super().__init__(paths, from_row, **more)


class NotedTar(NotedShards, TarShards):
    def __init__(self, notes: Path, paths: Any, **more: Any) -> None:
        self.notes = notes
        super().__init__(paths, from_members, **more)


FORMATS = {"parquet": (parquet_files, NotedParquet), "tar": (tar_files, NotedTar)}


def shards_in(folder: Path, kind: str, n: int = 600, **more: Any) -> Any:
    """Blobs in shards of a kind, and a dataset over them that writes down what it reads."""
    write, dataset = FORMATS[kind]
    folder.mkdir(exist_ok=True)
    paths = write(folder, n, **more)
    return dataset(folder / "notes", paths)


def noted(notes: Path) -> int:
    """Bytes that were handed out so far, to all processes."""
    return int(np.frombuffer(notes.read_bytes(), dtype=np.int64).sum()) if notes.exists() else 0


def opens(kind: str, folder: Path) -> Any:
    """A function that opens the shards of a folder, for a worker."""
    paths = sorted(folder.glob("*.parquet" if kind == "parquet" else "*.tar"))
    return partial(FORMATS[kind][1], folder / "notes-there", paths)
