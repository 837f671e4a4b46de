"""What the user's Trainer holds after a run, as after a fit of its own; docs/adr/0018 says what and why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from al_lightning.fit.shape import AverageWeights
from al_lightning.fit.trainer import TrainerSource, hand_back


class Best(NamedTuple):
    """The best weights that a ModelCheckpoint has found: where they are, and what they score."""

    path: str = ""
    score: float = float("nan")

    @classmethod
    def of(cls, trainer: L.Trainer) -> Best:
        """Read it off a Trainer; nothing where no ModelCheckpoint looks for them, or none were found."""
        checkpoint = monitored(trainer)
        if checkpoint is None or checkpoint.best_model_score is None:
            return cls()
        return cls(checkpoint.best_model_path, float(checkpoint.best_model_score))


def monitored(trainer: L.Trainer) -> ModelCheckpoint | None:
    """Find the first ModelCheckpoint that monitors something, if there is one."""
    found = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    return next(found, None)


def deliver(
    source: TrainerSource,
    model: L.LightningModule,
    last: L.Trainer | None,
    *,
    metrics: Mapping[str, float],
    best: Best,
) -> None:
    """Have the user's Trainer hold what the delivered fit came to, for ``trainer.test`` and for whoever reads metrics.

    Its ModelCheckpoints need nothing: all fits use them.

    Args:
        source: the user's Trainer; of a function that builds one there is none.
        model: the user's module.
        last: the copy that ran the delivered fit; None if this process has trained nothing.
        metrics: of the delivered fit, as they were kept.
        best: its best weights, as they were kept.
    """
    if not isinstance(source, L.Trainer):
        return
    numbers = {name: torch.tensor(value) for name, value in metrics.items()}
    hand_back(source, model, last, numbers)
    checkpoint = monitored(source)
    if checkpoint is not None and last is None and best.path:
        checkpoint.best_model_path, checkpoint.best_model_score = best.path, torch.tensor(best.score)
        checkpoint.dirpath = os.path.dirname(best.path)
    elif last is not None and any(isinstance(c, AverageWeights) for c in last.callbacks):  # type: ignore[attr-defined]
        for own in source.checkpoint_callbacks:
            if isinstance(own, ModelCheckpoint) and not own.monitor:
                own.best_model_path = ""  # written before the weights were averaged, so not the delivered ones
