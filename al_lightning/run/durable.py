"""Files that are there whole or not at all, power cuts and full disks included, and that execute nothing when read."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

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
    except OSError as error:
        raise CannotWrite(path, error) from error
    except sqlite3.OperationalError as error:
        if not of_the_disk(error):
            raise
        raise CannotWrite(path, error) from error
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch.save puts its own error in front of the disk's
            raise CannotWrite(path, error.__context__) from error
        raise


def of_the_disk(error: sqlite3.OperationalError) -> bool:
    """Return whether SQLite speaks of a disk that is full, read-only or broken, rather than of what is on it."""
    return any(word in str(error) for word in ("full", "readonly", "disk I/O", "unable to open", "locked", "denied"))


class Hashed(io.RawIOBase):
    """A file that is written from its beginning to its end, and hashed on the way.

    Args:
        file: takes the bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._state = file, hashlib.sha256()

    def writable(self) -> bool:
        """Return True: that is all it can do."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes, and return how many."""
        self._state.update(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._state.hexdigest()


def digest_of(path: Path, *, without: int = 0) -> str:
    """Return the SHA-256 of a file, the last ``without`` bytes of it excluded. No link is followed."""
    state = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        left = os.fstat(file.fileno()).st_size - without
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            state.update(part)
            left -= len(part)
    return state.hexdigest()


def sealed(write: Callable[[Any], Any]) -> Callable[[IO[bytes]], Any]:
    """Return a writer that does the same and ends with a hash of it, see :func:`check_seal`."""

    def whole(file: IO[bytes]) -> None:
        hashed = Hashed(file)
        write(hashed)
        file.write(bytes.fromhex(hashed.digest))

    return whole


def check_seal(path: Path) -> None:
    """Check a file by the hash at its end. ZIP files, which those of torch and NumPy are, may have bytes after them.

    Raises:
        ValueError: it is not what was written.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 32))
        seal = file.read()
    if size < 32 or digest_of(path, without=32) != seal.hex():
        raise ValueError("its bytes have changed since they were written")


def write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is there whole or not at all, power cuts included: aside, fsync, rename, fsync."""
    aside = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            make_folder(path.parent)
            aside.unlink(missing_ok=True)
            with open(aside, "xb") as file:  # a link that somebody has put there is not followed
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
        sync_names(to.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, so that their names outlive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    # One that is there may be from a process that was killed before it had synced the name.
    for path in reversed(missing or [folder]):
        path.mkdir(exist_ok=True)
        with suppress(PermissionError):  # above a run folder that others made, nothing may be readable
            sync_names(path.parent)


def sync_names(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_tensors(path: str | Path | IO[bytes]) -> Any:
    """Return what ``torch.save`` wrote, on the CPU; tensors and plain values, no pickled objects."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; no pickled ones."""
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:  # it leaves a broken one open
        if not all(member.endswith(".npy") for member in file.zip.namelist()):
            raise ValueError("an archive of something else")  # NumPy would give its bytes
        return dict(file)
