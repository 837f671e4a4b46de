"""Meter: what a fit did, for the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from al_lightning.cost.flops import FlopMeter, batch_length
from al_lightning.cost.ledger import since

NOTE_SECONDS = 1.0
Note = Callable[[int, float, float], Any]
_COUNTED = ("trained", "validated", "epochs", "validate_seconds", "batch", "_batches", "_steps", "_step_seconds")


class Meter(Callback):
    """Counts records, epochs and seconds of one fit, and measures FLOPs on its first batches.

    Args:
        flops: where FLOPs per record are kept.
        kind: name of this fit's training pass there; parts that are frozen make another kind.
        note: called about once a second with the records, FLOPs and seconds so far, of all ranks.

    Attributes:
        trained: records that went forward and backward on this rank.
        validated: records that went through validation on this rank.
        epochs: epochs finished.
        train_seconds: seconds inside the training loop, validation excluded.
        batch: records of the largest batch.
        validate_seconds: seconds inside validation.
        seconds_before: seconds of the fit until it was interrupted, if it goes on.
    """

    al_shared = True

    def __init__(self, flops: FlopMeter, kind: str, note: Note | None = None) -> None:
        self.flops, self.kind, self._note = flops, kind, note
        self.trained = self.validated = self.epochs = 0
        self.train_seconds = self.validate_seconds = 0.0
        self.batch = self._batches = self._steps = 0
        self._step_seconds = self._first_seconds = 0.0
        self._last: float | None = None
        self._train_began: float | None = None
        self._noted = self._began = time.perf_counter()
        self.seconds_before = 0.0
        self._validate_began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._train_began = self._noted = time.perf_counter()
        self._validated_before = self.validate_seconds

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.flops.start(self.kind)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        records = batch_length(batch)
        self.trained += records
        self.flops.stop(self.kind, records)
        now = time.perf_counter()
        self._time_step(records, now)
        if self._note is not None and since(self._noted) >= NOTE_SECONDS:
            self._noted = now
            self.tell(trainer)

    def tell(self, trainer: L.Trainer) -> Any:
        """Tell ``note`` of the work so far; returns what it does."""
        assert self._note is not None
        trained, validated = self.trained * trainer.world_size, self.validated * trainer.world_size
        flops = self.flops.flops(self.kind, trained) + self.flops.flops("validate", validated)
        return self._note(trained, flops, self.seconds_before + since(self._began))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._train_began is not None:
            validated = self.validate_seconds - self._validated_before
            self.train_seconds = max(0.0, since(self._train_began) - validated)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = None

    def _time_step(self, records: int, now: float) -> None:
        self.batch, self._batches = max(self.batch, records), self._batches + 1
        if self._batches == 1 and self._train_began is not None:  # FLOPs may have been counted in it, which takes time
            self._first_seconds = now - self._train_began
        elif self._last is not None:
            self._steps, self._step_seconds = self._steps + 1, self._step_seconds + now - self._last
        self._last = now

    @property
    def pace(self) -> dict[str, float]:
        """Seconds of a ``step`` within an epoch, and of what comes once an ``epoch``; empty after one step."""
        if not self._steps:
            return {}
        step = self._step_seconds / self._steps
        beside = self.train_seconds - self._first_seconds - step * (self._batches - 1)
        return {"step": step, "epoch": max(0.0, beside) / max(1, self.epochs), "batch": self.batch}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validate_began = time.perf_counter()

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.flops.start("validate")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        records = batch_length(batch)
        self.validated += records
        self.flops.stop("validate", records)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validate_seconds += since(self._validate_began)
        self._last = None

    def fit_state(self) -> dict[str, Any]:
        """What was counted so far, and FLOPs of a record as measured."""
        train = 0.0 if self._train_began is None else since(self._train_began)
        return {
            **{name: getattr(self, name) for name in _COUNTED},
            "seconds": self.seconds_before + since(self._began),
            "train": train - self.validate_seconds + self._validated_before,
            "first": self._first_seconds,
            "flops": {
                kind: self.flops.per_record[kind] for kind in (self.kind, "validate") if kind in self.flops.per_record
            },
        }

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """Count on from there."""
        now = time.perf_counter()
        for name in _COUNTED:
            setattr(self, name, state[name])
        self.seconds_before, self._first_seconds = state["seconds"], state["first"]
        self._validated_before = self.validate_seconds
        self._train_began = now - state["train"]
        self.flops.per_record.update(state["flops"])

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.flops.cancel()
