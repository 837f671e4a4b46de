"""The run on disk: one folder, SQLite as the truth, large arrays and weights in files beside it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from al_lightning.cost.ledger import Entry, restored, stored
from al_lightning.durable import make_folder, writing
from al_lightning.errors import ActiveLearningError, RunLocked
from al_lightning.history import Reason, RoundRecord
from al_lightning.pool.label_codec import decode, encode
from al_lightning.pool.oracle import SKIP
from al_lightning.pool.votes import Statement

FORMAT = 3
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


@dataclass(frozen=True, kw_only=True)
class Query:
    """Ids picked in a round, best first; with the score each was picked by and the round that score is from."""

    ids: np.ndarray
    scores: np.ndarray
    score_rounds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Change:
    """The effect of one step of a run, and the step that comes next: one transaction.

    ``answers`` are to ids that had none, ``corrections`` to ids that had one; ``sources`` says who gave them, and in
    which file; ``places`` where those that are new stand among the labels, see :meth:`Saved.placed`.
    """

    step: str
    round: int
    query: Query | None = None
    keys: dict[int, str] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)
    corrections: dict[int, Any] = field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    sources: dict[int, tuple[str, str]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    record: RoundRecord | None = None
    entries: tuple[Entry, ...] = ()
    reasons: tuple[Reason, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Saved:
    """Everything a run knows, as plain data: what the database holds.

    ``asked`` has the position of each queried id among all queries, ``places`` that of each answered one among labels.
    """

    step: str = "new"
    queries: list[list[int]] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    final: RoundRecord | None = None
    entries: list[Entry] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)

    @property
    def open_ids(self) -> list[int]:
        """Ids that were queried and have no answer, in the order of their queries."""
        return [i for query in self.queries for i in query if i not in self.answers]

    @property
    def second_answers(self) -> int:
        """Records that people answered a second time, for quality control; they are paid for, too."""
        return len({s.id for s in self.statements if s.ask == 2})

    @property
    def first_new_place(self) -> int:
        """Place from which on labels are that no fit has trained on."""
        return first_new_place(self.meta.get("fits", 0))

    def placed(self, change: Change) -> Change:
        """Return the change with the places of its labels.

        Labels stand in the order of the fits that first train on them, and before one fit in the order in which they
        were asked for. When an answer came in, and with which others, makes no difference; one that comes late is new.
        """
        asked, first = self.asked, self.first_new_place + _NEW
        if change.query is not None:
            asked = {**asked, **{int(i): len(asked) + k for k, i in enumerate(change.query.ids)}}
        was_trained_on = set(self.meta.get("withdrawn", ()))
        late = (i for i in change.corrections if self.answers[i] is SKIP and i not in was_trained_on)
        return replace(change, places={i: first + asked[i] for i in (*change.answers, *late)})

    def apply(self, change: Change) -> None:
        """Make the change in memory."""
        self.step = change.step
        if change.query is not None:
            self.queries.append([int(i) for i in change.query.ids])
            self.asked.update({i: len(self.asked) + k for k, i in enumerate(self.queries[-1])})
        self.keys.update(change.keys)
        self.answers.update({**change.answers, **change.corrections})
        self.places.update(change.places)
        self.statements.extend(change.statements)
        if change.record is not None and change.record.final:
            self.final = change.record
        elif change.record is not None:
            # A round that is trained again after a restart replaces its record, here as in the table.
            self.rounds = [r for r in self.rounds if r.round != change.record.round] + [change.record]
        self.entries.extend(change.entries)
        self.reasons.extend(change.reasons)
        self.meta.update(change.meta)
        self.files.update(change.files)


_NEW = 1 << 39


def first_new_place(fits: int) -> int:
    """Return the place from which on labels are that have come in since so many fits of rounds."""
    return (2 * fits + 1) * _NEW


class Store:
    """A run folder, opened by one process.

    Args:
        folder: made if it does not exist.

    Raises:
        RunLocked: another process has it open; its pid is in the message.
        CannotWrite: the disk is full, or read-only.
        ActiveLearningError: the folder was written by another version's format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / "run.lock")
        try:
            with writing(folder):
                make_folder(folder)
                self._take(folder / "run.pid")
                self._db = self._opened()
        except BaseException:
            self._lock.release()
            raise

    def _take(self, owner: Path) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            pid = owner.read_text().strip() if owner.exists() else "unknown"
            raise RunLocked(
                f"{self.folder} is in use by process {pid}. Wait for it, stop it, or choose another run_dir."
            ) from None
        owner.write_text(f"{os.getpid()}\n")

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder / "run.sqlite", isolation_level=None)
        try:
            # A commit is on the disk when it returns.
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT:
                raise _newer(self.folder, version)
            missing = {0: _SCHEMA + _SINCE_2 + _SINCE_3, 1: _SINCE_2 + _SINCE_3, 2: _SINCE_3}.get(version)
            if missing is not None:
                db.executescript(f"BEGIN; {missing} PRAGMA user_version={FORMAT}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Let go of the folder."""
        self._db.close()
        self._lock.release()

    def load(self) -> Saved:
        """Read everything."""
        with writing(self.folder):
            _tell_new_labels(self._db)
        return _load(self._db, self.folder)

    def note(self, key: str, value: Any) -> None:
        """Write one value beside the run's steps."""
        with writing(self.folder):
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def commit(self, change: Change) -> None:
        """Write a step's effect and the move to the next step, all or nothing."""
        db = self._db
        with writing(self.folder):
            db.execute("BEGIN IMMEDIATE")
            try:
                self._write(db, change)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # Ctrl-C may come right after the commit
                    db.execute("ROLLBACK")
                raise

    def _write(self, db: sqlite3.Connection, change: Change) -> None:
        meta = {"step": change.step, **change.meta}
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
        if change.query is not None:
            q = change.query
            scores = [None if np.isnan(s) else float(s) for s in q.scores]
            rows = zip(range(len(q.ids)), q.ids.tolist(), scores, q.score_rounds.tolist(), strict=True)
            db.executemany("INSERT INTO query VALUES (?, ?, ?, ?, ?)", [(change.round, *row) for row in rows])
        db.executemany("INSERT OR REPLACE INTO record_key VALUES (?, ?)", list(change.keys.items()))
        self._write_labels(db, change)
        if change.record is not None:
            record = change.record
            row = (record.round, int(record.final), json.dumps(record.to_json()))
            db.execute("INSERT OR REPLACE INTO round VALUES (?, ?, ?)", row)
        db.executemany(
            "INSERT INTO ledger (phase, round, records, flops, seconds, bytes) VALUES (?, ?, ?, ?, ?, ?)",
            [(e.phase, e.round, e.records, stored(e.flops), e.seconds, e.bytes) for e in change.entries],
        )
        db.executemany(
            "INSERT INTO reason (round, kind, sentence, numbers) VALUES (?, ?, ?, ?)",
            [(change.round, r.kind, r.sentence, json.dumps(r.numbers)) for r in change.reasons],
        )
        db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?)", list(change.files.items()))

    def _write_labels(self, db: sqlite3.Connection, change: Change) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        old = {}
        for i in change.corrections:
            value, skipped = db.execute("SELECT value, skipped FROM label WHERE id = ?", (i,)).fetchone()
            old[i] = _REFUSED if skipped else value
            if i in change.places:
                db.execute("DELETE FROM label WHERE id = ?", (i,))  # it comes back in another place
        changed = {**change.answers, **change.corrections}
        new = {i: _to_text(value, f"the label of id {i}") for i, value in changed.items()}
        db.executemany(
            "INSERT INTO label (seq, id, value, skipped) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET value = excluded.value, skipped = excluded.skipped",
            [
                (change.places.get(i), i, None if text == _REFUSED else text, int(text == _REFUSED))
                for i, text in new.items()
            ],
        )
        db.executemany(
            "INSERT INTO audit (id, at, who, source, old, new) VALUES (?, ?, ?, ?, ?, ?)",
            [(i, at, *change.sources.get(i, ("", "")), old.get(i), text) for i, text in new.items()],
        )
        db.executemany(
            "INSERT INTO statement (id, ask, who, source, line, at, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (s.id, s.ask, s.who, s.source, s.line, at, None if s.value is None else _to_text(s.value, f"id {s.id}"))
                for s in change.statements
            ],
        )


