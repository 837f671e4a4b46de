"""People who answer, correct and go on writing, for benchmarks/crash_parts.py."""

from __future__ import annotations

import csv
import io
import random
import time
from collections.abc import Callable
from pathlib import Path

from al_lightning.oracles import SKIP
from al_lightning.run.store import read_run

RECORDS, NAMES = 90, ["cat", "dog", "owl"]


def answer(folder: Path, truth: Callable[[int], str], round: int, most: int = RECORDS) -> bool:
    """Type answers into the file of a query, some of those that are missing; whether any were."""
    path = folder / "run" / "queries" / f"round-{round:03d}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    open_rows = [row for row in rows if row["label"] != truth(int(row["id"]))][:most]
    for row in open_rows:
        row["label"] = truth(int(row["id"]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    aside = path.with_suffix(".typed")  # as an editor saves
    aside.write_text(text.getvalue(), newline="")
    aside.replace(path)
    return bool(open_rows)


def of_class(id: int) -> str:
    """The class of a record."""
    return NAMES[id % len(NAMES)]


def mistaken(id: int) -> str:
    """What people think at first of every fourth record."""
    return NAMES[(id + (id % 4 == 0)) % len(NAMES)]


def waiting(folder: Path) -> bool:
    """Whether the run waits for answers."""
    return read_run(folder / "run").step == "label"


def answers(folder: Path) -> bool:
    """Answer what is asked, half of it at first; whether the run is over."""
    saved = read_run(folder / "run")
    if saved.step != "label":
        return True
    left = len(saved.open_ids)
    answer(folder, of_class, len(saved.queries), most=left // 2 if left == len(saved.queries[-1]) else left)
    return False


def corrects(folder: Path) -> bool:
    """Answer by what people think at first, and correct it all once the run has ended."""
    saved = read_run(folder / "run")
    if saved.step == "label":
        answer(folder, mistaken, len(saved.queries))
        return False
    wrong = [i for i, label in saved.answers.items() if label is not SKIP and NAMES[label] != of_class(i)]
    for round in range(1, len(saved.queries) + 1):
        answer(folder, of_class, round)
    return not wrong


def writes(folder: Path, rng: random.Random) -> None:
    """Answer one record after another in the newest file there is, whatever the program does."""
    while True:
        time.sleep(rng.uniform(0.01, 0.1))
        files = sorted((folder / "run" / "queries").glob("round-*.csv"))
        if files:
            answer(folder, of_class, int(files[-1].stem[-3:]), most=rng.randint(1, 4))
