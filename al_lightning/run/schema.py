"""Tables of a run's database, how older ones become today's, and the sums by which damage in them is noticed."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from al_lightning.errors import DamagedFile
from al_lightning.run.changes import first_new_place
from al_lightning.run.journal import Position
from al_lightning.run.paths import DATABASE

FORMAT = 4
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE query (round INTEGER, position INTEGER, id INTEGER NOT NULL UNIQUE, score REAL, score_round INTEGER,
                    PRIMARY KEY (round, position));
CREATE TABLE label (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, value TEXT, skipped INTEGER NOT NULL);
CREATE TABLE round (round INTEGER, final INTEGER, record TEXT NOT NULL, PRIMARY KEY (round, final));
CREATE TABLE ledger (seq INTEGER PRIMARY KEY, phase TEXT NOT NULL, round INTEGER NOT NULL, records INTEGER NOT NULL,
                     flops REAL NOT NULL, seconds REAL NOT NULL);
CREATE TABLE reason (seq INTEGER PRIMARY KEY, round INTEGER NOT NULL, kind TEXT NOT NULL, sentence TEXT NOT NULL,
                     numbers TEXT NOT NULL);
CREATE TABLE file (name TEXT PRIMARY KEY, path TEXT NOT NULL);
"""
_SINCE_2 = """
CREATE TABLE record_key (id INTEGER PRIMARY KEY, key TEXT NOT NULL);
CREATE TABLE statement (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, ask INTEGER NOT NULL, who TEXT NOT NULL,
                        source TEXT NOT NULL, line INTEGER NOT NULL, at TEXT NOT NULL, value TEXT);
CREATE TABLE audit (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, at TEXT NOT NULL, who TEXT NOT NULL,
                    source TEXT NOT NULL, old TEXT, new TEXT NOT NULL);
"""
"""Labels of people: their keys, everything said (NULL: no longer), and every change of a label."""
_SINCE_3 = "ALTER TABLE ledger ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;"
"""Bytes read of records in shards."""
_SINCE_4 = """
ALTER TABLE file ADD COLUMN digest TEXT;
CREATE TABLE journal (lines INTEGER NOT NULL, bytes INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE checksum (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, sum TEXT NOT NULL);
"""
"""What a file must be (NULL: written by a version before), how much of the journal is in the database, and sums."""
_STEPS = (_SCHEMA, _SINCE_2, _SINCE_3, _SINCE_4)
_TABLES = {
    "meta": ("key", "value"),
    "query": ("round", "position", "id", "score", "score_round"),
    "label": ("seq", "id", "value", "skipped"),
    "round": ("round", "final", "record"),
    "ledger": ("seq", "phase", "round", "records", "flops", "seconds", "bytes"),
    "reason": ("seq", "round", "kind", "sentence", "numbers"),
    "file": ("name", "path", "digest"),
    "record_key": ("id", "key"),
    "statement": ("seq", "id", "ask", "who", "source", "line", "at", "value"),
    "audit": ("seq", "id", "at", "who", "source", "old", "new"),
}
"""What is summed, in the order of its columns; the first ones order the rows."""
_LATER = {"record_key": 2, "statement": 2, "audit": 2, "ledger.bytes": 3, "file.digest": 4}
"""Tables and columns that older formats lack."""
_MODULUS = 1 << 64
Row = tuple[Any, ...]


