"""StallDetection: abort a fit, or a run, that makes no progress from its start, and begin again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from al_lightning.callbacks.round_plateau import Direction, check_mode
from al_lightning.errors import UnknownMonitor
from al_lightning.history import History, Reason
from al_lightning.rounds import abort_fit

Remedy = Literal["weights", "weights_and_selection"]


def no_progress(
    values: Sequence[float], *, reference: float | None, mode: Direction, min_delta: float, patience: int
) -> bool:
    """Whether values never got away from where they started.

    Args:
        values: oldest first. A NaN or infinite last value is a stall at once.
        reference: level a healthy run leaves behind (chance); None means the first value.
        mode: whether higher or lower is better.
        min_delta: distance from the reference that progress must exceed.
        patience: values that must have come in before anything is decided; without a reference, after the first.

    Returns:
        True if the best of the values is not better than the reference by more than ``min_delta``.
    """
    if values and not math.isfinite(values[-1]):
        return True
    judged = list(values) if reference is not None else list(values[1:])
    if len(judged) < patience:
        return False
    sign = 1.0 if mode == "max" else -1.0
    start = values[0] if reference is None else reference
    return max(sign * v for v in judged) <= sign * start + min_delta


@dataclass(eq=False)
class StallDetection(Callback):
    """Find false starts: within a fit, epoch by epoch, and across rounds.

    A stalled fit is aborted at once. Only the loop restarts it: ``ActiveLearner`` draws new weights (or new weights
    and a fresh random selection on top of the labels already paid) and tries again, at most ``max_restarts`` times in
    a run; then the run stops with the reason ``gave_up``. All aborted work stays on the bill.

    Args:
        monitor: name the module logs in every epoch, for example ``"train_loss"``.
        mode: ``"min"`` for losses, ``"max"`` for metrics.
        reference: level every healthy run leaves behind, for example chance: ``log(n_classes)`` for cross-entropy,
            ``1 / n_classes`` for accuracy. None: the first epoch's value (across rounds, the first round's).
        min_delta: distance from the reference that progress must exceed.
        patience: epochs a fit is given.
        rounds: rounds a run is given to leave the reference; None watches fits only.
        remedy: ``"weights"``, or ``"weights_and_selection"``.
        max_restarts: restarts in a run before it gives up.
    """

    monitor: str
    mode: Direction = "min"
    reference: float | None = None
    min_delta: float = 0.0
    patience: int = 3
    rounds: int | None = None
    remedy: Remedy = "weights"
    max_restarts: int = 2

    al_shared = True

    reason: Reason | None = field(default=None, init=False, repr=False)
    _values: list[float] = field(default_factory=list, init=False, repr=False)
    _validated: bool = field(default=False, init=False, repr=False)
    _from_validation: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_mode(self.mode, "StallDetection")
        for name, least in (("patience", 1), ("max_restarts", 0), ("min_delta", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"StallDetection({name}={getattr(self, name)}): at least {least}.")
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"StallDetection(rounds={self.rounds}): at least 1, or None.")
        if self.remedy not in ("weights", "weights_and_selection"):
            raise ValueError(
                f"StallDetection(remedy={self.remedy!r}): allowed are 'weights' and 'weights_and_selection'."
            )

    def across_rounds(self, history: History) -> Reason | None:
        """Decide from the rounds since the last restart whether the run has left its start."""
        if self.rounds is None:
            return None
        fresh_from = max((i for i, r in enumerate(history.rounds) if r.restarted), default=0)
        values = [r.metrics[self.monitor] for r in history.rounds[fresh_from:] if self.monitor in r.metrics]
        return self._reason(values, self.rounds, "rounds")

    def _reason(self, values: Sequence[float], patience: int, unit: str) -> Reason | None:
        stalled = no_progress(
            values, reference=self.reference, mode=self.mode, min_delta=self.min_delta, patience=patience
        )
        if not stalled:
            return None
        start = values[0] if self.reference is None else self.reference
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        sentence = (
            f"{self.monitor} stands at {values[-1]:.4g} after {len(values)} {unit}, not better than {start:.4g}{by}"
        )
        return Reason("stall", sentence, {"monitor": self.monitor, "values": list(values), "reference": start})

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the last fit."""
        self.reason, self._values = None, []
        self._validated, self._from_validation = False, None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Learn whether the monitored value comes from validation, which may not run every epoch."""
        if not trainer.sanity_checking:
            self._validated = True
            if self._from_validation is None:
                self._from_validation = self.monitor in trainer.callback_metrics

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise UnknownMonitor if the whole fit logged no such value."""
        if not self._values and self.monitor not in trainer.callback_metrics:
            raise UnknownMonitor(self.monitor, trainer.callback_metrics, "StallDetection")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the epoch, and abort the fit if it has stalled. All ranks abort together."""
        # What the module logs in its own on_train_epoch_end is there one epoch later; what it logs in validation, when
        # validation ran: a value of an earlier epoch says nothing of this one.
        validated, self._validated = self._validated, False
        if self.monitor not in trainer.callback_metrics or (self._from_validation and not validated):
            return
        metrics = trainer.callback_metrics
        self._values.append(float(metrics[self.monitor]))
        reason = self._reason(self._values, self.patience, "epochs")
        if trainer.strategy.reduce_boolean_decision(reason is not None, all=False):
            self.reason = reason or Reason("stall", f"{self.monitor} stalled on another rank", {})
            abort_fit(trainer)
