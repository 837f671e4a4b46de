"""A person who answers queries in files, and notices what is asked twice and what got lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from al_lightning.errors import ActiveLearningError
from al_lightning.run.store import read_run


class Person:
    """Answers a half of the first query, then the rest; the second in a file of their own; and corrects a label.

    Args:
        classes: names; record i is of class ``i % len(classes)``.
        records: in the pool.

    Attributes:
        typed: the last word on every record.
        saved: files they saved since the last command began, by their path beside the run folder.
        lost: labels that were in the database, or in a file, and are gone.
        twice: records that were asked for in two rounds, twice in one, or in place of others.
    """

    def __init__(self, classes: Sequence[str], records: int) -> None:
        self._classes, self._records = classes, records
        self._asked: dict[int, list[int]] = {}
        self._filled: dict[tuple[int, int], str] = {}
        self._known: set[int] = set()
        self.typed: dict[int, str] = {}
        self.saved: dict[str, bytes] = {}
        self.lost = self.twice = 0

    def own_file(self, folder: Path) -> Path:
        """Where they answer the second query."""
        return folder.parent / "answers.csv"

    def look(self, folder: Path) -> None:
        """See whether the database still has what it had."""
        try:
            now = set(read_run(folder).answers)
        except ActiveLearningError:  # it has not begun
            now = set()
        self.lost += len(self._known - now)
        self._known = now

    def answer(self, folder: Path, round: int) -> str:
        """Answer the open query; the command that comes next."""
        self.saved = {}
        path = folder / "queries" / f"round-{round:03d}.csv"
        rows = self._read(path, round)
        ids = [int(row["id"]) for row in rows]
        self._notice(round, ids)
        half = round == 1 and not self._filled
        for row in rows[: len(rows) // 2] if half else rows:
            self._type(row, round, self._classes[int(row["id"]) % len(self._classes)])
        self._save(path if round != 2 else self.own_file(folder), rows, folder)
        if round == 3:
            first = folder / "queries" / "round-001.csv"
            rows = self._read(first, 1)
            self._type(rows[0], 1, self._classes[(int(rows[0]["id"]) + 1) % len(self._classes)])
            self._save(first, rows, folder)
        return "label" if round == 2 else "run"

    def _type(self, row: dict[str, str], round: int, name: str) -> None:
        row["label"] = self.typed[int(row["id"])] = self._filled[round, int(row["id"])] = name

    def _read(self, path: Path, round: int) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if round != 2:  # there they have typed into another file
            self.lost += sum(self._filled.get((round, int(row["id"])), "") != row["label"] for row in rows)
        return rows

    def _notice(self, round: int, ids: list[int]) -> None:
        before = {id for r, asked in self._asked.items() if r != round for id in asked}
        self.twice += (
            len(before & set(ids)) + len(ids) - len(set(ids)) + len(set(ids) - set(self._asked.get(round, ids)))
        )
        self._asked[round] = ids

    def _save(self, path: Path, rows: list[dict[str, str]], folder: Path) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
        path.write_bytes(data)
        self.saved[str(path.relative_to(folder.parent))] = data
