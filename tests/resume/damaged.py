"""Damages to a run folder, and what it comes to when it is opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def flip(path: Path, bit: int | None = None) -> None:
    """Flip a bit of a file; the default is one in its middle."""
    data = bytearray(path.read_bytes())
    at = len(data) * 4 if bit is None else bit
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def sql(folder: Path, command: str) -> None:
    """Change a run's database behind the run's back."""
    with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
        db.execute(command)


THIRD = "WHERE seq = (SELECT seq FROM label WHERE NOT skipped ORDER BY seq LIMIT 1 OFFSET 2)"
DATABASE: dict[str, Callable[[Path], object]] = {
    "gone": lambda f: (f / "run.sqlite").unlink(),
    "empty": lambda f: (f / "run.sqlite").write_bytes(b""),
    "cut": lambda f: (f / "run.sqlite").write_bytes((f / "run.sqlite").read_bytes()[:9000]),
    "no database": lambda f: (f / "run.sqlite").write_text("no database" * 1000),
    "no format": lambda f: sql(f, "PRAGMA user_version=0"),
    "a label is another": lambda f: sql(f, f"UPDATE label SET value = value || 1 {THIRD}"),
    "a label is gone": lambda f: sql(f, f"DELETE FROM label {THIRD}"),
    "a text is no JSON": lambda f: sql(f, "UPDATE round SET record = '{' || record"),
    "the bill is another": lambda f: sql(f, "UPDATE ledger SET flops = flops + 1 WHERE seq = 1"),
    "a score is another": lambda f: sql(f, "UPDATE query SET score = 0.5 WHERE round = 1 AND position = 2"),
    "two labels change places": lambda f: sql(f, "UPDATE label SET id = -id"),
    "who said it is another": lambda f: sql(f, "UPDATE audit SET who = 'eve' WHERE seq = 2"),
    "a column is gone": lambda f: sql(f, "ALTER TABLE reason RENAME COLUMN kind TO sort"),
    "a table is gone": lambda f: sql(f, "DROP TABLE ledger"),
}
"""Damages to the database; the journal is whole."""
JOURNAL: dict[str, Callable[[Path], object]] = {
    "gone": lambda f: (f / "journal.jsonl").unlink(),
    "empty": lambda f: (f / "journal.jsonl").write_bytes(b""),
    "cut": lambda f: (f / "journal.jsonl").write_bytes((f / "journal.jsonl").read_bytes()[:-700]),
    "a bit": lambda f: flip(f / "journal.jsonl"),
    "a line is gone": lambda f: (f / "journal.jsonl").write_text(
        "".join((f / "journal.jsonl").read_text().splitlines(keepends=True)[1:])
    ),
}
"""Damages to the journal; the database is whole."""
