"""Bytes read, counted over a process and those it starts."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from uuid import uuid4


class ByteCount:
    """A count that this process shares with those it starts: forked or spawned, as a DataLoader's workers are.

    Sent elsewhere (pickled for a machine of a cluster) or copied, it begins at 0 there.

    Args:
        folder: of the count that a spawned process shares; None: a new one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._mine = 0
        self._owner = os.getpid() if folder is None else -1
        self._folder = Path(tempfile.mkdtemp(prefix="al_lightning-bytes-")) if folder is None else folder
        self._file = -1
        if folder is None:
            weakref.finalize(self, _remove, self._folder, os.getpid())

    def __reduce__(self) -> tuple[type[ByteCount], tuple[Path | None]]:
        return ByteCount, (self._folder if get_spawning_popen() is not None else None,)

    def add(self, count: int) -> None:
        """Count bytes."""
        if self._owner != os.getpid():  # started by whoever made this count, and reads it through a file of its own
            self._owner, self._mine = os.getpid(), 0
            name = self._folder / f"{os.getpid()}-{uuid4().hex}"  # a number of a process comes back
            self._file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        self._mine += count
        if self._file >= 0:
            os.pwrite(self._file, self._mine.to_bytes(8, "little"), 0)

    @property
    def total(self) -> int:
        """Bytes so far, of all processes; for the one that made the count."""
        running = 0
        for path in self._folder.iterdir():
            gone = not _runs(int(path.name.partition("-")[0]))  # asked before its last word is read
            count = int.from_bytes(path.read_bytes(), "little")
            if gone:
                self._mine += count
                path.unlink()
            else:
                running += count
        return self._mine + running


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process that lets go of its copy leaves it to the others
        with suppress(OSError):
            shutil.rmtree(folder)
