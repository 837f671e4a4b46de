"""Reading a run folder: what its database, held against its journal, knows, and whether the two can be trusted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import cast

from al_lightning.cost.ledger import Entry, restored
from al_lightning.errors import ActiveLearningError, DamagedFile
from al_lightning.history import Reason, RoundRecord
from al_lightning.oracles.oracle import SKIP
from al_lightning.oracles.statements import Statement
from al_lightning.run.changes import Saved
from al_lightning.run.journal import Body, Group, Position
from al_lightning.run.journal import read as read_journal
from al_lightning.run.lines import from_text, write
from al_lightning.run.meta import Meta
from al_lightning.run.paths import DATABASE, JOURNAL, check_folder, trace
from al_lightning.run.schema import FORMAT, Checksums, columns, position, put_position, rows, version


@contextmanager
def sound(folder: Path) -> Iterator[None]:
    """Whatever SQLite makes of a damaged database, as one error.

    Raises:
        DamagedFile: it is damaged.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _damaged(folder, str(error)) from error


@contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Whatever a database does that is damaged or holds what no run wrote, as one error.

    Raises:
        DamagedFile: it is, or does.
    """
    try:
        with sound(folder):
            yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}"[:200]) from error


def _damaged(folder: Path, why: str) -> DamagedFile:
    return DamagedFile(folder / DATABASE, folder, f"it cannot be read as the database of a run: {why}")


def not_begun(folder: Path) -> ActiveLearningError:
    """Return the error of whoever looks at a run before its first step."""
    return ActiveLearningError(f"{folder} holds a run that has not begun. Start it first.")


# ---- what it knows ------------------------------------------------------------------------------------------------


def load(db: sqlite3.Connection, folder: Path) -> Saved:
    """Read everything a database holds, of this or an older format.

    Raises:
        DamagedFile: a table holds other rows than were written.
    """
    saved = Saved()
    meta = {key: json.loads(value) for key, value in rows(db, "meta", folder)}
    saved.step = meta.pop("step", "new")
    saved.meta = cast(Meta, meta)
    for round, _, id, *_ in rows(db, "query", folder):
        if round == len(saved.queries) + 1:
            saved.queries.append([])
        if round != len(saved.queries):
            raise _damaged(folder, f"a query of round {round!r} comes after round {len(saved.queries)}")
        saved.queries[round - 1].append(id)
        saved.asked[id] = len(saved.asked)
    for place, id, value, skipped in rows(db, "label", folder):
        saved.answers[id] = SKIP if skipped else from_text(value)
        saved.places[id] = place
    for _, final, record in rows(db, "round", folder):
        loaded = RoundRecord(**json.loads(record))
        if final:
            saved.final = loaded
        else:
            saved.rounds.append(loaded)
    names = columns(db, "ledger")[1:]
    for _, *row in rows(db, "ledger", folder):
        entry = dict(zip(names, row, strict=True))
        saved.entries.append(Entry(**{**entry, "flops": restored(entry["flops"])}))
    saved.reasons = [Reason(k, s, json.loads(n)) for *_, k, s, n in rows(db, "reason", folder)]
    for name, path, *digest in rows(db, "file", folder):
        saved.files[name] = path
        if digest and digest[0] is not None:
            saved.digests[name] = digest[0]
    saved.keys = dict(rows(db, "record_key", folder))
    names = columns(db, "statement")[1:-1]
    for _, *known, value in rows(db, "statement", folder):
        saved.statements.append(Statement(**dict(zip(names, known, strict=True)), value=from_text(value)))
    rows(db, "audit", folder)
    return saved


def take_in(db: sqlite3.Connection, checksums: Checksums, bodies: Sequence[Body], at: Position) -> None:
    """Take the lines of a change into a database; within a transaction.

    Args:
        db: of today's format.
        checksums: of its tables.
        bodies: of the lines.
        at: where they end in the journal.
    """
    checksums.begin()
    write(db, bodies)
    put_position(db, at)
    checksums.write()


# ---- whether it can be trusted --------------------------------------------------------------------------------------


def look(folder: Path) -> tuple[bytes, tuple[Group, ...]]:
    """Look at a folder that is about to be opened; nothing is written.

    Returns:
        The journal, and what of it the database has yet to take in.

    Raises:
        DamagedFile: the folder holds a run that its database does not, or not all of; or either is damaged.
        ActiveLearningError: a newer version wrote it.
    """
    path, data = folder / DATABASE, journal_of(folder)
    if not _has_bytes(path):
        first = (folder / name for name in ("initial.pt", f"{DATABASE}-wal", JOURNAL))
        left = trace(folder) or next(filter(_has_bytes, first), None)
        if left is not None:
            raise DamagedFile(path, folder, f"it is {'empty' if path.exists() else 'gone'}, and {left.name} is there")
        return data, ()
    with closing(connect(path)) as db:
        if not _has_begun(db, data, folder):
            return data, ()
        (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise _damaged(folder, said)
        saved, tail = load(db, folder), tail_of(db, data, folder)
        if saved.step == "new" and not tail and trace(folder) is not None:
            raise _damaged(folder, _NO_RUN)
        return data, tail


_NO_RUN = "it holds no run, and the folder does"


def _has_begun(db: sqlite3.Connection, data: bytes, folder: Path) -> bool:
    """Return whether a database holds a run that this version reads; one without is refused if the folder has one."""
    there = version(db)
    if there > FORMAT:
        raise ActiveLearningError(
            f"{folder} has run format {there}, this version reads up to {FORMAT}. Go on with the version of "
            "al_lightning that wrote it, or start a new run."
        )
    if there == 0:
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables or data or trace(folder) is not None:
            raise _damaged(folder, _NO_RUN)
    return there > 0


def tail_of(db: sqlite3.Connection, data: bytes, folder: Path) -> tuple[Group, ...]:
    """Return what a journal holds that the database has not taken in: nothing, or the one change a kill has left.

    Raises:
        DamagedFile: it is not the journal of this database, or the database lacks more than one change.
    """
    old, at = version(db) < FORMAT, position(db)
    if len(data) < at.bytes or sha256(data[: at.bytes]).hexdigest() != at.digest:
        raise DamagedFile(folder / JOURNAL, folder, f"it is not the journal of what is in {DATABASE}")
    known = read_journal(data, at)
    if known.closed > 1:
        raise DamagedFile(folder / DATABASE, folder, f"it is behind: {JOURNAL} has {known.closed} changes more")
    return () if old else known.groups  # for an old one a journal has been begun at most


def journal_of(folder: Path) -> bytes:
    """Return the bytes of a folder's journal; none where there is none."""
    path = folder / JOURNAL
    return path.read_bytes() if path.exists() else b""


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


