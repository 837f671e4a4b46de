"""StallDetection: abort a fit that makes no progress from its start, and begin again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import lightning.pytorch as L
import numpy as np

from al_lightning.callbacks.base import Memory, RoundCallback
from al_lightning.callbacks.round_plateau import Direction, check_mode
from al_lightning.errors import ActiveLearningError, UnknownMonitor
from al_lightning.fit.trainer import abort_fit
from al_lightning.history import History, Reason
from al_lightning.moved import moved
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.stop.false_start import Remedy, remedy_for

LEAST_GAIN = 0.1
"""A fit has to get so far on the way from the reference to the best that rounds before it reached."""

WORSE = 0.5
"""A fit that is worse than the reference by this share of it has diverged."""


def no_progress(
    values: Sequence[float],
    *,
    reference: float | None,
    mode: Direction,
    min_delta: float,
    patience: int,
    reached: float | None = None,
) -> bool:
    """Return whether values never got away from where they started.

    Args:
        values: oldest first. A NaN or infinite last value is a stall at once.
        reference: level a healthy run leaves behind (chance); None means the first value.
        mode: whether higher or lower is better.
        min_delta: distance from the reference that progress must exceed.
        patience: values that must have come in before anything is decided; without a reference, after the first.
        reached: best value of rounds before; a tenth of the way to it, from a reference, is the least progress.

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
    if reference is not None and reached is not None and math.isfinite(reached):
        min_delta = max(min_delta, LEAST_GAIN * sign * (reached - reference))
    return max(sign * v for v in judged) <= sign * start + min_delta


