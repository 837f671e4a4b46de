"""The declared recipe: how many records one training goes through, the denominator of rho."""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightning.pytorch as L
from lightning.pytorch.callbacks import EarlyStopping, Timer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a Trainer does in one fit, as far as it is known beforehand.

    Args:
        epochs: limit on epochs, or None.
        steps: limit on optimiser steps, or None.
        accumulate: batches per optimiser step.
        limit_batches: share (float) or number (int) of an epoch's batches that are trained on.
    """

    epochs: int | None = None
    steps: int | None = None
    accumulate: int = 1
    limit_batches: float | int = 1.0

    @classmethod
    def of(cls, trainer: L.Trainer, epochs: int | None = None) -> Recipe:
        """Read it off a Trainer; a Trainer that stops early, or by the clock, declares none unless ``epochs`` does."""
        open_ended = any(isinstance(c, EarlyStopping | Timer) for c in trainer.callbacks)  # type: ignore[attr-defined]
        given = (trainer.max_epochs or 0) if epochs is None and not open_ended else (epochs or 0)
        steps = trainer.max_steps if trainer.max_steps > 0 and not open_ended else None
        return cls(
            epochs=given if given > 0 else None,
            steps=steps,
            accumulate=trainer.accumulate_grad_batches,
            limit_batches=trainer.limit_train_batches or 1.0,
        )

    def records(self, labels: int, batch: int) -> int | None:
        """Records that go forward and backward in one training.

        Args:
            labels: records to train on.
            batch: records in a batch, of all processes together.

        Returns:
            The number, or None where nothing limits a training.
        """
        batches = max(1, math.ceil(labels / batch))
        limit = self.limit_batches
        kept = min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit))
        an_epoch = labels if kept == batches else kept * min(batch, labels)
        limits = []
        if self.epochs is not None:
            limits.append(self.epochs * an_epoch)
        if self.steps is not None:
            epochs, rest = divmod(self.steps * self.accumulate, kept)
            limits.append(epochs * an_epoch + rest * min(batch, labels))
        return int(min(limits)) if limits else None
