"""The labelled records of a run with where each label is from, for export."""

from __future__ import annotations

import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from al_lightning.errors import MissingExtra
from al_lightning.pool.label_cell import TASKS, Language
from al_lightning.pool.label_codec import decode
from al_lightning.pool.label_file import safe
from al_lightning.store import reading

COLUMNS = ("id", "key", "label", "round", "score", "when", "who", "source")
"""Of an export. Class names where the run has them; ``when`` is UTC; what an older version did not note is empty.

A label that is no number, text or list of them is its JSON text, which ``label_codec.decode`` reads.
"""


def labelled_rows(folder: Path) -> list[dict[str, Any]]:
    """One row per labelled record, in the order of labelling. The run is only read.

    Args:
        folder: the run folder.

    Raises:
        ActiveLearningError: no run is there.
    """
    with reading(folder) as db:
        meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
        picked = {id: (round, score) for id, round, score in db.execute("SELECT id, round, score FROM query")}
        labels = db.execute("SELECT id, value FROM label WHERE NOT skipped ORDER BY seq").fetchall()
        keys: dict[int, str] = {}
        said: dict[int, tuple[str, str, str]] = {}
        if db.execute("PRAGMA user_version").fetchone()[0] >= 2:
            keys = dict(db.execute("SELECT id, key FROM record_key"))
            said = {i: rest for i, *rest in db.execute("SELECT id, at, who, source FROM audit ORDER BY seq")}
    task, rules = meta["config"]["task"], meta.get("labelling") or {}
    language = Language(task=task, classes=rules.get("classes")) if rules and task in TASKS else None
    rows = []
    for id, value in labels:
        label = decode(value)
        round, score = picked[id]
        at, who, source = said.get(id, ("", "", ""))
        if language is not None and language.names is not None:
            label = language.write(label)
        elif not isinstance(label, int | float | str | list):
            label = label.tolist() if task in TASKS and hasattr(label, "tolist") else value
        values = (id, keys.get(id, str(id)), label, round, score, at, who, source)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def write_csv(rows: list[dict[str, Any]], file: IO[bytes]) -> None:
    """Write rows as CSV; no cell is a formula, lists are separated by ``;``."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([safe(_cell(row[name])) if name != "label" else _label(row[name]) for name in COLUMNS])
    file.write(out.getvalue().encode())


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else json.dumps(value)


def _label(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(_label(part) for part in value)
    return safe(value) if isinstance(value, str) else json.dumps(value)


def write_parquet(rows: list[dict[str, Any]], file: IO[bytes]) -> None:
    """Write rows as Parquet.

    Raises:
        MissingExtra: pandas or pyarrow is not installed.
    """
    if any(find_spec(name) is None for name in ("pandas", "pyarrow")):
        raise MissingExtra("pandas with pyarrow", "parquet", "export to Parquet")
    import pandas

    pandas.DataFrame(rows, columns=list(COLUMNS)).to_parquet(file, engine="pyarrow", index=False)