def _load(db: sqlite3.Connection, folder: Path) -> Saved:
    saved = Saved()
    saved.meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
    saved.step = saved.meta.pop("step", "new")
    for round, id in db.execute("SELECT round, id FROM query ORDER BY round, position"):
        if round == len(saved.queries) + 1:
            saved.queries.append([])
        if round != len(saved.queries):
            raise _unreadable(folder, f"a query of round {round!r} comes after round {len(saved.queries)}")
        saved.queries[round - 1].append(id)
        saved.asked[id] = len(saved.asked)
    for seq, id, value, skipped in db.execute("SELECT seq, id, value, skipped FROM label ORDER BY seq"):
        saved.answers[id] = SKIP if skipped else decode(value)
        saved.places[id] = seq
    for final, record in db.execute("SELECT final, record FROM round ORDER BY round, final"):
        loaded = RoundRecord(**json.loads(record))
        if final:
            saved.final = loaded
        else:
            saved.rounds.append(loaded)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    columns: tuple[str, ...] = ("phase", "round", "records", "flops", "seconds", *(["bytes"] if version >= 3 else []))
    saved.entries = [
        Entry(**{**dict(zip(columns, row, strict=True)), "flops": restored(row[columns.index("flops")])})
        for row in db.execute(f"SELECT {', '.join(columns)} FROM ledger ORDER BY seq")
    ]
    saved.reasons = [
        Reason(k, s, json.loads(n)) for k, s, n in db.execute("SELECT kind, sentence, numbers FROM reason ORDER BY seq")
    ]
    saved.files = dict(db.execute("SELECT name, path FROM file"))
    if version >= 2:
        saved.keys = dict(db.execute("SELECT id, key FROM record_key"))
        columns = ("id", "ask", "who", "source", "line", "at", "value")
        for *known, value in db.execute(f"SELECT {', '.join(columns)} FROM statement ORDER BY seq"):
            said = Statement(**dict(zip(columns, known, strict=False)), value=_from_text(value))
            saved.statements.append(said)
    return saved


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
    db.execute("BEGIN IMMEDIATE")
    if first is not None:
        db.execute("UPDATE label SET seq = seq + ? WHERE seq >= ?", (first_new_place(0), *first))
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("fits", "0"), ("withdrawn", "[]")])
    db.execute("COMMIT")


