"""A control: what the recipe reaches from new weights on records drawn at random, at no label more."""

from __future__ import annotations

import math
import random
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.seed import isolate_rng

from al_lightning.callbacks.stall_detection import chance_level
from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.errors import UnknownMonitor
from al_lightning.fit.meter import Meter
from al_lightning.fit.plan import load, reinitialise, snapshot
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.shape import ScaleRate
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.history import Control
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.run.accounts import Accounts
from al_lightning.run.changes import Saved
from al_lightning.run.turn import Turn
from al_lightning.seeds import generator, number
from al_lightning.stop.false_start import STANDARD_ERRORS, standard_error

RATES = tuple(2.2**-i for i in range(8))
"""Factors of the learning rate that are tried where a fit diverged: the recipe's own, down to a 250th of it."""
COMPARED = ("multiclass", "binary")
"""Tasks whose labels can be held against predictions one by one."""


def trained_on(pool: PoolDataModule, saved: Saved) -> np.ndarray:
    """Labelled ids that fits go over, in the order of labelling: all but those that a restart has set aside."""
    return pool.labelled[~np.isin(pool.labelled, saved.meta.get("set_aside", []))]


def new_labels(pool: PoolDataModule, saved: Saved) -> int:
    """Return how many of the records that fits go over, the last, are new since the last fit."""
    first = saved.first_new_place
    return min(sum(saved.places[i] >= first for i in pool.state.labels), len(trained_on(pool, saved)))


def split(pool: PoolDataModule, size: int, *, seed: int) -> tuple[list[int], list[int]]:
    """Positions of validation records to train a control on, and of those it is judged on.

    Args:
        pool: whose validation records are labelled, and paid for.
        size: of the control, at most; half of the validation records are left to judge it.
        seed: of the run.
    """
    order = generator(seed, 0, "control").permutation(pool.val_labels).tolist()
    cut = max(1, min(size, pool.val_labels // 2))
    return order[:cut], order[cut:]


def measure(turn: Turn, metric: str, *, share: float, scale: float) -> Control:
    """Fit a control and judge it; its work is put on the ledger, and the model has its weights back.

    Args:
        turn: after a fit, or the abort of one.
        metric: an accuracy that the module logs in validation.
        share: validation records to train on, at most, as a share of them.
        scale: of the learning rate.

    Raises:
        UnknownMonitor: validation has logged no such value.
    """
    labels = trained_on(turn.pool, turn.saved)
    parts = split(turn.pool, min(len(labels), round(share * turn.pool.val_labels)), seed=turn.seed)
    kept = snapshot(turn.model)
    try:
        accuracy = _fit(turn, parts, metric, scale)
        agreed = _agreed(turn, labels) if turn.pool.task in COMPARED else None
    finally:
        load(turn.model, kept)
    return Control(
        labels=len(parts[0]),
        accuracy=accuracy,
        judged=len(parts[1]),
        chance=_chance(turn.pool, parts[1]),
        agreed=agreed,
        compared=len(labels),
    )


def gentler(turn: Turn, metric: str, *, share: float, scale: float) -> float:
    """The lowest factor of the learning rate with which a control is not clearly worse than with another.

    Few records are few steps, which like high rates; those are the first to be too high on more. :data:`RATES` are
    tried on the same records, and the lowest is taken that no other beats by more than the noise.
    """
    found = {scale * rate: measure(turn, metric, share=share, scale=scale * rate) for rate in RATES}
    finite = {rate: c for rate, c in found.items() if np.isfinite(c.accuracy)}
    if not finite:
        return min(found)
    best = max(finite.values(), key=lambda control: control.accuracy)
    noise = math.sqrt(2) * standard_error(best.accuracy, best.judged)
    least = best.accuracy - STANDARD_ERRORS * noise
    return min(rate for rate, control in finite.items() if control.accuracy >= least)


def _fit(turn: Turn, parts: tuple[list[int], list[int]], metric: str, scale: float) -> float:
    load(turn.model, turn.initial)  # what cannot be drawn anew starts from there
    reinitialise(turn.model, number(turn.seed, 0, "control weights"))
    trainer = fresh_trainer(
        turn.source, model=turn.model, datamodule=turn.pool, max_epochs=turn.accounts.recipe_epochs, step=0
    )
    meter = Meter(turn.accounts.flops, "train", turn.accounts.note_in_flight)
    callbacks: list[Any] = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]  # type: ignore[attr-defined]
    trainer.callbacks = [meter, *([ScaleRate(scale)] if scale != 1 else []), *callbacks]  # type: ignore[attr-defined]
    trainer.loggers = [DummyLogger()]  # the user's show the run
    turn.pool.val_split = parts
    began = turn.accounts.energy.reading()
    try:
        with isolate_rng(), Stopwatch.running() as watch, meter.watching(trainer):
            seed = number(turn.seed, 0, "control fit")
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            trainer.fit(turn.model, datamodule=turn.pool)
    finally:
        turn.pool.val_split = None
    turn.accounts.energy.note("control", began)
    _spend(turn.accounts, meter, watch.seconds, trainer)
    if metric not in trainer.callback_metrics:
        raise UnknownMonitor(metric, trainer.callback_metrics, "FalseStart")
    return float(turn.ranks.broadcast(float(trainer.callback_metrics[metric])))


def _spend(accounts: Accounts, meter: Meter, seconds: float, trainer: L.Trainer) -> None:
    ranks = Ranks(trainer)
    trained, validated = sum(ranks.gather(meter.trained)), sum(ranks.gather(meter.validated))
    flops = accounts.flops.flops("train", trained) + accounts.flops.flops("validate", validated)
    accounts.spend(Entry(phase="control", round=accounts.round, records=trained, flops=flops, seconds=seconds))


def _agreed(turn: Turn, ids: np.ndarray) -> float:
    arrays, _ = turn.infer(
        ids,
        lambda outputs: {"classes": outputs.predictions},
        phase="control",
        meter=turn.accounts.flops,
        counted=False,
    )
    bought = np.array([int(turn.pool.state.labels[int(i)]) for i in ids])
    return float(turn.ranks.broadcast(float((arrays["classes"].reshape(-1).astype(np.int64) == bought).mean())))


def _chance(pool: PoolDataModule, positions: list[int]) -> float:
    """Share of the commonest class; 0 where a task has no classes to count."""
    if pool.task not in COMPARED:
        return 0.0
    return chance_level([int(pool.items.target(pool.val_data[i])) for i in positions], "max")
