"""Files of every kind thrown at ``al-lightning label``: each goes in whole, or is refused by name and changes nothing.

    python -m benchmarks.fuzz                   # 100,000 files
    python -m benchmarks.fuzz --inputs 400      # fewer; writes nothing

Each file is a query that somebody filled in, damaged at up to three levels: cells (numbers no class has, formulas,
paths, any text), the table (columns gone, twice or renamed, other separators, JSON of other types) and bytes (another
encoding, cut off, spliced with others). The whole command runs on it, on a run folder that waits for labels:

- *uncaught*: anything but exit code 0, or 1 with an error of ours that names the file;
- *half imports*: the file was refused and the run folder's database holds something else than before; or it was taken,
  and the answers in the database are not those that the standard library's readers find in the file;
- *files changed*: the file is no longer what was thrown.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from al_lightning import ActiveLearner, PoolDataModule
from al_lightning.cli.people import people
from al_lightning.cli.problems import Classifier
from al_lightning.errors import MissingExtra
from al_lightning.oracles import FileOracle
from al_lightning.query import Random
from al_lightning.round_size import Fixed
from benchmarks.common import barebones_trainer, claim, write_results

try:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingExtra("hypothesis", "bench", "the fuzz of label files") from error

INPUTS = 100_000
DAMAGED = 3
"""Further files that are made of each by damage to its bytes."""
RECORDS, ASKED = 40, 12
Row = dict[str, Any]
Answer = tuple[int, str, str]
"""Record, ask, annotator."""


@dataclass(frozen=True)
class Case:
    """A run that waits for labels.

    Args:
        task: of its pool.
        classes: of its oracle.
        labels: cells that are right.
        keys: whether its records have keys of their own.
    """

    task: str
    classes: Any
    labels: Sequence[Any]
    keys: bool = False


CASES = {
    "class numbers": Case("multiclass", 3, ["0", "1", "2", "2.0", "skip", "", 0, 1, 2, None]),
    "class names": Case("multiclass", ["cat", "dög", "a, b"], ["cat", "dög", "a, b", " cat", "SKIP", ""], keys=True),
    "multilabel": Case("multilabel", 3, ["0", "0;2", "none", "skip", "", "1 ; 2", [0, 2], [], None]),
    "regression": Case(
        "regression", None, ["0.5", "-1e3", "1;2", "skip", "", ".5", 0.5, -1, [1, 2.5], None], keys=True
    ),
}


def waiting_run(case: Case, folder: Path) -> list[int]:
    """Make a run that waits for its first labels; the ids it asked for."""
    x = torch.randn(RECORDS, 4, generator=torch.Generator().manual_seed(0))
    pool = PoolDataModule(
        TensorDataset(x, torch.zeros(RECORDS, dtype=torch.int64)),
        task=case.task,
        keys=[_key(case, i) for i in range(RECORDS)] if case.keys else None,
    )
    oracle = FileOracle(classes=case.classes)
    learner = ActiveLearner(
        barebones_trainer(1), query=Random(), round_size=Fixed(ASKED), oracle=oracle, run_dir=folder
    )
    learner.fit(Classifier(4, 3), datamodule=pool)
    with (folder / "queries" / "round-001.csv").open(newline="") as file:
        return [int(row["id"]) for row in csv.DictReader(file)]


def _key(case: Case, id: int) -> str:
    return f"scan-{id:03d}.png" if case.keys else str(id)


# ---- what is thrown -------------------------------------------------------------------------------------------------

_WEIRD = [
    "=cmd()",
    "+1",
    "../../etc/passwd",
    "9",
    "-1",
    "1e9",
    "nan",
    "inf",
    "\0",
    "1;;2",
    ";",
    "skip ",
    "None",
    "\uff11",
    "🙂",
]
_WEIRD_JSON = [True, 3.5, 10**30, float("nan"), {"id": 1}, [[1]], [None], "", -0.0]
_NAMES = ["id", "label", "key", "text", "ask", "annotator", "ID", "label ", "", "=x"]
_TABLES = [("id", "label"), ("id", "key", "label"), ("id", "key", "text", "label"), ("id", "ask", "annotator", "label")]
_SPLICES = [
    b"\0",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"{",
    b"}",
    b"\\u0000",
    b"\xed\xa0\x80",
]


@st.composite
def files(draw: Callable[..., Any], case: Case, ids: Sequence[int]) -> tuple[str, list[bytes]]:
    """A file's suffix, and its bytes: as they are, then damaged in several ways."""
    json_lines = draw(st.booleans())
    columns = list(draw(st.sampled_from(_TABLES)))
    rows = [
        {
            "id": id,
            "key": _key(case, id),
            "text": draw(st.sampled_from(["", "plain", 'a "b",\nc', "=1+1"])),
            "ask": draw(st.sampled_from(["1", "1", "2", ""])),
            "annotator": draw(st.sampled_from(["", "ann", "bob"])),
            "label": draw(
                st.sampled_from(case.labels if json_lines else [v for v in case.labels if isinstance(v, str)])
            ),
        }
        for id in draw(st.lists(st.sampled_from(ids), max_size=5))
    ]
    weird = st.one_of(st.sampled_from(_WEIRD), st.text(max_size=6), st.integers(-2, RECORDS + 2).map(str))
    if json_lines:
        weird = st.one_of(weird, st.sampled_from(_WEIRD_JSON))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])) if rows else 0):
        draw(st.sampled_from(rows))[draw(st.sampled_from(columns))] = draw(weird)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        at = draw(st.integers(0, len(columns) - 1))
        columns[at : at + draw(st.integers(0, 1))] = [draw(st.sampled_from(_NAMES))]
    text = _json_lines(rows, columns) if json_lines else _csv(rows, columns, draw(st.sampled_from(",,,,,,,,;\t")))
    data = text.encode(draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1"])), errors="replace")
    variants = [data]
    for _ in range(DAMAGED):
        at = draw(st.integers(0, len(data)))
        put = draw(st.one_of(st.sampled_from(_SPLICES), st.binary(max_size=4)))
        variants.append(data[:at] + put + data[at + draw(st.sampled_from([0, 0, 1, 7, len(data)])) :])
    kinds = [".jsonl", ".JSONL"] if json_lines else [".csv", ".CSV"]
    return draw(st.sampled_from(kinds * 5 + [".csv", ".jsonl", ".txt"])), variants


def _csv(rows: Sequence[Row], columns: Sequence[str], separator: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator)
    writer.writerow(columns)
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return out.getvalue()


def _json_lines(rows: Sequence[Row], columns: Sequence[str]) -> str:
    return "".join(json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) + "\n" for row in rows)


