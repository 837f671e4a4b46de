"""Kills runs with SIGKILL at chosen points and lets another process go on; run as a program by test_kills.py.

Imports once, and forks before any work, so that each point costs two runs and no start of Python.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.errors import RunLocked
from al_lightning.fit import resume as fit_resume
from al_lightning.oracles import file_oracle
from al_lightning.oracles.file_oracle import FileOracle
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.query import Margin
from al_lightning.run.store import Store, read_run
from benchmarks.syscalls import forked
from tests.helpers import Net, learner, net, pool_of

POINTS = ("first ask", "scoring", "ask", "answering", "training", "validation", "after a round", "last fit")
PEOPLE = ("before a file of a query", "between its files", "after its files", "before an import", "after an import")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dies(Net):
    """A module that dies in its second fit, or in its third and last."""

    def __init__(self, point: str | None) -> None:
        super().__init__()
        self.load_state_dict(net().state_dict())
        self.point, self.fits = point, 0
        self.epochs: list[int] = []

    def on_fit_start(self) -> None:
        self.fits += 1

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.epochs.append(self.current_epoch)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1 and (self.point, self.fits) in {("training", 2), ("last fit", 3)}:
            die()
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.point == "validation" and self.fits == 2 and self.current_epoch == 1:
            die()
        super().validation_step(batch, batch_idx)


class DyingOracle(FunctionOracle):
    """Dies when asked, or between two answers."""

    point: str | None = None

    def ask(self, request: Any) -> None:
        if (self.point, request.round) in {("first ask", 1), ("ask", 2)}:
            die()
        self.round = request.round
        super().ask(request)


class DyingMargin(Margin):
    """Dies while the candidates are inferred."""

    def payload(self, outputs: Any) -> Any:
        die()
        return super().payload(outputs)


def run(folder: Path, point: str | None) -> None:
    """One start of the program."""
    model = Dies(point)

    def label(id: int) -> int:
        with open(folder.parent / "asked", "a") as file:
            file.write(f"{id}\n")
        asked.append(id)
        if point == "answering" and oracle.round == 2 and len(asked) == 15:
            die()
        return id % 3

    asked: list[int] = []
    oracle = DyingOracle(label)
    oracle.point = point
    query = DyingMargin() if point == "scoring" else Margin()
    query.__class__.__qualname__ = "Margin"  # the same configuration

    def on_round(record: Any, module: Any) -> None:
        if point == "after a round" and record.round == 2:
            die()

    made = learner(folder, query=query, oracle=oracle, on_round=on_round, fit=WarmStart("keep", final="initial"))
    result = made.fit(model, datamodule=pool_of())
    summary = {
        "labelled": result.labelled.tolist(),
        "labels": result.bill.labels,
        "weight": model.net[0].weight.tolist(),
        "epochs": [r.epochs for r in result.history],
        "trained": model.epochs,
        "asked": [int(line) for line in (folder.parent / "asked").read_text().split()],
    }
    (folder.parent / "result.json").write_text(json.dumps(summary))


def people(folder: Path, point: str | None) -> None:
    """One start of a program that people answer in files; dies in its second round."""
    write, commit, files = file_oracle.write_aside, Store.commit, 0

    def written(path: Path, *args: Any) -> None:
        nonlocal files
        second = path.name.startswith("round-002.")
        if second and (files, point) in {(0, PEOPLE[0]), (1, PEOPLE[1])}:
            die()
        write(path, *args)
        files += second
        if files == 2 and point == PEOPLE[2]:
            die()

    def committed(store: Store, change: Any) -> None:
        import_ = change.round == 2 and change.statements
        if import_ and point == PEOPLE[3]:
            die()
        commit(store, change)
        if import_ and point == PEOPLE[4]:
            die()

    file_oracle.write_aside, Store.commit = written, committed  # type: ignore[assignment, method-assign]
    made = learner(folder, oracle=FileOracle(), fit=WarmStart("keep", final="initial"))
    model = net()
    result = made.fit(model, datamodule=pool_of())
    saved = read_run(folder)
    summary = {
        "waits": result.reason.numbers.get("file"),
        "labelled": result.labelled.tolist(),
        "weight": model.net[0].weight.tolist(),
        "answers": [[i, value] for i, value in saved.answers.items()],
        "statements": len(saved.statements),
    }
    (folder.parent / "result.json").write_text(json.dumps(summary))


def answered(folder: Path, point: str | None) -> dict[str, Any]:
    """Start it, type, and start it again, until it waits no more; killed once on the way."""
    killed = 0
    while True:
        status = in_child(partial(people, folder, None if killed else point))
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        found: dict[str, Any] = json.loads((folder.parent / "result.json").read_text())
        if found["waits"] is None:
            return {"killed": killed, **found}
        path = Path(found["waits"])
        head, *rows = path.read_text().splitlines()
        typed = [f"{row.split(',')[0]},{row.split(',')[1]},{int(row.split(',')[0]) % 3}" for row in rows]
        path.write_text("\n".join([head, *typed]) + "\n")


def in_child(action: Callable[[], None]) -> int:
    """Status of a forked process that did it."""
    return os.waitpid(forked(action), 0)[1]


def locked(folder: Path) -> dict[str, Any]:
    """What a second process is told while a first one works on the folder."""
    told, go_on = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:

        def wait(id: int) -> int:
            os.write(told[1], b"x")
            os.read(go_on[0], 1)
            return id % 3

        os.close(go_on[1])
        learner(folder, oracle=FunctionOracle(wait)).fit(net(), datamodule=pool_of())
        os._exit(0)
    os.read(told[0], 1)
    message = ""
    try:
        learner(folder).fit(net(), datamodule=pool_of())
    except RunLocked as error:
        message = str(error)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    return {"pid": holder, "message": message}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fit_resume.SAVE_SECONDS, fit_resume.SHARE = 0.0, math.inf  # every epoch is kept, as in fits that take longer
    root = Path(sys.argv[1])
    report: dict[str, Any] = {}
    for point in (None, *POINTS):
        name = (point or "whole").replace(" ", "-")
        folder = root / name / "run"
        folder.parent.mkdir()
        status = in_child(partial(run, folder, point))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed:
            in_child(partial(run, folder, None))
        report[point or "whole"] = {"killed": killed, **json.loads((folder.parent / "result.json").read_text())}
    for place in (None, *PEOPLE):
        folder = root / (place or "answered").replace(" ", "-") / "run"
        folder.parent.mkdir()
        report[place or "answered"] = answered(folder, place)
    report["locked"] = locked(root / "locked")
    (root / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
