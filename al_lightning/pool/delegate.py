"""What a model finds as ``trainer.datamodule`` where the pool wraps the user's LightningDataModule: theirs, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.trainer.states import TrainerFn

from al_lightning.checks.packages import check_package
from al_lightning.pool.wrapped import defines

_SETTINGS = ("prepare_data_per_node", "allow_zero_length_dataloader_with_multiple_devices", "_log_hyperparams")


class Delegate(L.LightningDataModule):
    """Stand before the user's LightningDataModule, and pass on what is theirs.

    Attributes, methods and hyperparameters that the pool does not have itself are those of :attr:`inner`, to read and
    to set. ``prepare_data`` and ``setup`` of the wrapped DataModule run once, before the first fit, and its
    ``teardown`` once, when the run is over: an unseeded split must not change between rounds. ``state_dict``,
    ``load_state_dict`` and ``on_exception`` are called whenever Lightning calls ours.

    Attributes:
        inner: the wrapped DataModule; None where the pool wraps a dataset.
    """

    inner: L.LightningDataModule | None

    def __init__(self) -> None:
        self.inner = None
        self._trainer: L.Trainer | None = None
        self._stages: set[str] = set()  # that the wrapped DataModule is set up for
        self._torn_down = False
        super().__init__()

    def wrap(self, inner: L.LightningDataModule | None) -> None:
        """Stand before this DataModule from now on."""
        if inner is not None:
            for name in _SETTINGS:
                setattr(self, name, getattr(inner, name))
            self.inner = inner

    # ---- attributes --------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("inner")
        if inner is None or name.startswith("__") or hasattr(type(self), name):
            return object.__getattribute__(self, name)  # raises; what a property of ours has raised, once more
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        inner = self.__dict__.get("inner")
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if inner is None or own or not hasattr(inner, name):
            super().__setattr__(name, value)
        else:
            setattr(inner, name, value)

    @property
    def trainer(self) -> L.Trainer | None:
        """The Trainer that this DataModule is attached to; the wrapped one is, too."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: L.Trainer | None) -> None:
        check_package(trainer, "PoolDataModule")  # before Lightning looks for a hook, which it would not find
        self._trainer = trainer
        if self.inner is not None:
            self.inner.trainer = trainer

    # ---- hooks -------------------------------------------------------------------------------------------------

    def set_up_inner(self, stage: str) -> None:
        """Run the wrapped DataModule's ``setup`` for a stage, unless it is set up for it."""
        if self.inner is not None and stage not in self._stages:
            self.inner.setup(stage=TrainerFn(stage))  # as Lightning calls it
            self._stages.add(stage)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the wrapped DataModule set up while rounds go on; then its ``teardown`` runs, for each of its stages."""
        try:
            yield
        finally:
            if defines(self.inner, "teardown") and self._stages:
                self._torn_down = True
                for stage in sorted(self._stages):
                    self.teardown(stage)

    def teardown(self, stage: str) -> None:
        """Run the wrapped DataModule's ``teardown``, once no round follows."""
        if self.inner is not None and self._torn_down and stage in self._stages:
            self._stages.discard(stage)
            self.inner.teardown(stage=TrainerFn(stage))

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped DataModule, for checkpoints; the pool's own is in the run folder."""
        return super().state_dict() if self.inner is None else self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give the wrapped DataModule its state."""
        if self.inner is not None:
            self.inner.load_state_dict(state_dict)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the wrapped DataModule."""
        if self.inner is not None:
            self.inner.on_exception(exception)
