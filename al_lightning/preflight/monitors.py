"""Whether everything that is monitored is logged: asked after one batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from al_lightning.callbacks.watch import Watch
from al_lightning.errors import UnknownMonitor
from al_lightning.fit.trainer import abort_fit
from al_lightning.stop.base import every_rule

Monitors = list[tuple[str, str]]
"""Who monitors, and what."""


def monitors_of(trainer: L.Trainer) -> Monitors:
    """Return what callbacks of a Trainer cannot do without."""
    found: Monitors = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        strict = not isinstance(callback, EarlyStopping) or callback.strict
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor and strict:
            found.append((type(callback).__name__, callback.monitor))
    return found


def monitors_of_rules(rules: Iterable[Any], watch: Watch) -> Monitors:
    """Return what stopping rules read of a round."""
    found = [(type(rule).__name__, rule.monitor) for rule in every_rule(rules) if isinstance(_of(rule), str)]
    if watch.fits is not None:
        found.append(("StallDetection", watch.fits.monitor))
    if watch.rounds is not None:
        found.append(("FalseStart", watch.rounds.accuracy))
    return found


def _of(rule: Any) -> Any:
    return getattr(rule, "monitor", None)


def logs(callback: Callback) -> bool:
    """Return whether code of a callback's own may log something, which a rehearsal that leaves it out does not see."""
    classes = [cls for cls in type(callback).__mro__ if not cls.__module__.startswith(("lightning.", "al_lightning."))]
    values = [value for owner in (*classes, callback) for value in vars(owner).values()]
    codes = [code for value in values if (code := getattr(value, "__code__", None)) is not None]
    return any({"log", "log_dict", "callback_metrics"} & set(code.co_names) for code in codes)


def check_monitors(monitors: Monitors, logged: Iterable[str]) -> None:
    """Raise UnknownMonitor, which names what there is, for the first that is not logged."""
    names = set(logged)
    for who, monitor in monitors:
        if monitor not in names:
            raise UnknownMonitor(monitor, names, who)


class OneBatch(Callback):
    """End a fit after its first batch and a validation, and hold nobody up who waits for what is not logged.

    Attributes:
        monitors: of callbacks and of learning-rate schedulers.
    """

    def __init__(self) -> None:
        self.monitors: Monitors = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.monitors += monitors_of(trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                callback.strict = False  # all names are known at the end only, and then looked at
        for config in trainer.strategy.lr_scheduler_configs:
            if config.reduce_on_plateau and config.strict and config.monitor:
                self.monitors.append((type(config.scheduler).__name__, config.monitor))
            config.strict = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        abort_fit(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set_aside(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._set_aside(trainer)

    def _set_aside(self, trainer: L.Trainer) -> None:
        for callback in trainer.checkpoint_callbacks:
            known = {None, *trainer.callback_metrics}
            if isinstance(callback, ModelCheckpoint) and callback.monitor not in known:
                callback.save_top_k = 0
