"""Runs of many kinds, killed at random, for ``python -m benchmarks.crash``: all end as one that was never killed.

Each kind is a small program: a proxy that selects, a frozen trunk whose activations are cached, fits that stall and
begin again, a last fit of what is left of rho, labels that people correct after the end, people who go on writing
while the program starts, a comparison and a sweep of the command line (benchmarks/crash_ray.py has those scored on
Ray). Nothing is patched: fits are kept as seldom as in any run. ``kill -9`` after a random time, and again after
another one, until the program has ended.

What is compared: labelled ids in their order, their labels, queries, records trained on beside what was lost, metrics
of every round, and all weights that the run delivers.
"""

from __future__ import annotations

import os
import random
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from al_lightning import ActiveLearner, PoolDataModule, StallDetection, WarmStart
from al_lightning.candidates import RotatingSubset
from al_lightning.cli.main import main as command
from al_lightning.cli.problems import Classifier
from al_lightning.features import RawInputs
from al_lightning.oracles import FileOracle
from al_lightning.query import DistanceWeighted, Margin
from al_lightning.round_size import Listed
from al_lightning.run.durable import read_tensors
from al_lightning.run.store import Saved, read_run
from benchmarks.crash_people import NAMES, RECORDS, answers, corrects, waiting, writes
from benchmarks.syscalls import forked

BATCH = 4
KILLED = "killed"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A kind of run.

    Args:
        program: one start of it, given a folder of its own.
        kills: how many there are to be.
        changes: what people do after a start has ended, if the run is not over then; returns whether it is.
        meanwhile: what goes on in another process while a program runs.
        left_alone: the program is not killed; what goes on meanwhile kills others, not in the undisturbed run, and
            writes a line into :data:`KILLED` for each.
    """

    program: Callable[[Path], None]
    kills: int
    changes: Callable[[Path], bool] = lambda folder: True
    meanwhile: Callable[[Path, random.Random], None] | None = None
    left_alone: bool = False


class Stalls(Classifier):
    """Starts dead: nothing moves until its weights are drawn anew."""

    def __init__(self) -> None:
        super().__init__(4, len(NAMES), hidden=(8,))
        with torch.no_grad():
            for layer in (m for m in self.modules() if isinstance(m, nn.Linear)):
                layer.weight.zero_()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        alive = all(bool(p.any()) for name, p in self.named_parameters() if name.endswith("weight"))
        return loss if alive else 0 * loss + 3.0


def learn(
    folder: Path,
    model: L.LightningModule | None = None,
    wrapped: Callable[[Dataset[Any]], Dataset[Any]] = lambda data: data,
    **parts: Any,
) -> None:
    """What a user's program does."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(RECORDS + 9) % len(NAMES)
    x = torch.randn(RECORDS + 9, 4, generator=generator) + 2 * torch.eye(4)[y]
    L.seed_everything(0, verbose=False)
    model = model or Classifier(4, len(NAMES), hidden=(8,))
    if "proxy" in parts:
        parts["proxy"] = Classifier(4, len(NAMES), hidden=(4,))
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    pool = PoolDataModule(
        wrapped(TensorDataset(x[:RECORDS], y[:RECORDS])), task="multiclass",
        val=TensorDataset(x[RECORDS:], y[RECORDS:]),
        batch_size=BATCH, features=RawInputs(),
    )  # fmt: skip
    settings = {"query": Margin(), "round_size": Listed([12, 8, 8]), "fit": WarmStart("keep", epochs=2), **parts}
    ActiveLearner(trainer, run_dir=folder / "run", **settings).fit(model, datamodule=pool)


def verb(*arguments: str) -> Callable[[Path], None]:
    """A command, its runs in the folder."""

    def program(folder: Path) -> None:
        code = command([*arguments, f"out={folder}"])
        if code:
            raise SystemExit(code)

    return program


