"""The journal of a run: every change as lines of JSON, on the disk before the database takes it in.

A line is one JSON object and ends with a CRC of its text. Lines of one change stand together; the last of them, a
``commit`` or a ``note``, has a hash of everything before it. What follows the last such line is a change that was never
finished, and counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from al_lightning.errors import RunLocked
from al_lightning.run.durable import sync_names

Body = dict[str, Any]
"""What a line says; ``kind`` is the first of its keys."""
CLOSING = ("commit", "note")
_CRC = b', "crc": "'


@dataclass(frozen=True)
class Position:
    """A place between two changes of a journal.

    Args:
        lines: before it.
        bytes: before it.
        digest: SHA-256 of these bytes.
    """

    lines: int = 0
    bytes: int = 0
    digest: str = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Group:
    """The lines of one change, and where they end."""

    bodies: tuple[Body, ...]
    end: Position


@dataclass(frozen=True)
class Reading:
    """Hold what a journal holds from a position on.

    Args:
        groups: changes whose lines are as they were written, oldest first, up to the first that is not.
        closed: lines there are that end a change, those after a damaged one included.
        lost: numbers of the lines that are not as they were written, 1 for the first.
        salvaged: lines after the last of ``groups`` that are as they were written.
        rest: bytes after the last of ``groups``.
    """

    groups: tuple[Group, ...]
    closed: int
    lost: tuple[int, ...]
    salvaged: tuple[Body, ...]
    rest: int

    @property
    def whole(self) -> bool:
        """Return whether every finished change can be read; what a kill has left of another does not matter."""
        return self.closed == len(self.groups)


def read(data: bytes, start: Position | None = None) -> Reading:
    """Read a journal.

    Args:
        data: all of its bytes.
        start: where to begin; default: at its beginning. The bytes before are those it says.
    """
    start = start or Position()
    number, at, state = start.lines, start.bytes, hashlib.sha256(data[: start.bytes])
    groups: list[Group] = []
    pending: list[Body] = []
    lost: list[int] = []
    closed, broken = 0, False
    for line in data[start.bytes :].splitlines(keepends=True):
        body = _opened(line)
        number, at = number + 1, at + len(line)
        if body is None:
            lost.append(number)
            broken = True
            state.update(line)
            continue
        pending.append(body)
        if body["kind"] in CLOSING:
            closed += 1
            broken = broken or body.get("digest") != state.hexdigest()
        state.update(line)
        if body["kind"] in CLOSING and not broken:
            groups.append(Group(tuple(pending), Position(number, at, state.hexdigest())))
            pending = []
    end = groups[-1].end if groups else start
    return Reading(tuple(groups), closed, tuple(lost), tuple(pending), len(data) - end.bytes)


class Journal:
    """A journal that changes are appended to, by one process.

    Args:
        path: of the file; made by the first change.
        at: where its last finished change ends; what stands there after it is overwritten.
        data: the bytes of it.
    """

    def __init__(self, path: Path, at: Position, data: bytes) -> None:
        self.path, self.at = path, at
        self._state = hashlib.sha256(data[: at.bytes])
        if len(data) > at.bytes:
            self._cut(at.bytes)

    def append(self, bodies: Sequence[Body]) -> None:
        """Write the lines of a change, so that they outlive a power cut.

        Args:
            bodies: the last of them a ``commit`` or a ``note``.

        Raises:
            RunLocked: somebody else has written to it.
            OSError: the disk is full, or read-only.
        """
        new = not self.at.bytes and not self.path.exists()
        lines, after = _sealed(bodies, self.at.lines, self._state)
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if new else 0)
        file = os.open(self.path, flags, 0o666)
        try:
            if os.fstat(file).st_size != self.at.bytes:
                raise RunLocked(
                    f"another process has written to {self.path} since this one opened the run. Stop one of the two, "
                    "and run the same command again."
                )
            try:
                written = 0
                while written < len(lines):
                    written += os.write(file, memoryview(lines)[written:])
                os.fsync(file)
            except BaseException:
                os.ftruncate(file, self.at.bytes)
                raise
        finally:
            os.close(file)
        if new:
            sync_names(self.path.parent)
        self._state = after
        self.at = Position(self.at.lines + len(bodies), self.at.bytes + len(lines), after.hexdigest())

    def undo(self, before: Position) -> None:
        """Take the last change back: the database did not take it in."""
        if self.at == before:
            return
        self._cut(before.bytes)
        self.at, self._state = before, hashlib.sha256(self.path.read_bytes())

    def _cut(self, bytes: int) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(file, bytes)
            os.fsync(file)
        finally:
            os.close(file)


def whole_file(bodies: Sequence[Body]) -> tuple[bytes, Position]:
    """Return the bytes of a journal of one change, and its end."""
    lines, state = _sealed(bodies, 0, hashlib.sha256())
    return bytes(lines), Position(len(bodies), len(lines), state.hexdigest())


def _sealed(bodies: Iterable[Body], number: int, state: Any) -> tuple[bytearray, Any]:
    lines, state = bytearray(), state.copy()
    for n, body in enumerate(bodies, start=number + 1):
        more = {"digest": state.hexdigest()} if body["kind"] in CLOSING else {}
        text = json.dumps({"seq": n, **body, **more})[:-1].encode()
        line = text + _CRC + b'%08x"}\n' % zlib.crc32(text)
        state.update(line)
        lines += line
    return lines, state


def _opened(line: bytes) -> Body | None:
    text, found, check = line.rpartition(_CRC)
    if not found or check != b'%08x"}\n' % zlib.crc32(text):
        return None
    body: Body = json.loads(text + b"}")
    return body if isinstance(body, dict) and isinstance(body.get("kind"), str) else None
