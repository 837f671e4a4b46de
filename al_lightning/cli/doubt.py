"""``al-lightning doubt``: labels that a model contradicts, as a file of answers to give again."""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from al_lightning.cli.labelling import Labelling
from al_lightning.cli.say import no_collection, say, say_error
from al_lightning.errors import ActiveLearningError, OutputMismatch
from al_lightning.oracles.label_cell import Language, guarded
from al_lightning.oracles.label_file import row_writer, safe
from al_lightning.oracles.oracle import SKIP
from al_lightning.pool.suspects import suspects
from al_lightning.run.durable import write_aside
from al_lightning.run.reading import read_run

COLUMNS = ("id", "key", "was", "model", "annotator", "label")
"""Of the file; ``label`` is empty, and what is typed there is the new word of ``annotator``, who gave the old label."""


def doubt(arguments: Sequence[str]) -> int:
    """Write the labels that a model contradicts as a file to answer again, the firmest doubts first.

    Args:
        arguments: of the command line, the verb excluded.

    Returns:
        Exit code: 0, or 1 for an error.
    """
    parser = argparse.ArgumentParser(
        prog="al-lightning doubt",
        description="Labels that a model contradicts, as a file to answer again. The run is only read.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument(
        "probabilities",
        metavar="FILE.npy",
        type=Path,
        help="a row of class probabilities for each record of the pool, NaN where there is none: of records that the "
        "model was not trained on",
    )
    parser.add_argument("-o", "--out", metavar="FILE.csv", type=Path, help="default: doubted.csv in the run folder")
    options = parser.parse_args(arguments)
    out = options.out or options.run / "doubted.csv"
    try:
        with no_collection():
            labelling = Labelling(options.run, read_run(options.run))
            rows, asked = _rows(labelling, _probabilities(options.probabilities, labelling.size))
            if out.exists():
                raise ActiveLearningError(f"{out} is there already, perhaps with answers in it. Give another -o.")
            write_aside(out, lambda file: file.write(_as_csv(rows)))
    except ActiveLearningError as error:
        say_error(error)
        return 1
    then = f": type better labels into {out}, then al-lightning label {options.run} {out}" if rows else ""
    say(Console(), f"{len(rows)} of {asked} labels are contradicted{then}")
    return 0


def _probabilities(path: Path, size: int) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ActiveLearningError(f"{path} cannot be read as an array of NumPy ({error}): np.save it.") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != size or found.dtype.kind != "f":
        shape = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise OutputMismatch(f"{path} holds {shape}; allowed: floating-point numbers of shape ({size}, classes).")
    return found


def _rows(labelling: Labelling, probabilities: np.ndarray) -> tuple[list[tuple[str, ...]], int]:
    """Return a row for each label that is contradicted, and how many labels there are probabilities for."""
    if labelling.task not in ("multiclass", "binary"):
        raise ActiveLearningError(f"task={labelling.task!r} has no one class per record; allowed: multiclass, binary.")
    saved = labelling.saved
    language = Language(task=labelling.task, classes=labelling.rules.get("classes"))
    ids = np.array([i for i, value in saved.answers.items() if value is not SKIP], dtype=np.int64)
    ids = ids[~np.isnan(probabilities[ids]).any(axis=1)]
    own = np.asarray(probabilities[ids], dtype=np.float64)
    labels = np.array([int(saved.answers[i]) for i in ids.tolist()], dtype=np.int64)
    found = suspects(labels, own).tolist()
    cells = [(language.write(int(labels[k])), language.write(int(own[k].argmax()))) for k in found]
    people: dict[int, set[str]] = defaultdict(set)
    for said in saved.statements:
        people[said.id].add(said.who)
    rows: list[tuple[str, ...]] = []
    for i, (was, model) in zip(ids[found].tolist(), cells, strict=True):
        who = people[i].pop() if len(people[i]) == 1 else ""  # of several, whoever answers again says who they are
        rows.append((str(i), safe(saved.keys.get(i, i)), guarded(was), guarded(model), safe(who), ""))
    return rows, len(ids)


def _as_csv(rows: Sequence[tuple[str, ...]]) -> bytes:
    out = io.StringIO(newline="")
    write = row_writer(out)
    for row in (COLUMNS, *rows):
        write(row)
    return out.getvalue().encode()