# ---- what came of it ------------------------------------------------------------------------------------------------


def filled(path: Path) -> set[Answer]:
    """The answers in a file that was taken, by the standard library's readers."""
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix.lower() == ".jsonl":
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    else:
        columns, *lines = [cells for cells in csv.reader(io.StringIO(text, newline="")) if cells]
        rows = [dict(zip([name.strip() for name in columns], cells, strict=True)) for cells in lines]
    given = [row for row in rows if row["label"] is not None and str(row["label"]).strip()]
    return {(int(float(row["id"])), _text(row.get("ask")) or "1", _text(row.get("annotator"))) for row in given}


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _dump(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return "\n".join(db.iterdump())


def _stored(folder: Path) -> set[Answer]:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return {(id, str(ask), who) for id, ask, who in db.execute("SELECT id, ask, who FROM statement")}


def fuzz(name: str, inputs: int, folder: Path) -> Row:
    """Throw files at one run; how many came out how."""
    case, run, untouched = CASES[name], folder / "run", folder / "untouched"
    ids = waiting_run(case, run)
    shutil.copytree(run, untouched)
    before = _dump(run)
    row: Row = {"case": name, "inputs": 0, "taken": 0, "answers": 0, "refused": 0}
    row |= {"uncaught": 0, "half_imports": 0, "files_changed": 0, "failures": []}

    def failed(what: str, suffix: str, data: bytes, why: str) -> None:
        row[what] += 1
        if len(row["failures"]) < 5:
            row["failures"].append({"what": what, "suffix": suffix, "bytes": data.hex(), "why": why[-300:]})

    def throw(suffix: str, data: bytes) -> None:
        path = folder / f"answers{suffix}"
        path.write_bytes(data)
        row["inputs"] += 1
        said, code = io.StringIO(), None
        try:
            with redirect_stderr(said), redirect_stdout(said):
                code = people("label", [str(run), str(path)])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is a finding
            failed("uncaught", suffix, data, repr(error))
        if path.read_bytes() != data:
            failed("files_changed", suffix, data, "")
        if code == 0:
            stored = _stored(run)
            try:
                expected: object = filled(path)
            except Exception as error:  # a file that the standard library cannot read was taken
                expected = repr(error)
            row["taken"] += 1
            row["answers"] += len(stored)
            if stored != expected or not {id for id, _, _ in stored} <= set(ids):
                failed("half_imports", suffix, data, f"{stored} in the database, {expected} in the file")
        else:
            row["refused"] += 1
            if code == 1 and not (said.getvalue().startswith("BadLabelFile: ") and path.name in said.getvalue()):
                failed("uncaught", suffix, data, said.getvalue())
        if (changed := _dump(run) != before) and code != 0:
            failed("half_imports", suffix, data, "refused, and the database has changed")
        if changed:
            shutil.rmtree(run)
            shutil.copytree(untouched, run)
        path.unlink()

    def throw_all(made: tuple[str, list[bytes]]) -> None:
        for data in made[1][: inputs - row["inputs"]]:
            throw(made[0], data)

    drawn = settings(
        max_examples=inputs // DAMAGED,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    drawn(given(files(case, ids))(throw_all))()
    return row


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=INPUTS)
    inputs = parser.parse_args().inputs
    rows = []
    for name in CASES:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows.append(fuzz(name, -(-inputs // len(CASES)), Path(folder)))
        rows[-1]["seconds"] = round(time.perf_counter() - start, 1)
        print({key: value for key, value in rows[-1].items() if key != "failures"})
        for failure in rows[-1]["failures"]:
            print(failure, file=sys.stderr)
    total = {key: sum(row[key] for row in rows) for key in ("inputs", "uncaught", "half_imports", "files_changed")}
    claims = [claim("inputs", total.pop("inputs"), ">=", INPUTS), *(claim(k, v, "==", 0) for k, v in total.items())]
    if inputs >= INPUTS:
        print(write_results("fuzz", "python -m benchmarks.fuzz", rows, claims))
    return 0 if all(c["holds"] for c in claims[1:]) else 1


if __name__ == "__main__":
    sys.exit(main())