def fell_back(values: Sequence[float], *, reference: float | None, mode: Direction, patience: int) -> bool:
    """Return whether the later half of ``patience`` values or more is worse than a reference by half of it.

    A fit that does clearly worse than a model that knows nothing is driven there: its learning rate is too high.
    """
    if reference is None or len(values) < patience:
        return False
    sign = 1.0 if mode == "max" else -1.0
    later = values[(len(values) - 1) // 2 :]
    return max(sign * v for v in later) < sign * reference - WORSE * abs(reference)


def chance_level(labels: Sequence[Any], mode: Direction) -> float:
    """Return what a model reaches that answers with the labels' frequencies.

    Args:
        labels: classes, ``(n,)``.
        mode: ``"min"``: their entropy in nats, the least cross-entropy of a constant answer; ``"max"``: the share of
            the commonest class, its best accuracy.
    """
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    share = counts / counts.sum()
    return float(share.max()) if mode == "max" else float(max(0.0, -(share * np.log(share)).sum()))


@dataclass
class Reached(Memory):
    """The best value that the fits of an experiment have ended with, and how the last one stood."""

    reached: float | None = None
    fit: dict[str, Any] | None = None


@moved(
    accuracy="al_lightning.stop.FalseStart(accuracy), beside StallDetection in stop=[...]",
    agreement="al_lightning.stop.FalseStart(accuracy, agreement=...)",
    control="al_lightning.stop.FalseStart(accuracy, control=...)",
    min_gap="al_lightning.stop.FalseStart(accuracy, min_gap=...)",
    remedy="the cause decides, and a subclass with remedy_for() may decide otherwise",
    rounds="al_lightning.stop.FalseStart(accuracy) watches rounds, against a control",
)
@dataclass(eq=False)
class StallDetection(RoundCallback):
    """Abort a fit that never leaves its start, and begin again.

    A stalled fit is aborted at once and leaves a ``reason``. Only the loop restarts it: ``ActiveLearner`` draws new
    weights, and where the cause asks for it lowers the learning rate or buys a fresh diverse selection on top of the
    labels already paid, at most ``max_restarts`` times in a run; then the run stops with the reason ``gave_up``. All
    aborted work stays on the bill. A hand-written loop looks at the ``reason`` after every fit, and does not score with
    a model that stalled. :class:`~al_lightning.stop.false_start.FalseStart` watches rounds, and stands beside it.

    Args:
        monitor: name the module logs in every epoch, for example ``"train_loss"``.
        mode: ``"min"`` for losses, ``"max"`` for metrics.
        reference: level every healthy run leaves behind, for example ``log(n_classes)`` for cross-entropy. ``"chance"``
            reads it off the classes of the records trained on: their entropy for ``"min"``, the share of the commonest
            for ``"max"``. None: the first epoch's value; give one where fits start from warm weights, which may have no
            way left to go from there.
        min_delta: distance from the reference that progress must exceed.
        patience: epochs a fit is given, a number (int) or a share of the fit's epochs (float).
        max_restarts: restarts in a run before it gives up.

    Example:
        >>> stall = StallDetection("train_loss", reference="chance", patience=0.5)
        >>> stall.reason is None
        True
    """

    monitor: str
    mode: Direction = "min"
    reference: float | Literal["chance"] | None = None
    min_delta: float = 0.0
    patience: int | float = 3
    max_restarts: int = 3

    memory_type: ClassVar[type[Memory]] = Reached

    reached: float | None = field(default=None, init=False, repr=False)
    _told: bool = field(default=False, init=False, repr=False)
    _values: list[float] = field(default_factory=list, init=False, repr=False)
    _start: float | None = field(default=None, init=False, repr=False)
    _validated: bool = field(default=False, init=False, repr=False)
    _from_validation: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_mode(self.mode, "StallDetection")
        for name, least in (("max_restarts", 0), ("min_delta", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"StallDetection({name}={getattr(self, name)}): at least {least}.")
        share = isinstance(self.patience, float)
        if not (0 < self.patience <= 1 if share else self.patience >= 1):
            raise ValueError(
                f"StallDetection(patience={self.patience}): epochs (int), at least 1, or a share of the fit's epochs "
                "(float), 0 < share <= 1."
            )
        if isinstance(self.reference, str) and self.reference != "chance":
            raise ValueError(f"StallDetection(reference={self.reference!r}): allowed are a number, 'chance' and None.")

    def remedy_for(self, reason: Reason, tried: Sequence[Remedy]) -> Remedy:
        """Return what to do about a stall, given the remedies of the run so far."""
        return remedy_for(reason.numbers.get("cause", "chance"), tried)

    def expect(self, history: History) -> None:
        """Take in what the rounds so far have reached; the learner calls it before every fit."""
        values = [v for v in history.values(self.monitor) if math.isfinite(v)]
        self.reached = (max if self.mode == "max" else min)(values) if values else None
        self._told = True

    # ---- within a fit --------------------------------------------------------------------------------------------

    def _reason(self, values: Sequence[float], reference: float | None, patience: int) -> Reason | None:
        settings: dict[str, Any] = {"mode": self.mode, "min_delta": self.min_delta, "patience": patience}
        reached = self.reached
        stalled = no_progress(values, reference=reference, reached=reached, **settings)
        diverged = fell_back(values, reference=reference, mode=self.mode, patience=patience)
        if not stalled and not diverged:
            return None
        start = values[0] if reference is None else reference
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        sentence = (
            f"{self.monitor} stands at {values[-1]:.4g} after {len(values)} epochs, not better than {start:.4g}{by}"
        )
        alone = no_progress(values, reference=reference, **settings)
        cause = "diverged" if diverged or not math.isfinite(values[-1]) else "chance" if alone else "previous"
        if cause == "previous":
            sentence = (
                f"{self.monitor} stands at {values[-1]:.4g} after {len(values)} epochs, no tenth of the way from "
                f"{start:.4g} to the {reached:.4g} of the rounds before"
            )
        numbers = {"monitor": self.monitor, "values": list(values), "reference": start}
        return Reason("stall", sentence, {"cause": cause, **numbers})

    def _begin(self, trainer: L.Trainer) -> float | None:
        if self.reference != "chance":
            assert not isinstance(self.reference, str)
            return self.reference
        pool: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pool, PoolDataModule) or pool.task not in ("multiclass", "binary"):
            raise ActiveLearningError(
                "StallDetection(reference='chance') counts classes of a PoolDataModule, task multiclass or binary: "
                "give the reference as a number."
            )
        labels = pool.state.labels
        ids = labels if pool.train_ids is None else pool.train_ids.tolist()
        return chance_level([labels[i] for i in ids], self.mode)

    def _patience(self, trainer: L.Trainer) -> int:
        if isinstance(self.patience, int):
            return self.patience
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise ActiveLearningError(
                f"StallDetection(patience={self.patience}) is a share of the fit's epochs, and this fit has no limit "
                "on them: set max_epochs, or give patience as a whole number."
            )
        return math.ceil(self.patience * trainer.max_epochs)

    def _one_class(self) -> Reason | None:
        start = self._start
        if self.reference != "chance" or start is None:
            return None
        left = start if self.mode == "min" else 1 - start  # what the best model could still gain
        if left > self.min_delta:
            return None
        numbers = {"cause": "one_class", "monitor": self.monitor, "values": list(self._values), "reference": start}
        sentence = f"the labelled records are of one class but for {left:.4g} of {self.monitor}: nothing to tell apart"
        return Reason("stall", sentence, numbers)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget the last fit, and of another experiment the fits before."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self.reason, self._values = None, []
        self._validated, self._from_validation = False, None
        if self._told:
            self._memory.reached = self.reached
        self.reached, self._told = self._memory.reached, False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look up what a healthy fit leaves behind."""
        super().on_fit_start(trainer, pl_module)
        self._start = self._begin(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the best of the fits before, and how this one stands."""
        return super().state_dict() and {"reached": self.reached, "fit": self.fit_state()}

    def _resumed(self, trainer: L.Trainer) -> None:
        self.reached = self._memory.reached
        if self._memory.fit is not None:
            self.load_fit_state(self._memory.fit)

    def fit_state(self) -> dict[str, Any]:
        """The values of the fit so far."""
        return {"values": self._values, "validated": self._validated, "from_validation": self._from_validation}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """Watch on from there."""
        self._values, self._validated = list(state["values"]), state["validated"]
        self._from_validation = state["from_validation"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Learn whether the monitored value comes from validation, which may not run every epoch."""
        if not trainer.sanity_checking:
            self._validated = True
            if self._from_validation is None:
                self._from_validation = self.monitor in trainer.callback_metrics

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember how far the fit got; raise UnknownMonitor if all of it logged no such value."""
        if not self._values and self.monitor not in trainer.callback_metrics:
            raise UnknownMonitor(self.monitor, trainer.callback_metrics, "StallDetection")
        if self.reason is None and self._values and math.isfinite(self._values[-1]):
            known = [self._values[-1], *([] if self.reached is None else [self.reached])]
            self.reached = self._memory.reached = (max if self.mode == "max" else min)(known)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the epoch, and abort the fit if it has stalled. All ranks abort together."""
        # What the module logs in its own on_train_epoch_end is there one epoch later; what it logs in validation, when
        # validation ran: a value of an earlier epoch says nothing of this one.
        validated, self._validated = self._validated, False
        if self.monitor not in trainer.callback_metrics or (self._from_validation and not validated):
            return
        metrics = trainer.callback_metrics
        self._values.append(float(metrics[self.monitor]))
        reason = self._one_class() or self._reason(self._values, self._start, self._patience(trainer))
        if trainer.strategy.reduce_boolean_decision(reason is not None, all=False):
            self._decided(reason or Reason("stall", f"{self.monitor} stalled on another rank", {}))
            abort_fit(trainer)
