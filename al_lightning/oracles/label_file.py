"""Files that people fill in: read with every doubt, written without a formula."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from al_lightning.errors import BadLabelFile, PoolError
from al_lightning.oracles.label_cell import Language, guarded, words
from al_lightning.oracles.label_lines import Lines, unchanging
from al_lightning.oracles.oracle import SKIP, check_labels
from al_lightning.oracles.statements import Statement
from al_lightning.oracles.votes import same
from al_lightning.pool.label_codec import decode

LARGEST = 256 << 20
"""Bytes of the largest file that is read."""
_LONGEST_CELL = 131_072  # what the csv module reads back
_SHOWN = 10
_NO_CELL = {
    "id": (list, dict, bool),
    "key": (list, dict, bool),
    "ask": (list, dict, bool),
    "annotator": (list, dict, bool, float),
}
"""Columns of ours, and the JSON types that none of their values has."""
_OWN = (*_NO_CELL, "label")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads files of answers to a run's queries.

    Args:
        language: of the cells; None where labels fit no cell and come as JSON alone.
        queried: ids that were asked for.
        key: id -> the user's stable key; where a file has keys they must be these.
        size: records in the pool.
        task: of the pool; what labels that fit no cell are checked by.
    """

    language: Language | None
    queried: Collection[int]
    key: Callable[[int], Any]
    size: int
    task: str = ""

    def read(self, path: Path, *, who: str = "", source: str | None = None) -> list[Statement]:
        """Every filled label of a CSV or JSON Lines file. The file is only read.

        Args:
            path: the file.
            who: the annotator where a row names none.
            source: what the file is called in statements; default: the path.

        Raises:
            BadLabelFile: anything in it is not what it should be; nothing of it counts then.
        """
        json_lines = path.suffix.lower() == ".jsonl"
        if self.language is None and not json_lines:
            raise BadLabelFile(path, [f"labels of task={self.task!r} do not fit a cell: bring them in as JSON Lines"])
        rows = _json_rows if json_lines else _csv_rows
        return unchanging(path, LARGEST, lambda lines: self._said(path, rows(path, lines), who, source or str(path)))

    def _said(self, path: Path, rows: Iterator[tuple[int, dict[str, Any]]], who: str, source: str) -> list[Statement]:
        said: dict[tuple[int, int, str], Statement] = {}
        problems: list[str] = []
        for line, row in rows:
            try:
                s = self._statement(row, line, who, source)
                earlier = None if s is None else said.setdefault((s.id, s.ask, s.who), s)
                if s is not None and earlier is not None and not same(earlier.value, s.value):
                    raise _Problem(f"id {s.id} has another label in line {earlier.line}; leave one of the two")
            except _Problem as problem:
                problems.append(f"line {line}: {problem}")
                if len(problems) == _SHOWN:
                    break
        if problems:
            raise BadLabelFile(path, problems)
        return list(said.values())

    def _statement(self, row: Mapping[str, Any], line: int, who: str, source: str) -> Statement | None:
        id = self._id(row["id"])
        if "key" in row and row["key"].strip() not in (str(self.key(id)).strip(), safe(self.key(id)).strip()):
            raise _Problem(
                f"id {id} has key {words(str(self.key(id)))} in this run, and the file says {words(row['key'])}: "
                "rows were mixed up. Restore the id and key columns; key may be left out"
            )
        ask = (row.get("ask") or "1").strip()
        if ask not in ("1", "2"):
            raise _Problem(f"ask is {words(ask)}; allowed: 1 or 2")
        value = self._label(id, row["label"])
        if value is None:
            return None
        name = (row.get("annotator") or "").strip() or who
        if not name.isprintable() or len(name) > 200:
            raise _Problem(f"annotator is {words(name)}; allowed: a name of up to 200 printable characters")
        return Statement(id=id, value=value, who=name, ask=int(ask), source=source, line=line)

    def _label(self, id: int, value: Any) -> Any:
        if self.language is None:
            return self._structure(id, value)
        try:
            return self.language.read_json(value)
        except ValueError:
            shown = words(value if isinstance(value, str) else json.dumps(value))
            parts = value if isinstance(value, list) else [value]
            nested = any(isinstance(part, list | dict) for part in parts)
            allowed = "a label, or a list of them" if nested else self.language.allowed
            raise _Problem(f"label is {shown}; allowed: {allowed}") from None

    def _structure(self, id: int, value: Any) -> Any:
        """A label that fits no cell, as it is in JSON."""
        if value is None or value == "":
            return None
        if value == "skip":
            return SKIP
        try:
            label = decode(json.dumps(value))
            check_labels({id: label}, self.task)
        except (PoolError, ValueError) as error:
            raise _Problem(str(error)) from None
        return label

    def _id(self, cell: str) -> int:
        text = cell.strip()
        found = re.fullmatch(r"([0-9]{1,18})(\.0*)?", text)
        if found is None:
            raise _Problem(f"id is {words(cell)}; allowed: numbers of records that were queried")
        id = int(found[1])
        if id >= self.size:
            raise _Problem(f"id {id} is unknown; ids of this pool are 0 to {self.size - 1}")
        if id not in self.queried:
            raise _Problem(f"id {id} was not queried; only ids in files of this run's queries can be answered")
        return id


