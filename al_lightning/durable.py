"""Files that are there whole or not at all, power cuts and full disks included, and that execute nothing when read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch

from al_lightning.errors import CannotWrite

UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile)
"""What :func:`read_arrays` and looking into its result raise where a file is missing, cut off or damaged."""


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
            make_folder(path.parent)
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            move(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)  # on a full disk it is what is in the way
            raise


def move(path: Path, to: Path) -> None:
    """Rename a file within its folder, so that the new name outlives a power cut.

    Raises:
        CannotWrite: the disk is full, or read-only.
    """
    with writing(to):
        os.replace(path, to)
        _sync_names(to.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, so that their names outlive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    # One that is there may be from a process that was killed before it had synced the name.
    for path in reversed(missing or [folder]):
        path.mkdir(exist_ok=True)
        with suppress(PermissionError):  # above a run folder that others made, nothing may be readable
            _sync_names(path.parent)


def _sync_names(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_tensors(path: str | Path) -> Any:
    """What ``torch.save`` wrote, on the CPU; tensors and plain values, no pickled objects."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; no pickled ones."""
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:  # it leaves a broken one open
        if not all(member.endswith(".npy") for member in file.zip.namelist()):
            raise ValueError("an archive of something else")  # NumPy would give its bytes
        return dict(file)
