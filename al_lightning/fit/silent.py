"""A Trainer for rehearsals: one batch of validation, nothing shown, logged or left behind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn

from al_lightning.fit.trainer import TrainerSource, fresh_trainer

_REHEARSED = (EarlyStopping, ModelCheckpoint, LearningRateMonitor, BackboneFinetuning, GradientAccumulationScheduler)
"""Lightning's own callbacks that need something of a module; others, and the user's, see nothing of a rehearsal."""


class _Nobody(DummyLogger):
    """A logger whose folder can be written to, and who tells nobody."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = str(folder)

    @property
    def save_dir(self) -> str:
        return self._folder

    log_dir = root_dir = save_dir


class BeforeSteps(Callback):
    """A callback of the user's of which only what comes before a step is called: a step may need what it sets up."""

    _HOOKS = (
        *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
        *("on_validation_start", "on_validation_epoch_start", "on_validation_batch_start"),
    )

    def __init__(self, callback: Callback) -> None:
        for name in self._HOOKS:
            setattr(self, name, getattr(callback, name))

    @classmethod
    def of(cls, callbacks: Iterable[Callback]) -> list[Callback]:
        """Those that a step could need: the user's own, of which this is a copy."""
        own = [c for c in callbacks if not type(c).__module__.startswith(("lightning.", "al_lightning."))]
        return [cls(c) for c in own if not getattr(c, "al_shared", False)]


def silent_trainer(
    trainer: TrainerSource, folder: Path, *, model: nn.Module, datamodule: Any, helped: bool = False
) -> L.Trainer:
    """A copy of the Trainer for a rehearsal: one batch of validation, nothing shown, logged or left behind.

    Args:
        trainer: as for :func:`fresh_trainer`.
        folder: for what is written all the same.
        model: shared with the copy.
        datamodule: likewise.
        helped: whether the user's own callbacks set up what a step needs.
    """
    silent = fresh_trainer(trainer, model=model, datamodule=datamodule, rehearsal=True)
    callbacks: list[Callback] = silent.callbacks  # type: ignore[attr-defined]
    own = [c for c in callbacks if type(c) in _REHEARSED and not getattr(c, "al_shared", False)]
    for callback in own:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = None
    silent.callbacks = [*(BeforeSteps.of(callbacks) if helped else ()), *own]  # type: ignore[attr-defined]
    silent.loggers = [_Nobody(folder)] if silent.loggers else []
    silent.profiler = PassThroughProfiler()  # type: ignore[attr-defined]
    silent._default_root_dir = str(folder)  # type: ignore[attr-defined]
    silent.num_sanity_val_steps, silent.limit_val_batches = 0, 1 if silent.limit_val_batches else 0
    if silent.check_val_every_n_epoch is not None:
        silent.check_val_every_n_epoch = 1
    return silent
