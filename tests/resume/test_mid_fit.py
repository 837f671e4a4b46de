"""A fit that is interrupted goes on from its last finished epoch, and ends as one that never was."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torchmetrics import MaxMetric

from al_lightning import fit_resume
from al_lightning.callbacks import meter
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.result import Result
from al_lightning.store import read_run
from tests.helpers import CLASSES, WIDTH, Net, learner, pool_of, quiet

EPOCHS = 5
Point = tuple[int, int, int]
"""A fit of the process, counted from 1, an epoch and a batch of it, counted from 0."""


@pytest.fixture(autouse=True)
def every_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_resume, "SHARE", math.inf)
    monkeypatch.setattr(meter, "NOTE_SECONDS", 0.0)


class Interruption(Exception):
    """The machine was taken away."""


class Random(Net):
    """A module with everything whose state a fit depends on: dropout, BatchNorm, Adam, noise of three generators."""

    def __init__(self, dies: Point | None = None, schedule: str | None = None, interval: str = "step") -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, CLASSES)
            )
        self.best = MaxMetric()
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.dies, self.schedule, self.interval, self.fits = dies, schedule, interval, 0
        self.trained: list[tuple[int, int]] = []

    def on_fit_start(self) -> None:
        self.fits += 1

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.dies == (self.fits, self.current_epoch, batch_idx):
            raise Interruption
        self.trained.append((self.fits, self.current_epoch))
        x, y = batch
        self.seen += len(x)
        x = x + 0.1 * torch.randn_like(x) + 0.01 * random.random() + 0.01 * np.random.rand() + 1e-4 * self.seen
        return super().training_step((x, y), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.best(self.trainer.callback_metrics.get("val_acc", torch.zeros(())))
        self.log("best", self.best.compute())

    def configure_optimizers(self) -> Any:
        adam = torch.optim.AdamW(self.parameters(), lr=0.03)
        if self.schedule is None:
            return adam
        if self.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, patience=0)
            return {"optimizer": adam, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        if self.schedule == "cosine":
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, EPOCHS)
            return {"optimizer": adam, "lr_scheduler": {"scheduler": cosine, "interval": "epoch"}}
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 0.1, total_steps=steps)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class Tallies(Callback):
    """A user's callback that steers the fit by what it has counted, and begins anew with every fit."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.count = 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.count += 1
        for group in trainer.optimizers[0].param_groups:
            group["weight_decay"] = 1e-3 * self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


def run(
    folder: Path, dies: Point | None = None, *, trainer: dict[str, Any] | None = None, callbacks: Any = (), **kwargs: Any
) -> tuple[Random, Result]:
    """One start of the program, its generators somewhere else each time."""
    L.seed_everything(random.randrange(1000), verbose=False)
    module = {name: kwargs.pop(name) for name in ("schedule",) if name in kwargs}
    model = Random(dies, **module)
    made = quiet(max_epochs=EPOCHS, callbacks=[make() for make in callbacks], **(trainer or {}))
    return model, learner(folder, made, **kwargs).fit(model, datamodule=pool_of(batch_size=5))


def outcome(folder: Path, result: Result) -> dict[str, Any]:
    """What must not depend on an interruption."""
    saved = read_run(folder)
    return {
        "labelled": result.labelled.tolist(),
        "weights": {name: value.tolist() for name, value in result.model.state_dict().items()},
        "rounds": [(r.epochs, r.metrics, r.forecast.keys()) for r in (*saved.rounds, saved.final) if r is not None],
        "records": {phase: result.bill.lines[phase].records for phase in ("train", "validate")},
    }


def interrupted(folder: Path, dies: Point, **kwargs: Any) -> tuple[Random, Result]:
    """Two starts of the program, the first of which is interrupted."""
    with pytest.raises(Interruption):
        run(folder, dies, **kwargs)
    assert (folder / "scratch" / "fit.pt").exists()
    found = run(folder, **kwargs)
    assert not (folder / "scratch").exists()
    return found


FRUGAL: dict[str, Any] = {
    "fit": WarmStart(
        "keep", first_epochs=0.8, epochs=0.6, final="previous", final_epochs=0.6, rho=2.0, stable=True
    ),
    "schedule": "cycle",
}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "frugal": FRUGAL,
    "one cycle": {"schedule": "cycle"},
    "cosine": {"schedule": "cosine"},
    "plateau": {"schedule": "plateau"},
    "accumulated": {"trainer": {"accumulate_grad_batches": 3}, "schedule": "cycle", **{"fit": FRUGAL["fit"]}},
    "steps": {"trainer": {"max_steps": 11}},
    "validated now and then": {"trainer": {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}},
    "validated often": {"trainer": {"val_check_interval": 0.5}},
    "callbacks": {
        "callbacks": [
            Tallies,
            lambda: EarlyStopping("val_loss", patience=2, min_delta=0.2),
            lambda: ModelCheckpoint(monitor="val_loss"),
        ],
        "trainer": {"enable_checkpointing": True, "min_epochs": 4},
    },
    "stall": {"stop": [StallDetection("train_loss", patience=4)]},
    "replay": {"fit": WarmStart("resume", replay=1.0, distill=0.5)},
    "dash": {"fit": WarmStart("dash")},
    "part": {"fit": WarmStart("keep", epochs=0.7, final="initial", freeze=("net.0",))},
}


@pytest.mark.parametrize("dies", [(2, 3, 1), (3, 2, 0)], ids=["a round", "the last fit"])
@pytest.mark.parametrize("case", CASES)
def test_it_ends_bit_for_bit_as_one_that_was_not_interrupted(tmp_path: Path, case: str, dies: Point) -> None:
    _, whole = run(tmp_path / "whole", **CASES[case])
    fit, epoch, _ = dies
    model, result = interrupted(tmp_path / "run", (fit, min(epoch, 2) if case in SHORT else epoch, 0), **CASES[case])
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", whole)
    assert min(epoch for number, epoch in model.trained if number == 1) == min(epoch, 2 if case in SHORT else epoch)


SHORT = ("frugal", "accumulated", "part", "steps", "callbacks")
