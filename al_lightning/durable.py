"""Files that are there whole or not at all, power cuts and full disks included, and that execute nothing when read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from al_lightning.errors import CannotWrite


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever a full or read-only disk makes of a write, as one error.

    Raises:
        CannotWrite: the write failed.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise CannotWrite(path, error) from error
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch.save puts its own error in front of the disk's
            raise CannotWrite(path, error.__context__) from error
        raise


def write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is there whole or not at all, power cuts included: aside, fsync, rename, fsync."""
    aside = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            move(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)  # on a full disk it is what is in the way
            raise


def move(path: Path, to: Path) -> None:
    """Rename a file within its folder, so that the new name outlives a power cut."""
    os.replace(path, to)
    folder = os.open(to.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_tensors(path: str | Path) -> Any:
    """What ``torch.save`` wrote, on the CPU; tensors and plain values, no pickled objects."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; no pickled ones."""
    with np.load(path, allow_pickle=False) as file:
        if not all(member.endswith(".npy") for member in file.zip.namelist()):
            raise ValueError("an archive of something else")  # NumPy would give its bytes
        return dict(file)
