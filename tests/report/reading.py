"""Reads a report back as a browser would, and a run folder by SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from al_lightning.report.page import write_report

VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """The elements, texts and numbers of a page.

    ``rows`` are the tables: ``{table id: [[cell, ...], ...]}`` with a cell's number where it is one, else its text.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.rows: dict[str, list[list[float | str]]] = {}
        self.numbers: dict[str, list[float]] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(self.source)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag in VOID:
            return
        self._open.append((tag, found.get("id", "")))
        table = self._table
        if table is not None and tag == "tr":
            self.rows.setdefault(table, []).append([])
        if table is not None and tag in ("td", "th"):
            self.rows[table][-1].append("")
        if tag == "data":
            value = float(found["value"])
            for _, id in self._open:
                self.numbers.setdefault(id, []).append(value)
            if table is not None:
                self.rows[table][-1][-1] = value

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"{opened} is closed by {tag}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        table = self._table
        if table is not None and self._inside("td", "th"):
            cell = self.rows[table][-1][-1]
            self.rows[table][-1][-1] = cell + data if isinstance(cell, str) else cell

    def _inside(self, *tags: str) -> bool:
        return any(tag in tags for tag, _ in self._open)

    @property
    def _table(self) -> str | None:
        return next((id for tag, id in self._open if tag == "table"), None)

    @property
    def text(self) -> str:
        """All text, blanks evened out."""
        return " ".join(" ".join(self.texts).split())


def written(*folders: Path, **kwargs: Any) -> Page:
    return Page(write_report(folders, folders[0].parent / "report", **kwargs).page)


def sql(folder: Path, command: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
        return db.execute(command, values).fetchall()
