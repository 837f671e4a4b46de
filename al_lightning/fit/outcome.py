"""One fit of one round, from a plan to what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.contrib.dash import DirectionAwareShrink
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.fit.cadence import cadence_of
from al_lightning.fit.checkpoints import load_best
from al_lightning.fit.handed_back import monitored
from al_lightning.fit.meter import Meter, Note
from al_lightning.fit.plan import FitPlan, Length, Served, frozen
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.resume import FitFile, FitResume
from al_lightning.fit.set_up import keep_start
from al_lightning.fit.shape import KeepMoments, Moments, shaping
from al_lightning.fit.state import State
from al_lightning.fit.trainer import TrainerSource, fresh_trainer, validate_once
from al_lightning.history import Reason
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.steps.tuning import settings_kept


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what a fit did: the copy of the Trainer that ran it, metrics of the weights that were kept, work done."""

    trainer: L.Trainer
    metrics: dict[str, float]
    epochs: int
    entries: tuple[Entry, ...]
    stalled: Reason | None
    best_model_path: str
    loop_records: int
    tuning_records: int
    loop_seconds: float
    pace: dict[str, float]
    validation: dict[str, int]
    moments: Moments | None


class _KeepBest(Callback):
    """The metrics that stood when ModelCheckpoint last found the best weights."""

    def __init__(self) -> None:
        self.path = ""
        self.score: float | None = None
        self.metrics: dict[str, float] = {}

    def _look(self, trainer: L.Trainer) -> None:
        checkpoint = monitored(trainer)
        if checkpoint is None or checkpoint.best_model_score is None:
            return
        found = checkpoint.best_model_path, float(checkpoint.best_model_score)
        if found != (self.path, self.score):  # a fixed filename keeps its path, so the score counts too
            (self.path, self.score), self.metrics = found, logged(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._look(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def fit_state(self) -> dict[str, Any]:
        """Return what was found so far."""
        return {"path": self.path, "score": self.score, "metrics": self.metrics}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """Look on from there."""
        self.path, self.score, self.metrics = state["path"], state["score"], state["metrics"]


def best_path(trainer: L.Trainer) -> str:
    """Return where ModelCheckpoint has put the best weights so far; nothing where none is looked for or found."""
    checkpoint = monitored(trainer)
    return "" if checkpoint is None else checkpoint.best_model_path


def logged(trainer: L.Trainer) -> dict[str, float]:
    """Return what the user's module has logged so far, as floats."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def run_fit(
    source: TrainerSource,
    model: L.LightningModule,
    pool: PoolDataModule,
    plan: FitPlan,
    length: Length,
    served: Served,
    *,
    new: int,
    round: int,
    round_dir: Path,
    seed: int,
    step: int,
    flops: FlopMeter,
    stall: StallDetection | None = None,
    note: Note | None = None,
    moments: Moments | None = None,
    file: FitFile | None = None,
    kept: State | None = None,
) -> Outcome:
    """Fit the model, which already has its start weights, on a fresh copy of the Trainer.

    The best weights *of this round* are kept if a ModelCheckpoint monitors, else the last.

    Args:
        source: the user's Trainer, or a function that builds one.
        model: changed in place.
        pool: trains on its labelled part, or on what of it is served.
        plan: what is frozen, and how the weights and the learning rate move.
        length: of the fit.
        served: the records of the fit.
        new: how many of the labelled records are new.
        round: for the ledger.
        round_dir: for checkpoints.
        seed: of torch's, NumPy's and Python's global generators during the fit; restored after.
        step: where the loggers' step axis goes on.
        flops: FLOP measurements, extended.
        stall: watches the fit and may abort it.
        note: told of the work so far, about once a second.
        moments: what the fit before left of its optimisers, if the plan asks for it.
        file: where the fit is kept as it goes; None keeps nothing.
        kept: how it stood when it was interrupted; None: it begins.

    Raises:
        CannotGoOn: what was kept does not fit.
    """
    trainer = fresh_trainer(
        source,
        model=model,
        datamodule=pool,
        round_dir=round_dir,
        max_epochs=length.epochs,
        step=step,
    )
    if plan.val_batches is not None:
        validate_once(trainer, plan.val_batches)
    kind = plan.kind(distils=plan.distill is not None and served.sampler is not None)
    meter, best = Meter(flops, kind, note), _KeepBest()
    # The learner decides itself what these would decide in a hand-written loop.
    own = [c for c in trainer.callbacks if not isinstance(c, WarmStart | RoundPlateau | StallDetection)]  # type: ignore[attr-defined]
    # Checkpoints stay last, where Lightning puts them; the meter is before what shapes the fit, which is measured.
    shape = shaping(plan, served, new=new, moments=moments)
    ours = [meter, *shape, best, *([stall] if stall else [])]
    resume = [FitResume(file, meter, [*ours, cadence_of(trainer), served.sampler], kept, best_path)] if file else []
    trainer.callbacks = [*keep_start(model), *resume, *ours, *own]  # type: ignore[attr-defined]
    pool.train_ids, pool.train_sampler = served
    if served.sampler is not None:
        served.sampler.epoch = 0  # an attempt to go on may have come before
    try:
        with (
            isolate_rng(),
            frozen(model, plan.freeze),
            settings_kept(trainer, model, pool),
            Stopwatch.running() as watch,
            meter.watching(trainer),
        ):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            trainer.fit(model, datamodule=pool)
    finally:
        pool.train_ids = pool.train_sampler = None
    meter.trained += sum(part.records for part in shape if isinstance(part, DirectionAwareShrink))
    stalled = stall.reason if stall else None
    if best.path and stalled is None:
        load_best(model, best.path, trainer)
    return Outcome(
        trainer=trainer,
        metrics=best.metrics if best.path else logged(trainer),
        epochs=meter.epochs,
        entries=_entries(meter, round, meter.seconds_before + watch.seconds, stalled is not None, Ranks(trainer)),
        stalled=stalled,
        best_model_path=best.path,
        loop_records=sum(Ranks(trainer).gather(meter.trained - meter.beside)),
        tuning_records=sum(Ranks(trainer).gather(meter.beside)),
        loop_seconds=meter.train_seconds,
        pace=meter.pace,
        validation={} if plan.val_batches is not None else _seen(meter, Ranks(trainer)),
        moments=next((part.kept for part in shape if isinstance(part, KeepMoments)), None),
    )


def _seen(meter: Meter, ranks: Ranks) -> dict[str, int]:
    """Records of a validation pass and of a batch, of all processes."""
    records, batch = (sum(ranks.gather(n)) for n in (meter.pass_records, meter.val_batch))
    return {"records": records, "batch": batch} if records else {}


def _entries(meter: Meter, round: int, seconds: float, aborted: bool, ranks: Ranks) -> tuple[Entry, ...]:
    trained = sum(ranks.gather(meter.trained))
    validated = sum(ranks.gather(meter.validated))
    train = meter.flops.flops(meter.kind, trained)
    validate = meter.flops.flops("validate", validated)
    if aborted:
        # Thrown away whole: its validation too.
        return (Entry(phase="aborted", round=round, records=trained, flops=train + validate, seconds=seconds),)
    spent = max(0.0, seconds - meter.validate_seconds)
    entries = [Entry(phase="train", round=round, records=trained, flops=train, seconds=spent)]
    if validated:
        entries.append(
            Entry(phase="validate", round=round, records=validated, flops=validate, seconds=meter.validate_seconds)
        )
    return tuple(entries)
