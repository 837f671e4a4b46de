"""When a fit of a round validates: as the Trainer says, and at its end where it is too short for that.

With trainer.py and state.py a module that touches Lightning's inside. All of it is on a copy of the user's Trainer.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L


def keep_cadence(trainer: L.Trainer) -> None:
    """Have the coming fit of a fresh copy validate though it is shorter than the Trainer's cadence was made for.

    - A fit of other than the Trainer's epochs, or one that would never validate, validates at its end too.
    - ``val_check_interval`` batches that an epoch over few labels does not have are as many as it has.
    - ``ReduceLROnPlateau`` waits for the first validation, where what it monitors is not there before.

    Args:
        trainer: a copy, before the epochs of its fit are set.
    """
    Cadence(trainer)


def cadence_of(trainer: L.Trainer) -> Cadence:
    """Return what :func:`keep_cadence` has put on a copy."""
    cadence = trainer.fit_loop.epoch_loop._should_check_val_fx.__self__  # type: ignore[attr-defined]
    assert isinstance(cadence, Cadence)
    return cadence


class Cadence:
    """Says when a fit validates, and knows whether it has.

    Args:
        trainer: a copy, whose loops ask it from here on.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        loop = trainer.fit_loop
        self._trainer, self._epochs, self._validated = trainer, loop.max_epochs, False
        self._steps = loop.epoch_loop.max_steps
        self._setup_data, self._should = loop.setup_data, loop.epoch_loop._should_check_val_fx
        self._update = loop.epoch_loop._update_learning_rates
        loop.setup_data = self.setup_data  # type: ignore[method-assign]
        loop.epoch_loop._should_check_val_fx = self.should_validate  # type: ignore[method-assign]
        loop.epoch_loop._update_learning_rates = self.update_rates  # type: ignore[method-assign]

    def fit_state(self) -> dict[str, Any]:
        """Return whether it has validated: Lightning counts passes of an epoch alone."""
        return {"validated": self._validated}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._validated = state["validated"]

    def setup_data(self) -> None:
        """Set up the training data, as Lightning does, though an epoch has fewer batches than an interval."""
        trainer, every = self._trainer, self._trainer.check_val_every_n_epoch
        in_batches = isinstance(trainer.val_check_interval, int)
        if in_batches:
            trainer.check_val_every_n_epoch = None  # Lightning would refuse an interval longer than the epoch
        try:
            self._setup_data()
        finally:
            trainer.check_val_every_n_epoch = every
        if in_batches and every is not None and trainer.val_check_batch is not None:
            trainer.val_check_batch = min(trainer.val_check_batch, trainer.fit_loop.max_batches)

    def should_validate(self, data_fetcher: Any) -> bool:
        """Tell whether it validates after this batch."""
        planned = self._should(data_fetcher)
        shortened = self._trainer.fit_loop.max_epochs != self._epochs
        tuning = self._trainer.fit_loop.epoch_loop.max_steps != self._steps  # a finder's own loop
        last = self._trainer.enable_validation and (shortened or not self._validated) and self._ends() and not tuning
        self._validated |= planned or last
        return planned or last

    def _ends(self) -> bool:
        loop = self._trainer.fit_loop
        steps = 0 <= self._trainer.max_steps <= loop.epoch_loop.global_step
        return steps or (
            self._trainer.current_epoch + 1 == loop.max_epochs and loop.epoch_loop._num_ready_batches_reached()
        )

    def update_rates(self, interval: str, update_plateau_schedulers: bool) -> None:
        """Step the schedulers, those on a plateau once there is what they monitor."""
        strategy, kept = self._trainer.strategy, self._trainer.strategy.lr_scheduler_configs
        if self._trainer.enable_validation and not self._validated:
            known = self._trainer.callback_metrics
            strategy.lr_scheduler_configs = [c for c in kept if not c.reduce_on_plateau or c.monitor in known]
        try:
            self._update(interval, update_plateau_schedulers)
        finally:
            strategy.lr_scheduler_configs = kept
