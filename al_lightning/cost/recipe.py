"""The declared recipe: how many records one training goes through, the denominator of rho."""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightning.pytorch as L
from lightning.pytorch.callbacks import Timer

from al_lightning.errors import UnsupportedTrainer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold what a Trainer does in one fit, as far as it is known beforehand.

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
        """Read it off a Trainer, whose limits hold whether or not EarlyStopping or a clock may end a fit before them.

        Args:
            trainer: any.
            epochs: where its ``max_epochs`` is not what one training takes.
        """
        given = (trainer.max_epochs or 0) if epochs is None else epochs
        steps = trainer.max_steps if trainer.max_steps > 0 else None
        return cls(
            epochs=given if given > 0 else None,
            steps=steps,
            accumulate=trainer.accumulate_grad_batches,
            limit_batches=trainer.limit_train_batches or 1.0,
        )

    @staticmethod
    def check_trains(trainer: L.Trainer) -> None:
        """Raise UnsupportedTrainer for a Trainer whose fits take no step: labels would be bought for nothing."""
        for name in ("max_epochs", "max_steps", "limit_train_batches"):
            if getattr(trainer, name) == 0:
                raise UnsupportedTrainer(
                    f"Trainer({name}=0) trains nothing, and labels would be bought all the same. Give {name} a number "
                    "above 0."
                )

    def check_shares(self, policy: object, trainer: L.Trainer) -> None:
        """Check that epochs given as shares are shares of something.

        Args:
            policy: of the fits, whose ``first_epochs``, ``epochs`` and ``final_epochs`` may be shares (floats).
            trainer: that this was read off.

        Raises:
            UnsupportedTrainer: nothing limits its epochs.
        """
        used = ("first_epochs", "epochs", *(["final_epochs"] if getattr(policy, "final", None) else []))
        given = {name: getattr(policy, name, None) for name in used}
        name = next((name for name, epochs in given.items() if isinstance(epochs, float)), None)
        if self.epochs is None and name is not None:
            raise UnsupportedTrainer(
                f"{type(policy).__name__}({name}={given[name]}) is a share of the Trainer's epochs, and "
                f"{_ended_by(trainer)}: set max_epochs on the Trainer as well, pass fit(..., recipe_epochs=...) "
                f"with the epochs that one training takes, or give {name} as a whole number."
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


def _ended_by(trainer: L.Trainer) -> str:
    """Return what ends the fits of a Trainer without a limit on epochs."""
    if trainer.max_steps > 0:
        return f"max_steps={trainer.max_steps} is all that ends this one's fits"
    if any(isinstance(c, Timer) for c in trainer.callbacks):  # type: ignore[attr-defined]
        return "max_time, or a Timer, is all that ends this one's fits"
    return f"this one has max_epochs={trainer.max_epochs}, which is no limit"