def version(db: sqlite3.Connection) -> int:
    """Return the format of a database; 0 where no run has begun."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection, start: int) -> None:
    """Make the tables of a new run, or those that an older format lacks; within a transaction."""
    for statement in "".join(_STEPS[start:]).split(";"):
        if statement.strip():
            db.execute(statement)
    _tell_new_labels(db)
    db.execute(f"PRAGMA user_version={FORMAT}")


def _tell_new_labels(db: sqlite3.Connection) -> None:
    """Mark the labels that no fit has trained on, in a folder of a version that put labels in the order of arrival.

    The labels there stay in that order; those that come in from here on follow them.
    """
    meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('step', 'fits', 'withdrawn')"))
    if "step" not in meta or "fits" in meta:
        return
    last = db.execute("SELECT record FROM round WHERE NOT final ORDER BY round DESC LIMIT 1").fetchone()
    old = json.loads(last[0])["labelled"] - json.loads(meta.get("withdrawn", "0")) if last else 0
    first = db.execute("SELECT seq FROM label WHERE NOT skipped ORDER BY seq LIMIT 1 OFFSET ?", (old,)).fetchone()
    if first is not None:
        db.execute("UPDATE label SET seq = seq + ? WHERE seq >= ?", (first_new_place(0), *first))
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("fits", "0"), ("withdrawn", "[]")])


def columns(db: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """Return the columns of a table in a database of this or an older format; none where it lacks the table."""
    there = version(db)
    if there < _LATER.get(table, 0):
        return ()
    return tuple(name for name in _TABLES[table] if there >= _LATER.get(f"{table}.{name}", 0))


def rows(db: sqlite3.Connection, table: str, folder: Path) -> list[Row]:
    """Read a table in its order, and check that it holds what was written.

    Args:
        db: the database; that of an older format has nothing to check it by.
        table: its name.
        folder: the run folder, to name.

    Raises:
        DamagedFile: it holds something else.
    """
    names = columns(db, table)
    if not names:
        return []
    # An index may be damaged too: neither the rows nor their order are taken from one.
    order = ", ".join(names[: 2 if names[0] == "round" else 1])
    found = db.execute(f"SELECT {', '.join(names)} FROM {table} NOT INDEXED ORDER BY {order}").fetchall()
    if version(db) >= _LATER["file.digest"]:
        noted = db.execute("SELECT rows, sum FROM checksum NOT INDEXED WHERE name = ?", (table,)).fetchone()
        if noted != _sum(found):
            raise DamagedFile(folder / DATABASE, folder, f"table {table} holds other rows than were written")
    return found


def position(db: sqlite3.Connection) -> Position:
    """Return how much of the journal is in a database."""
    found = db.execute("SELECT lines, bytes, digest FROM journal").fetchone() if version(db) >= FORMAT else None
    return Position() if found is None else Position(*found)


def put_position(db: sqlite3.Connection, at: Position) -> None:
    """Note how much of the journal is in a database; within a transaction."""
    db.execute("DELETE FROM journal")
    db.execute("INSERT INTO journal VALUES (?, ?, ?)", (at.lines, at.bytes, at.digest))


def _sum(found: Sequence[Row]) -> tuple[int, str]:
    total = sum(map(zlib.crc32, map(str.encode, map(ascii, found))))
    return len(found), f"{total % _MODULUS:016x}"


def take_checksums(db: sqlite3.Connection) -> None:
    """Sum up what is there, in a database that has had no sums; within the transaction that migrates it."""
    for table, names in _TABLES.items():
        found = db.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
        db.execute("INSERT OR REPLACE INTO checksum VALUES (?, ?, ?)", (table, *_sum(found)))


class Checksums:
    """Keeps the sums of a database's tables as its rows change, whatever statement changes them.

    The sum of a table is that of its rows' CRCs, so that a change costs what it changes, not what is there.

    Args:
        db: of today's format.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._changes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        db.execute("PRAGMA recursive_triggers=ON")  # without it a row that is replaced is deleted in silence
        db.create_function("note_row", -1, self._note)
        for table, names in _TABLES.items():
            for action, kinds in (("INSERT", ("NEW",)), ("DELETE", ("OLD",)), ("UPDATE", ("OLD", "NEW"))):
                calls = "".join(
                    f"SELECT note_row('{table}', {1 if kind == 'NEW' else -1}, "
                    f"{', '.join(f'{kind}.{name}' for name in names)});"
                    for kind in kinds
                )
                db.execute(
                    f"CREATE TEMP TRIGGER note_{table}_{action} AFTER {action} ON main.{table} BEGIN {calls} END"
                )

    def _note(self, table: str, sign: int, *row: Any) -> None:
        change = self._changes[table]
        change[0] += sign
        change[1] += sign * zlib.crc32(ascii(row).encode())

    def begin(self) -> None:
        """Forget what a transaction that was rolled back has changed."""
        self._changes.clear()

    def write(self) -> None:
        """Bring the sums up to what has changed; within the transaction."""
        for table in _TABLES:
            more, change = self._changes[table]
            if not (more or change):
                continue
            count, total = self._db.execute("SELECT rows, sum FROM checksum WHERE name = ?", (table,)).fetchone()
            new = (table, count + more, f"{(int(total, 16) + change) % _MODULUS:016x}")
            self._db.execute("INSERT OR REPLACE INTO checksum VALUES (?, ?, ?)", new)
        self._changes.clear()
