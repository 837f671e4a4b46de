"""Kills within fits, for ``python -m benchmarks.crash``: a fit goes on, and no more than an epoch of it is lost.

A run of three fits of several epochs, the last of them the consolidating one, from warm weights at the peak of a
schedule, with averaged weights and a ModelCheckpoint. Every epoch is kept, as in fits whose epochs take longer than
``al_lightning.fit.resume.SAVE_SECONDS``. ``kill -9``

- in every epoch of every fit: before its first batch, in its middle, before its validation, and after it;
- before every system call that writes what is kept of the second fit (benchmarks/syscalls.py finds them).

The same command is started again. What was lost is read off the bill: records that were trained on in vain, over those
of an epoch. Labelled ids, weights and all other records trained on must be those of a run that was never killed.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import TensorDataset

from al_lightning import ActiveLearner, PoolDataModule, WarmStart
from al_lightning.cli.problems import Classifier
from al_lightning.fit import meter
from al_lightning.fit import resume as fit_resume
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from al_lightning.run.durable import read_tensors
from al_lightning.run.store import read_run
from benchmarks.syscalls import Call, forked, traced

RECORDS, CLASSES, SIZES, EPOCHS, BATCH = 60, 3, [12, 12, 12], 3, 4
PLACES = ("before the first batch", "in the middle", "before validation", "after validation")
Row = dict[str, Any]
Point = tuple[int, int, str]
"""A fit, counted from 1; an epoch of it, counted from 0; one of :data:`PLACES`."""


class Dies(Callback):
    """Kills its process at a point."""

    al_shared = True

    def __init__(self, point: Point | None) -> None:
        self.point, self.fits = point, 0

    def _look(self, trainer: L.Trainer, place: str) -> None:
        if self.point == (self.fits, trainer.current_epoch, place) and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.fits += 1

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self._look(trainer, PLACES[0])
        elif batch_idx == int(trainer.num_training_batches) // 2:
            self._look(trainer, PLACES[1])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer, PLACES[2])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer, PLACES[3])


def start(folder: Path, point: Point | None = None) -> None:
    """What a user's program does; killed at a point."""
    fit_resume.SAVE_SECONDS, fit_resume.SHARE, meter.NOTE_SECONDS = 0.0, float("inf"), 0.0
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(RECORDS + 9) % CLASSES
    x = torch.randn(RECORDS + 9, 4, generator=generator) + torch.eye(4)[y]
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Dies(point), ModelCheckpoint(monitor="val_loss")],
    )  # fmt: skip
    learner = ActiveLearner(
        trainer,
        query=Margin(),
        fit=WarmStart("keep", stable=True, final="previous"),
        round_size=Listed(SIZES),
        run_dir=folder,
    )
    pool = PoolDataModule(
        TensorDataset(x[:RECORDS], y[:RECORDS]),
        task="multiclass",
        val=TensorDataset(x[RECORDS:], y[RECORDS:]),
        batch_size=BATCH,
    )
    learner.fit(Classifier(4, CLASSES, hidden=(8,)), datamodule=pool)


def done(action: Callable[[], None]) -> bool:
    """Do it in a process of its own; whether that was killed.

    Raises:
        RuntimeError: it ended by itself, and not well.
    """
    return _killed(os.waitpid(forked(action), 0)[1])


def _killed(status: int) -> bool:
    if not os.WIFSIGNALED(status) and status:
        raise RuntimeError(f"a start ended with {os.waitstatus_to_exitcode(status)}.")
    return os.WIFSIGNALED(status)


def _end(folder: Path) -> Row:
    saved = read_run(folder)
    weights = read_tensors(folder / saved.files["weights"])
    return {
        "labelled": list(saved.answers),
        "trained": [(e.round, e.records) for e in saved.entries if e.phase == "train"],
        "weights": {name: value.tolist() for name, value in weights.items()},
    }


def whole() -> Row:
    """What the run comes to where nobody kills it."""
    with tempfile.TemporaryDirectory() as root:
        done(partial(start, Path(root) / "run"))
        return _end(Path(root) / "run")


def points() -> Iterator[Point]:
    """Every point."""
    for fit in range(1, len(SIZES) + 1):
        yield from ((fit, epoch, place) for epoch in range(EPOCHS) for place in PLACES)


def within_fit(expected: Row, point: Point) -> Row:
    """One run, killed at a point of a fit."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "run"
        killed = done(partial(start, folder, point))
        return {"fit": point[0], "when": point[2], **_gone_on(folder, expected, killed, sum(SIZES[: point[0]]))}


def keeping() -> list[int]:
    """Which of a run's calls, as numbers, write what is kept of its second fit, or clear away what was of the first."""
    calls: list[Call] = []

    def note(call: Call, after: bool) -> bool:
        if not after:
            calls.append(call)
        return False

    with tempfile.TemporaryDirectory() as root:
        traced(partial(start, Path(root) / "run"), Path(root), note)
    ends = [n for n, call in enumerate(calls) if call.name == "rename" and call.to.endswith("weights.pt")]
    return [n for n in range(ends[0], ends[1]) if "/scratch" in calls[n].path + calls[n].to]


def while_kept(expected: Row, n: int) -> Row:
    """One run, killed before its n-th call."""
    with tempfile.TemporaryDirectory() as root:
        folder, count, where = Path(root) / "run", -1, ""

        def look(call: Call, after: bool) -> bool:
            nonlocal count, where
            count += not after
            if count == n and not after:
                where = call.name
            return count == n and not after

        killed = _killed(traced(partial(start, folder), Path(root), look))
        return {"fit": 2, "when": f"{where} of what is kept", **_gone_on(folder, expected, killed, sum(SIZES[:2]))}


def _gone_on(folder: Path, expected: Row, killed: bool, labelled: int) -> Row:
    again = done(partial(start, folder))
    lost = sum(e.records for e in read_run(folder).entries if e.phase == "lost")
    same = killed and not again and _end(folder) == expected
    return {"epochs_lost": lost / labelled, "lost": 0, "twice": 0, "identical": same, "survived": same}