# ---- looking on -----------------------------------------------------------------------------------------------------


def _alone(path: Path) -> bool:
    """Return whether nobody has a database open: then there is no write-ahead log."""
    return not path.with_name(f"{DATABASE}-wal").exists()


def connect(path: Path) -> sqlite3.Connection:
    """Open a database to read it; nothing is written."""
    # Where nobody has it open no shared memory is made, whose owner would be whoever only looks, and which a folder
    # that cannot be written has no place for.
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if _alone(path) else ''}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database of a run, to look at; also while another process works on it. Nothing is written.

    Read tables with :func:`~al_lightning.run.schema.rows`, which notices damage in them.

    Args:
        folder: the run folder.

    Raises:
        ActiveLearningError: no run is there, or a newer version wrote it.
        DamagedFile: the database is damaged, or behind the folder's journal.
    """
    path = folder / DATABASE
    with sound(folder):
        with _readable(path, folder):
            data, alone, seen = journal_of(folder), _alone(path), path.stat().st_mtime_ns
        with closing(connect(path)) as db:
            if not _has_begun(db, data, folder):
                raise not_begun(folder)
            db.execute("BEGIN")  # one moment of the run, whatever is written meanwhile
            with closing(_caught_up(db, data, folder)) as whole:
                yield whole
            if alone and path.stat().st_mtime_ns != seen:
                raise ActiveLearningError(f"{folder} was written while it was read. Look again.")


@contextmanager
def _readable(path: Path, folder: Path) -> Iterator[None]:
    try:
        if folder.is_dir():
            check_folder(folder)
        if not path.is_file():
            left = trace(folder) if folder.is_dir() else None
            if left is not None:
                raise DamagedFile(path, folder, f"it is gone, and {left.name} is there")
            raise ActiveLearningError(f"{folder} is no run folder: it has no {DATABASE}. Give the run_dir of a run.")
        yield
    except OSError as error:
        raise DamagedFile(path, folder, str(error), "Make the folder readable.") from error


def _caught_up(db: sqlite3.Connection, data: bytes, folder: Path) -> sqlite3.Connection:
    """The database and, in memory, the change that a killed process had written to the journal alone."""
    at = position(db)
    if at.bytes > len(data):
        data = journal_of(folder)  # it has grown since it was read
    if not data:
        return db  # it was lost; the database has its own sums
    tail = tail_of(db, data, folder)
    if not tail:
        return db
    whole = sqlite3.connect(":memory:", isolation_level=None)
    db.backup(whole)
    checksums = Checksums(whole)
    for group in tail:
        take_in(whole, checksums, group.bodies, group.end)
    return whole


def read_run(folder: Path) -> Saved:
    """Everything a run folder knows, without opening the run; see :func:`reading`."""
    with checked(folder), reading(folder) as db:
        return load(db, folder)