def texts(path: Path) -> dict[int, dict[str, str]]:
    """``{id: {column: text}}`` of what people are shown of each record in a CSV file of a query.

    Raises:
        BadLabelFile: it is no such file.
    """
    with Lines.of(path, LARGEST) as lines:
        return {
            int(row["id"]): {name: cell for name, cell in row.items() if name not in _OWN}
            for _, row in _csv_rows(path, lines)
            if re.fullmatch(r"[0-9]{1,18}", row["id"])
        }


class _Problem(Exception):
    """Hold what is wrong with a row."""


def _csv_rows(path: Path, lines: Lines) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            start, line = line, lines.number + 1
            if not cells:
                continue
            if columns is None:
                columns = _columns(path, [cell.strip() for cell in cells], start)
            elif len(cells) != len(columns):
                there = f"{len(cells)} cells where the first line has {len(columns)} columns"
                raise BadLabelFile(path, [f"line {start}: {there}; is the file whole?"])
            elif any(cell.strip() for cell in cells):
                yield start, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise BadLabelFile(path, [f"line {lines.number}: {error}; is the file whole?"]) from None
    lines.check_end()


def _columns(path: Path, columns: list[str], line: int) -> list[str]:
    missing = [name for name in ("id", "label") if name not in columns]
    if missing:
        there = ", ".join(words(name) for name in columns[:20])
        raise BadLabelFile(
            path, [f"line {line}: no column {' and no column '.join(missing)}; there are {there}, separated by commas"]
        )
    if {"annotation_id", "lead_time"} <= set(columns):
        said = "it is an export of Label Studio, where id is a task's; the run reads the project itself when it goes on"
        raise BadLabelFile(path, [f"line {line}: {said}"])
    twice = [name for name in _OWN if columns.count(name) > 1]
    if twice:
        raise BadLabelFile(path, [f"line {line}: column {twice[0]} is there twice; leave one of the two"])
    return columns


def _json_rows(path: Path, lines: Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    for line in lines:
        number = lines.number
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except _Problem as problem:
            raise BadLabelFile(path, [f"line {number}: {problem}"]) from None
        except (ValueError, RecursionError):
            raise BadLabelFile(path, [f"line {number}: it is not JSON; is the file whole?"]) from None
        if not isinstance(row, dict) or "id" not in row or "label" not in row:
            raise BadLabelFile(path, [f"line {number}: it is no object with id and label"])
        for name, wrong in _NO_CELL.items():
            if isinstance(row.get(name), wrong):
                shown = words(json.dumps(row[name]))
                raise BadLabelFile(path, [f"line {number}: {name} is {shown}; allowed: text, or a number"])
        yield number, {**row, **{name: _cell(row[name]) for name in _NO_CELL if name in row}}
    lines.check_end()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no name is there twice: readers would take one of the two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Problem(f"{words(twice)} is there twice; leave one of the two")
    return found


def _cell(value: Any) -> str:
    """A JSON value as the text of a cell."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def safe(value: Any) -> str:
    """Text for a CSV cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return text if isinstance(value, int | float) else guarded(text)


def row_writer(out: IO[str]) -> Callable[[Sequence[Any]], None]:
    """Return what writes rows of CSV; a lone carriage return is quoted, too, which the csv module leaves as it is."""
    plain = csv.writer(out, lineterminator="\n")
    quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(cells: Sequence[Any]) -> None:
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)

    return write


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of a query, as it is written for people."""

    id: int
    key: Any
    columns: Mapping[str, Any]
    ask: int = 1


def as_csv(rows: Sequence[Row], *, asks: bool) -> str:
    """A query as CSV with an empty label column.

    Raises:
        PoolError: a user's column has a name of ours, or a cell that could not be read back.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.columns))
    taken = [name for name in names if name in _OWN]
    if taken:
        raise PoolError(
            f"columns= has a column {taken[0]!r}; {', '.join(_OWN)} have a meaning in label files: rename it."
        )
    out = io.StringIO(newline="")
    write = row_writer(out)
    write(["id", "key", *map(safe, names), *(["ask"] if asks else []), "label"])
    for row in rows:
        cells = [safe(row.columns.get(name)).replace("\0", "") for name in names]
        long = next((n for n, cell in zip(names, cells, strict=True) if len(cell) >= _LONGEST_CELL), None)
        if long is not None:
            raise PoolError(
                f"column {long!r} of id {row.id} has {len(str(row.columns[long])):,} characters; a cell holds "
                f"{_LONGEST_CELL - 1:,}. Write the text to a file and give its path."
            )
        write([row.id, safe(row.key), *cells, *([row.ask] if asks else []), ""])
    return out.getvalue()


def as_json_lines(rows: Sequence[Row], *, asks: bool) -> str:
    """The same as JSON Lines, with ``"label": null``."""
    lines = []
    for row in rows:
        key = row.key if isinstance(row.key, int | str) and not isinstance(row.key, bool) else str(row.key)
        record = {"id": row.id, "key": key, **row.columns, **({"ask": row.ask} if asks else {}), "label": None}
        lines.append(json.dumps(record, default=str, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)
