"""The labelled records of a run with where each label is from, for export."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from al_lightning.errors import ActiveLearningError, MissingExtra
from al_lightning.oracles.label_cell import Language, bare, guarded, language_of
from al_lightning.oracles.label_file import row_writer, safe
from al_lightning.pool.label_codec import encode, shortened
from al_lightning.run.lines import from_text
from al_lightning.run.reading import checked, reading
from al_lightning.run.schema import rows

COLUMNS = ("id", "key", "label", "round", "score", "when", "who", "source")
"""Of an export. Class names where the run has them; ``when`` is UTC; what an older version did not note is empty."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled records of a run.

    Args:
        rows: one per record, in the order of the rounds, with all of :data:`COLUMNS`.
        task: of the pool.
        language: how labels are written in cells; None where they fit none.
    """

    rows: list[dict[str, Any]]
    task: str
    language: Language | None

    def cell(self, row: Mapping[str, Any]) -> str:
        """Write the label of a row as a cell that reads back as the same label.

        Raises:
            ActiveLearningError: no cell does.
        """
        label, language = row["label"], self.language
        try:
            cell = "" if language is None else language.write(label)
            if language is not None and bare(language.read(cell)) == bare(label):
                return cell if self.task == "regression" else guarded(cell)
        except ValueError:
            pass
        raise ActiveLearningError(
            f"the label of id {row['id']} is {shortened(label)}, and task={self.task!r} has no cell for it: "
            "export --format jsonl has it as it is."
        )


def labelled_rows(folder: Path) -> Labelled:
    """Every labelled record, in the order of the rounds. The run is only read.

    Args:
        folder: the run folder.

    Raises:
        ActiveLearningError: no run is there.
    """
    with checked(folder), reading(folder) as db:
        meta = {key: json.loads(value) for key, value in rows(db, "meta", folder)}
        picked = {id: (round, score) for round, _, id, score, _ in rows(db, "query", folder)}
        labels = [(id, value) for _, id, value, skipped in rows(db, "label", folder) if not skipped]
        keys: dict[int, str] = dict(rows(db, "record_key", folder))
        said = {id: (at, who, source) for _, id, at, who, source, *_ in rows(db, "audit", folder)}
    found = []
    for id, value in labels:
        round, score = picked[id]
        values = (id, keys.get(id, str(id)), from_text(value), round, score, *said.get(id, ("", "", "")))
        found.append(dict(zip(COLUMNS, values, strict=True)))
    task, classes = meta["config"]["task"], (meta.get("labelling") or {}).get("classes")
    return Labelled(rows=found, task=task, language=language_of(task, classes, (row["label"] for row in found)))


def write_csv(labelled: Labelled, file: IO[bytes]) -> None:
    """Write rows as CSV that ``al-lightning label`` reads back; no cell is a formula.

    Raises:
        ActiveLearningError: a label that fits no cell.
    """
    out = io.StringIO(newline="")
    write = row_writer(out)
    write(COLUMNS)
    for row in labelled.rows:
        write([safe(_cell(row[name])) if name != "label" else labelled.cell(row) for name in COLUMNS])
    file.write(out.getvalue().encode())


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else json.dumps(value)


def write_json_lines(labelled: Labelled, file: IO[bytes]) -> None:
    """Write rows as JSON Lines that ``al-lightning label`` reads back, labels that fit no cell among them."""
    write = labelled.language.write_json if labelled.language else (lambda label: json.loads(encode(label)))
    for row in labelled.rows:
        file.write(json.dumps({**row, "label": write(row["label"])}, ensure_ascii=False).encode() + b"\n")


def write_parquet(labelled: Labelled, file: IO[bytes]) -> None:
    """Write rows as Parquet, class names where the run has them.

    Raises:
        MissingExtra: pandas or pyarrow is not installed.
    """
    if any(find_spec(name) is None for name in ("pandas", "pyarrow")):
        raise MissingExtra("pandas with pyarrow", "parquet", "export to Parquet")
    import pandas

    rows = [{**row, "label": _plain(labelled, row)} for row in labelled.rows]
    pandas.DataFrame(rows, columns=list(COLUMNS)).to_parquet(file, engine="pyarrow", index=False)


def _plain(labelled: Labelled, row: Mapping[str, Any]) -> Any:
    """A label as a column of a table holds it: a name, numbers, or the text that ``label_codec.decode`` reads."""
    label, language = row["label"], labelled.language
    if language is not None and language.names is not None:
        return labelled.cell(row)
    if isinstance(label, int | float | str | list):
        return label
    return bare(label) if language is not None else encode(label)
