"""Run folders as older versions have left them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

WITHOUT = {
    3: ("DROP TABLE journal", "DROP TABLE checksum", "ALTER TABLE file DROP COLUMN digest"),
    2: ("ALTER TABLE ledger DROP COLUMN bytes",),
    1: ("DROP TABLE record_key", "DROP TABLE statement", "DROP TABLE audit"),
}
"""Format -> what it lacks of the next one."""


def as_format(folder: Path, version: int) -> None:
    """Take from a run folder what a version did not write yet."""
    with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
        there = db.execute("PRAGMA user_version").fetchone()[0]
        for older in range(there - 1, version - 1, -1):
            for command in WITHOUT[older]:
                db.execute(command)
        db.execute(f"PRAGMA user_version={version}")
    (folder / "journal.jsonl").unlink(missing_ok=True)
