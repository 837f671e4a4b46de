"""The run on disk: one folder, SQLite as the truth, large arrays and weights in files beside it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from al_lightning.cost.ledger import Entry
from al_lightning.errors import ActiveLearningError, PoolError, RunLocked
from al_lightning.history import Reason, RoundRecord
from al_lightning.pool.oracle import SKIP

FORMAT = 1
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


@dataclass(frozen=True, kw_only=True)
class Query:
    """Ids picked in a round, best first; with the score each was picked by and the round that score is from."""

    ids: np.ndarray
    scores: np.ndarray
    score_rounds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Change:
    """The effect of one step of a run, and the step that comes next: one transaction."""

    step: str
    round: int
    query: Query | None = None
    answers: dict[int, Any] = field(default_factory=dict)
    record: RoundRecord | None = None
    entries: tuple[Entry, ...] = ()
    reasons: tuple[Reason, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Saved:
    """Everything a run knows, as plain data: what the database holds."""

    step: str = "new"
    queries: list[list[int]] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    final: RoundRecord | None = None
    entries: list[Entry] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Make the change in memory."""
        self.step = change.step
        if change.query is not None:
            self.queries.append([int(i) for i in change.query.ids])
        self.answers.update(change.answers)
        if change.record is not None and change.record.final:
            self.final = change.record
        elif change.record is not None:
            # A round that is trained again after a restart replaces its record, here as in the table.
            self.rounds = [r for r in self.rounds if r.round != change.record.round] + [change.record]
        self.entries.extend(change.entries)
        self.reasons.extend(change.reasons)
        self.meta.update(change.meta)
        self.files.update(change.files)


def write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is there whole or not at all, power cuts included: aside, fsync, rename, fsync."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with open(aside, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _dumps(value: Any, what: str) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise PoolError(f"{what} is {value!r}, which is not JSON: {error}. Labels are numbers, strings, lists or "
                        "dicts of them; keep masks in files and give their paths.") from error  # fmt: skip


class Store:
    """A run folder, opened by one process.

    Args:
        folder: made if it does not exist.

    Raises:
        RunLocked: another process has it open; its pid is in the message.
        ActiveLearningError: the folder was written by another version's format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        owner = folder / "run.pid"
        self._lock = FileLock(folder / "run.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            pid = owner.read_text().strip() if owner.exists() else "unknown"
            raise RunLocked(
                f"{folder} is in use by process {pid}. Wait for it, stop it, or choose another run_dir."
            ) from None
        owner.write_text(f"{os.getpid()}\n")
        self._db = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
        # A commit is on the disk when it returns.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            self.close()
            raise ActiveLearningError(
                f"{folder} has run format {version}, this version reads {FORMAT}. Go on with the version of "
                "al_lightning that wrote it, or start a new run."
            )
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={FORMAT}; COMMIT;")

    def close(self) -> None:
        """Let go of the folder."""
        self._db.close()
        self._lock.release()

    def load(self) -> Saved:
        """Read everything."""
        rows = self._db.execute
        saved = Saved()
        saved.meta = {key: json.loads(value) for key, value in rows("SELECT key, value FROM meta")}
        saved.step = saved.meta.pop("step", "new")
        for round, id in rows("SELECT round, id FROM query ORDER BY round, position"):
            while len(saved.queries) < round:
                saved.queries.append([])
            saved.queries[round - 1].append(id)
        for id, value, skipped in rows("SELECT id, value, skipped FROM label ORDER BY seq"):
            saved.answers[id] = SKIP if skipped else json.loads(value)
        for final, record in rows("SELECT final, record FROM round ORDER BY round, final"):
            loaded = RoundRecord(**json.loads(record))
            if final:
                saved.final = loaded
            else:
                saved.rounds.append(loaded)
        saved.entries = [
            Entry(phase=p, round=r, records=n, flops=f, seconds=s)
            for p, r, n, f, s in rows("SELECT phase, round, records, flops, seconds FROM ledger ORDER BY seq")
        ]
        saved.reasons = [
            Reason(k, s, json.loads(n)) for k, s, n in rows("SELECT kind, sentence, numbers FROM reason ORDER BY seq")
        ]
        saved.files = dict(rows("SELECT name, path FROM file"))
        return saved

    def note(self, key: str, value: Any) -> None:
        """Write one value beside the run's steps."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def commit(self, change: Change) -> None:
        """Write a step's effect and the move to the next step, all or nothing."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._write(db, change)
            db.execute("COMMIT")
        except BaseException:
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
        db.executemany(
            "INSERT INTO label (id, value, skipped) VALUES (?, ?, ?)",
            [
                (i, None if v is SKIP else _dumps(v, f"the label of id {i}"), int(v is SKIP))
                for i, v in change.answers.items()
            ],
        )
        if change.record is not None:
            record = change.record
            row = (record.round, int(record.final), json.dumps(record.to_json()))
            db.execute("INSERT OR REPLACE INTO round VALUES (?, ?, ?)", row)
        db.executemany(
            "INSERT INTO ledger (phase, round, records, flops, seconds) VALUES (?, ?, ?, ?, ?)",
            [(e.phase, e.round, e.records, e.flops, e.seconds) for e in change.entries],
        )
        db.executemany(
            "INSERT INTO reason (round, kind, sentence, numbers) VALUES (?, ?, ?, ?)",
            [(change.round, r.kind, r.sentence, json.dumps(r.numbers)) for r in change.reasons],
        )
        db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?)", list(change.files.items()))