_REFUSED = "skip"  # a JSON text of that meaning would have quotes


def _to_text(value: Any, what: str) -> str:
    return _REFUSED if value is SKIP else encode(value, what)


def _from_text(text: str | None) -> Any:
    return SKIP if text == _REFUSED else None if text is None else decode(text)


def _unreadable(folder: Path, why: str) -> ActiveLearningError:
    return ActiveLearningError(f"{folder / 'run.sqlite'} cannot be read as the database of a run: {why}.")


def _newer(folder: Path, version: int) -> ActiveLearningError:
    return ActiveLearningError(
        f"{folder} has run format {version}, this version reads up to {FORMAT}. Go on with the version of "
        "al_lightning that wrote it, or start a new run."
    )


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database of a run, to look at; also while another process works on it. Nothing is written.

    Args:
        folder: the run folder.

    Raises:
        ActiveLearningError: no run is there, or a newer version wrote it.
    """
    path = folder / "run.sqlite"
    if not path.is_file():
        raise ActiveLearningError(f"{folder} is no run folder: it has no run.sqlite. Give the run_dir of a run.")
    # Nobody has it open where there is no write-ahead log. Then no shared memory is made, whose owner would be whoever
    # only looks, and which a folder that cannot be written has no place for.
    alone, seen = not path.with_name("run.sqlite-wal").exists(), path.stat().st_mtime_ns
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise _newer(folder, version)
        if version == 0:
            raise ActiveLearningError(f"{folder} holds a run that has not begun. Start it first.")
        db.execute("BEGIN")  # one moment of the run, whatever is written meanwhile
        yield db
        if alone and path.stat().st_mtime_ns != seen:
            raise ActiveLearningError(f"{folder} was written while it was read. Look again.")
    except sqlite3.DatabaseError as error:
        raise _unreadable(folder, str(error)) from error
    finally:
        db.close()


def read_run(folder: Path) -> Saved:
    """Everything a run folder knows, without opening the run; see :func:`reading`."""
    with reading(folder) as db:
        return _load(db, folder)
