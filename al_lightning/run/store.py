"""The run on disk: SQLite as the truth, a journal before it, large arrays and weights in files beside it."""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from al_lightning.errors import CannotWrite, RunLocked
from al_lightning.run.changes import Change, Query, Saved
from al_lightning.run.durable import make_folder, write_aside, writing
from al_lightning.run.journal import Body, Journal, whole_file
from al_lightning.run.lines import lines_of, note_line, snapshot
from al_lightning.run.paths import DATABASE, JOURNAL, LOCK, OWNER, check_folder
from al_lightning.run.reading import checked, load, look, read_run, reading, sound, take_in
from al_lightning.run.schema import FORMAT, Checksums, migrate, position, put_position, take_checksums, version

__all__ = ["FORMAT", "Change", "Query", "Saved", "Store", "read_run", "reading"]


class Store:
    """A run folder, opened by one process.

    A change is on the disk in the journal before the database takes it in. A process that is killed between the two
    leaves the journal one change ahead, and the next one to open the folder takes that in.

    Args:
        folder: made if it does not exist.

    Raises:
        RunLocked: another process has it open; its pid is in the message.
        CannotWrite: the disk is full, or read-only.
        DamagedFile: the database, the journal, or another place of the folder is not as a run left it.
        ActiveLearningError: the folder was written by another version's format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise CannotWrite(folder, "it is a file, and a run needs a folder")
        with writing(folder):
            make_folder(folder)
            check_folder(folder)
            self._lock = locked(folder)
        try:
            with checked(folder):
                self._db, self._checksums, self._journal = _opened(folder)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let go of the folder."""
        self._db.close()
        self._lock.release()

    def load(self) -> Saved:
        """Read everything."""
        with checked(self.folder):
            return load(self._db, self.folder)

    def note(self, key: str, value: Any) -> None:
        """Write one value beside the run's steps."""
        self._change(lambda: [note_line(key, value)])

    def commit(self, change: Change) -> None:
        """Write a step's effect and the move to the next step, all or nothing."""
        self._change(lambda: lines_of(change, self._db))

    def _change(self, lines: Callable[[], Sequence[Body]]) -> None:
        db, before = self._db, self._journal.at
        with sound(self.folder), writing(self.folder):
            db.execute("BEGIN IMMEDIATE")
            try:
                if position(db) != before:
                    raise RunLocked(
                        f"another process has changed the run in {self.folder} meanwhile. Stop one of the two."
                    )
                bodies = lines()
                self._journal.append(bodies)
                take_in(db, self._checksums, bodies, self._journal.at)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error, OSError):
                    if db.in_transaction:  # Ctrl-C may come right after the commit
                        db.execute("ROLLBACK")
                    if position(db) == before:
                        self._journal.undo(before)
                raise


def locked(folder: Path) -> FileLock:
    """Take the lock of a run folder.

    Raises:
        RunLocked: another process has it; its pid is in the message.
        CannotWrite: the disk is full, or read-only.
    """
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        with warnings.catch_warnings():  # where a disk knows no locks, one that is a file takes their place
            warnings.simplefilter("ignore")
            lock.acquire(timeout=0)
    except Timeout:
        pid = owner.read_text().strip() if owner.exists() else "unknown"
        raise RunLocked(
            f"{folder} is in use by process {pid}. Wait for it, stop it, or choose another run_dir."
        ) from None
    except NotImplementedError as error:
        raise CannotWrite(folder, error) from error
    try:
        write_aside(owner, lambda file: file.write(f"{os.getpid()}\n".encode()))
    except BaseException:
        lock.release()
        raise
    return lock


def _opened(folder: Path) -> tuple[sqlite3.Connection, Checksums, Journal]:
    data, tail = look(folder)  # a folder that is refused is left as it is
    with writing(folder):
        db = sqlite3.connect(folder / DATABASE, isolation_level=None)
        try:
            # A commit is on the disk when it returns.
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            if version(db) < FORMAT:
                data = _migrated(db, folder)
            checksums, at = Checksums(db), position(db)
            for group in tail:
                transaction(db, lambda group=group: take_in(db, checksums, group.bodies, group.end))  # type: ignore[misc]
                at = group.end
            return db, checksums, Journal(folder / JOURNAL, at, data)
        except BaseException:
            db.close()
            raise


def _migrated(db: sqlite3.Connection, folder: Path) -> bytes:
    start, data = version(db), b""

    def change() -> None:
        nonlocal data
        migrate(db, start)
        if start:  # a run that was begun by a version before gets a journal
            data, at = whole_file(snapshot(db))
            write_aside(folder / JOURNAL, lambda file: file.write(data))
            put_position(db, at)
        take_checksums(db)

    transaction(db, change)
    return data


def transaction(db: sqlite3.Connection, change: Callable[[], None]) -> None:
    """Do what changes a database, all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        change()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
