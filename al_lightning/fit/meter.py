"""Meter: what a fit did, for the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import since
from al_lightning.cost.served import ServedRecords, batch_length

NOTE_SECONDS = 1.0
Note = Callable[[int, float, float], Any]
_COUNTED = (
    "trained",
    "validated",
    "epochs",
    "validate_seconds",
    "pass_records",
    "val_batch",
    "batch",
    "beside",
    "_batches",
    "_steps",
    "_step_seconds",
)


class Meter(Callback):
    """Counts records, epochs and seconds of one fit, and measures FLOPs on its first batches.

    Records and FLOPs are those of every batch that goes through ``training_step`` or ``validation_step`` inside of
    :meth:`watching`, whoever drives it: learning-rate and batch-size finders train as well, with other callbacks.

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
        pass_records: records of the largest validation pass.
        val_batch: records of its largest batch.
        beside: records that were trained on before the training loop began, to find a learning rate or a batch size.
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
        self._validate_began = self._validated_before = 0.0
        self.pass_records = self.val_batch = self._validated_then = 0
        self.beside = self._records = 0
        self._ready: dict[str, int] = {}
        self._whole = False

    # ---- records and FLOPs: where the strategy runs a step -------------------------------------------------------

    @contextmanager
    def watching(self, trainer: L.Trainer) -> Iterator[None]:
        """Count what the Trainer runs in the block; the Trainer, a copy for this fit, is left as it was.

        Args:
            trainer: about to fit.
        """
        served, loop = ServedRecords(), trainer.fit_loop
        taking = {"training": partial(self._take, served, loop)}
        taking["validation"] = partial(self._take, served, loop.epoch_loop.val_loop)

        def process(own: Callable[[Any], Any], loader: Any) -> Any:
            served.watch(loader := own(loader))
            return loader

        with ExitStack() as put:
            steps: dict[str, Callable[..., Any]] = {
                "process_dataloader": process,
                "training_step": partial(self._train, taking["training"]),
                "backward": self.flops.part,
                "optimizer_step": self.flops.part,
                "validation_step": partial(self._validate, taking["validation"]),
            }
            for name, step in steps.items():
                put.enter_context(_wrapped(trainer.strategy, name, step))
            put.callback(served.close)
            put.callback(self.flops.cancel)
            yield

    def _take(self, served: ServedRecords, loop: Any, batch: Any = None) -> int:
        """Records that came since the last step; of a loader that is not PyTorch's, as many as the batch looks like."""
        records = served.take(loop)
        if records is not None:
            return records
        ready = getattr(loop, "epoch_loop", loop).batch_progress.total.ready
        before, self._ready[type(loop).__name__] = self._ready.get(type(loop).__name__), ready
        return 0 if ready == before else batch_length(batch)

    def _train(self, take: Callable[..., int], own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if records := take(*args[:1]):  # a closure may come again and again for the same batch
            self._finish_batch()
            self.flops.start(self.kind, uncompiled=self._whole)
            self._count(records)
        output = self.flops.part(own, *args, **kwargs)
        self._count(take())  # a step that was given the loader's iterator has fetched in between
        return output

    def _count(self, records: int) -> None:
        self._records += records
        self.trained += records

    def _finish_batch(self) -> None:
        records, self._records = self._records, 0
        self.flops.stop(self.kind, records)

    def _validate(self, take: Callable[..., int], own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._finish_batch()
        self.flops.start("validate", uncompiled=self._whole)
        output = self.flops.part(own, *args, **kwargs)
        records = take(*args[:1])
        self.validated += records
        self.val_batch = max(self.val_batch, records)
        self.flops.stop("validate", records)
        return output

    # ---- epochs and seconds --------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._whole = getattr(pl_module, "_compiler_ctx", None) is not None  # torch.compile(module), steps and all

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._train_began = self._noted = time.perf_counter()
        self._validated_before = self.validate_seconds
        self.beside = self.trained

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        records = self._records
        self._finish_batch()
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
        self._validate_began, self._validated_then = time.perf_counter(), self.validated

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.pass_records = max(self.pass_records, self.validated - self._validated_then)
        self.validate_seconds += since(self._validate_began)
        self._last = None

    def fit_state(self) -> dict[str, Any]:
        """Return what was counted so far, and FLOPs of a record as measured, or why they are unknown."""
        train = 0.0 if self._train_began is None else since(self._train_began)
        return {
            **{name: getattr(self, name) for name in _COUNTED},
            "seconds": self.seconds_before + since(self._began),
            "train": train - self.validate_seconds + self._validated_before,
            "first": self._first_seconds,
            "flops": {
                kind: self.flops.per_record[kind] for kind in (self.kind, "validate") if kind in self.flops.per_record
            },
            "unknown": {
                kind: self.flops.unknown[kind] for kind in (self.kind, "validate") if kind in self.flops.unknown
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
        self.flops.unknown.update(state["unknown"])


@contextmanager
def _wrapped(of: Any, name: str, step: Callable[..., Any]) -> Iterator[None]:
    """Have ``of.name(...)`` call ``step(own, ...)`` in the block, ``own`` being what it called before."""
    before = vars(of).get(name)
    setattr(of, name, partial(step, getattr(of, name)))
    try:
        yield
    finally:
        delattr(of, name) if before is None else setattr(of, name, before)
