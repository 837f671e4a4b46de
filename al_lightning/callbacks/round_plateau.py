"""RoundPlateau: stop when more labels no longer move the metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning.pytorch as L

from al_lightning.callbacks.base import RoundCallback
from al_lightning.errors import UnknownMonitor
from al_lightning.history import History, Reason

Direction = Literal["max", "min"]


def check_mode(mode: str, who: str) -> None:
    """Raise ValueError unless mode is ``max`` or ``min``."""
    if mode not in ("max", "min"):
        raise ValueError(f"{who}(mode={mode!r}): allowed are 'max' and 'min'.")


def rounds_without_progress(values: Sequence[float], *, mode: Direction, min_delta: float) -> int:
    """How many of the last values failed to beat the best before them by more than ``min_delta``.

    Args:
        values: one per round, oldest first; NaN never counts as progress.
        mode: whether higher or lower is better.
        min_delta: what an improvement must exceed.
    """
    sign = 1.0 if mode == "max" else -1.0
    best, since = -math.inf, 0
    for value in values:
        if sign * value > best + min_delta:
            best, since = sign * value, 0
        else:
            since += 1
    return since


@dataclass(eq=False)
class RoundPlateau(RoundCallback):
    """Stop the run when a metric, or the loss, has not improved for some rounds.

    As a stopping rule it goes into ``ActiveLearner(stop=[...])`` or ``Trainer(callbacks=[...])``; in a hand-written
    loop the callback asks the pool to stop (``pool.stop_reason``).

    Args:
        monitor: name the module logs, for example ``"val_acc"``.
        mode: ``"max"`` for metrics, ``"min"`` for losses.
        min_delta: an improvement must exceed this, in the metric's own unit.
        patience: rounds without improvement before the run stops.
    """

    monitor: str
    mode: Direction = "max"
    min_delta: float = 0.0
    patience: int = 2

    _values: list[float] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        check_mode(self.mode, "RoundPlateau")
        if self.min_delta < 0:
            raise ValueError(f"RoundPlateau(min_delta={self.min_delta}): 0 or more.")
        if self.patience < 1:
            raise ValueError(f"RoundPlateau(patience={self.patience}): rounds, at least 1.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the history; raises UnknownMonitor if no round logged the metric."""
        if history.rounds and self.monitor not in history.rounds[-1].metrics:
            raise UnknownMonitor(self.monitor, history.rounds[-1].metrics, "RoundPlateau")
        return self._decide(history.values(self.monitor))

    def _decide(self, values: Sequence[float]) -> Reason | None:
        since = rounds_without_progress(values, mode=self.mode, min_delta=self.min_delta)
        if since < self.patience:
            return None
        sentence = (
            f"{self.monitor} has not improved by more than {self.min_delta:g} for {since} rounds (now {values[-1]:.4g})"
        )
        return Reason("plateau", sentence, {"monitor": self.monitor, "values": list(values), "rounds": since})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """In a hand-written loop: look at this round's metric, and ask the pool to stop."""
        if self.new_loop(trainer):
            self._values = []
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.monitor not in metrics:
            raise UnknownMonitor(self.monitor, metrics, "RoundPlateau")
        self._values.append(metrics[self.monitor])
        reason = self._decide(self._values)
        pool: Any = trainer.datamodule  # type: ignore[attr-defined]
        if reason is not None and hasattr(pool, "request_stop"):
            pool.request_stop(reason)