_FRUGAL: Row = {
    "query": DistanceWeighted(Margin()),
    "candidates": RotatingSubset(0.5),
    "fit": WarmStart("keep", epochs=0.25, final="previous", final_epochs=0.25, rho=2.5, stable=True),
}
PARTS: dict[str, Part] = {
    "rho": Part(program=partial(learn, **_FRUGAL), kills=150),
    "proxy": Part(program=partial(learn, proxy=True, fit=WarmStart("keep", final="initial", epochs=2)), kills=150),
    "cached trunk": Part(
        program=partial(learn, fit=WarmStart("keep", freeze=("trunk",), cached=True, final="initial")), kills=150
    ),
    "stall restarts": Part(
        program=lambda folder: learn(
            folder, Stalls(), stop=[StallDetection("train_loss", reference=2.0, patience=2, max_restarts=2)]
        ),
        kills=150,
    ),
    "answers in parts": Part(program=lambda f: learn(f, oracle=FileOracle(classes=NAMES)), kills=100, changes=answers),
    "corrections": Part(program=lambda f: learn(f, oracle=FileOracle(classes=NAMES)), kills=100, changes=corrects),
    "people write meanwhile": Part(
        program=lambda f: learn(f, oracle=FileOracle(classes=NAMES)),
        kills=100,
        changes=lambda f: not waiting(f),
        meanwhile=writes,
    ),
    "compare": Part(
        program=verb("compare", "methods=[random,frugal]", "seeds=[0]", "labels=40", "trainer.max_epochs=16"), kills=60
    ),
    "sweep": Part(
        program=verb("run", "-m", "query=margin,random", "labels=40", "trainer.max_epochs=16", "round_size.rounds=3"),
        kills=60,
    ),
}


def end_of(folder: Path) -> Row:
    """What the runs of a folder came to, by their paths."""
    runs = sorted(path.parent for path in folder.rglob("run.sqlite"))
    return {run.relative_to(folder).as_posix(): _end(run, read_run(run)) for run in runs}


def _end(run: Path, saved: Saved) -> Row:
    names = [name for name in ("weights", "target") if name in saved.files]
    weights = {name: read_tensors(run / saved.files[name]) for name in names}
    return {
        "step": saved.step,
        "labelled": list(saved.answers),
        "labels": list(saved.answers.values()),
        "queries": saved.queries,
        "trained": sum(entry.records for entry in saved.entries if entry.phase == "train"),
        "metrics": [[r.metrics, r.epochs, r.labelled] for r in (*saved.rounds, saved.final) if r is not None],
        "weights": {f"{name} {key}": value.tolist() for name in names for key, value in weights[name].items()},
    }


def one(part: Part, seed: int, seconds: float, whole: Row) -> Row:
    """One run, killed at random until it has ended."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        folder, kills, known = Path(root), 0, dict[tuple[str, int], Any]()
        lost = 0
        while True:
            killed = start(part, folder, 600.0 if part.left_alone else rng.uniform(0, seconds), rng)
            now = dict(labels_in(folder))
            lost += sum(now.get(key) is None for key in known)
            known = now
            kills += killed
            if not killed and part.changes(folder):
                break
        if part.left_alone and (folder / KILLED).exists():
            kills += len((folder / KILLED).read_text().splitlines())
        end = end_of(folder)
    asked = [id for run in end.values() for query in run["queries"] for id in query]
    twice = len(asked) - sum(len({id for query in run["queries"] for id in query}) for run in end.values())
    same = end == whole
    return {"kills": kills, "lost": lost, "twice": twice, "identical": same, "survived": same and not lost}


def labels_in(folder: Path) -> Iterator[tuple[tuple[str, int], Any]]:
    """Every label that a run of the folder has committed."""
    for path in folder.rglob("run.sqlite"):
        with_labels: dict[int, Any] = {}
        try:
            with_labels = read_run(path.parent).answers
        except Exception:  # it has not begun
            continue
        for id, label in with_labels.items():
            yield (path.parent.name, id), label


def start(part: Part, folder: Path, left: float, rng: random.Random) -> bool:
    """One start of the program; whether it was killed, after so many seconds.

    Raises:
        RuntimeError: it ended by itself, and not well.
    """
    beside = forked(partial(part.meanwhile, folder, rng)) if part.meanwhile else None
    pid = forked(partial(part.program, folder))
    process = os.pidfd_open(pid)
    try:
        if not select.select([process], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(process)
        if beside is not None:
            os.kill(beside, signal.SIGKILL)
            os.waitpid(beside, 0)
    if not os.WIFSIGNALED(status) and status:
        raise RuntimeError(f"a start ended with {os.waitstatus_to_exitcode(status)}.")
    return os.WIFSIGNALED(status)


def undisturbed(part: Part) -> tuple[Row, float]:
    """What a run comes to where nobody kills anything, and the seconds of its longest start."""
    part = replace(part, meanwhile=None) if part.left_alone else part
    with tempfile.TemporaryDirectory() as root:
        folder, longest = Path(root), 0.0
        while True:
            began = time.perf_counter()
            start(part, folder, 600.0, random.Random(0))
            longest = max(longest, time.perf_counter() - began)
            if part.changes(folder):
                break
        return end_of(folder), longest
