"""Lines of a file that somebody may be writing: one at a time, whole, and of a file that stood still meanwhile."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from al_lightning.errors import BadLabelFile

T = TypeVar("T")
_LONGEST = 32 << 20  # bytes of a line; no row of a query has as many
_TRIES, _PAUSE = 10, 0.2
_TICK = 0.005  # seconds: two writes within them may have the same time
_PIECE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class Lines(Iterator[str]):
    r"""The lines of a UTF-8 file with their ends, ``\n``, ``\r\n`` or ``\r``; no more than one is in memory.

    Args:
        path: of the file, for messages.
        file: opened to read bytes.

    Attributes:
        number: of the line given last; 1 for the first.
        ended: whether that line has an end.

    Raises:
        BadLabelFile: the file is empty, or a line is no UTF-8, or longer than any row.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.number, self.ended = 0, True
        self._path, self._lines = path, self._read(file)

    @classmethod
    @contextmanager
    def of(cls, path: Path, most: int) -> Iterator[Lines]:
        """Open a file.

        Args:
            path: of a file, or of a link to one.
            most: bytes it may have.

        Raises:
            BadLabelFile: it cannot be read, is no file, or is larger.
        """
        try:
            # Nobody may ever write to a pipe of that name: opening it does not wait for them.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise BadLabelFile(path, ["cannot be read: it is a device or a pipe, and no file"])
                if found.st_size > most:
                    said = f"{found.st_size:,} bytes are too many for a file of labels; allowed: {most:,}"
                    raise BadLabelFile(path, [said])
                yield cls(path, file)
        except OSError as error:
            raise BadLabelFile(path, [f"cannot be read: {error.strerror or error}"]) from error

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.ended = line.endswith(("\n", "\r")) or not line.strip()
        return line

    def check_end(self) -> None:
        """Raise BadLabelFile if the last line has no end: ``0.2`` may be half of ``0.25``."""
        if not self.ended:
            raise self._bad(
                "the last row has no line end, so it may be cut off or still being written. Where the file is whole, "
                "end it with a line break (Enter after the last row)",
                self.number,
            )

    def _read(self, file: IO[bytes]) -> Iterator[str]:
        empty = True
        for raw in iter(lambda: file.readline(_LONGEST), b""):
            for line in _PIECE.findall(self._text(raw)):
                empty = empty and not line.strip()
                yield line
        if empty:
            raise BadLabelFile(self._path, ["it is empty; a first line with the columns id and label is needed"])

    def _text(self, raw: bytes) -> str:
        number = self.number + 1
        if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise self._bad("it is UTF-16; save it as UTF-8 (in a spreadsheet: CSV UTF-8)", number)
        if len(raw) == _LONGEST:
            raise self._bad(f"it has {_LONGEST:,} bytes or more, and is no row of a query", number)
        if b"\0" in raw:
            raise self._bad("it has a NUL byte, so it is no text", number)
        try:
            return raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            cut = "; is the file whole?" if error.reason == "unexpected end of data" else ""
            number += raw.count(b"\r", 0, error.start) if not raw.endswith(b"\r\n") else 0
            what = f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8{cut}"
            raise self._bad(what, number) from None

    def _bad(self, problem: str, number: int) -> BadLabelFile:
        return BadLabelFile(self._path, [f"line {number}: {problem}"])


_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # Windows has no such flag, and no such pipes


def unchanging(path: Path, most: int, read: Callable[[Lines], T]) -> T:
    """Read a file that stands still meanwhile; one that is written, renamed or replaced is read again.

    Args:
        path: of the file.
        most: bytes it may have.
        read: makes something of its lines.

    Raises:
        BadLabelFile: what ``read`` raises; the file never stood still.
    """
    for _ in range(_TRIES):
        seen = _state(path)
        if seen is not None and 0 <= time.time() - seen[-1] / 1e9 < _TICK:
            time.sleep(_TICK)  # else a write from now on could leave the same time
            seen = _state(path)
        problem = found = None
        try:
            with Lines.of(path, most) as lines:
                found = read(lines)
        except BadLabelFile as error:
            problem = error
        if _state(path) == seen:
            if problem is not None:
                raise problem
            return found  # type: ignore[return-value]
        time.sleep(_PAUSE)
    raise BadLabelFile(path, ["it has changed each time it was read: run the same command once it is written"])


def _state(path: Path) -> tuple[int, ...] | None:
    """Tells a file from what it was before and from any other; the time of its last change comes last."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
