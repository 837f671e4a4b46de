"""What the callbacks of a hand-written loop share: they look across the fits of an experiment, and know which it is."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from al_lightning.fit.trainer import check_untrained
from al_lightning.history import Reason


@dataclass
class Memory:
    """Hold what a callback remembers of an experiment, as plain values and tensors; a subclass adds the fields."""

    def state(self) -> dict[str, Any]:
        """The fields, as a checkpoint keeps them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def stalled(trainer: L.Trainer) -> bool:
    """Return whether a StallDetection among the callbacks has aborted this Trainer's fit."""
    reasons = (getattr(callback, "reason", None) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return any(isinstance(reason, Reason) and reason.kind == "stall" for reason in reasons)


class RoundCallback(Callback):
    """A callback that looks across fits: one object for all Trainers of an experiment, and for several experiments.

    Fits belong to one experiment where they are of one ``pool.rounds(...)``, or else of the same module with the same
    DataModule. Plain loaders tell nothing: with them it is the module alone, and the same module fitted on more data is
    in its next round. Each experiment is remembered by itself, so two may take turns. docs/adr/0020 has the reasons.

    Copies of a Trainer, by ``copy.deepcopy`` too, share the object. A pickle holds its settings only; what it remembers
    goes into Lightning's checkpoints, and ``fit(ckpt_path=...)`` brings it back.

    Attributes:
        reason: what was decided last; None where nothing was, and as another experiment begins.
    """

    al_shared = True

    memory_type: ClassVar[type[Memory]] = Memory
    of_weights: ClassVar[bool] = False
    """Whether it remembers weights: then each module of a ``pool.rounds(...)`` is remembered by itself."""

    reason: Reason | None = None

    _memory: Any = None
    _known: tuple[tuple[tuple[weakref.ref[Any], ...], Any], ...] = ()
    _given: dict[str, Any] | None = None
    _stage: str | None = None
    _trainer: weakref.ref[L.Trainer] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out which experiment the fit is of."""
        self._stage, self._trainer = stage, weakref.ref(trainer)
        if stage == "fit":
            self._recall(self._anchors(trainer, pl_module))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look whether the Trainer is a fresh one.

        Raises:
            UnsupportedTrainer: it has trained before, and would go on from there: for 0 epochs, mostly.
        """
        check_untrained(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget the Trainer."""
        self._stage = self._trainer = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Forget the Trainer; Lightning does not tear down after an exception."""
        self._stage = self._trainer = None

    def _anchors(self, trainer: L.Trainer, module: L.LightningModule) -> tuple[Any, ...]:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        loop = getattr(datamodule, "loop", None)
        if loop is not None:
            return (loop, module) if self.of_weights else (loop,)
        return (module,) if datamodule is None else (module, datamodule)

    def _recall(self, anchors: tuple[Any, ...]) -> None:
        alive = tuple(known for known in self._known if all(ref() is not None for ref in known[0]))
        found = next((memory for refs, memory in alive if _same(refs, anchors)), None)
        if found is None:
            if self._known:
                rank_zero_info(
                    f"{type(self).__name__}: a model, DataModule or pool.rounds() that it has not seen begins another "
                    "experiment; what it remembers of others is left out of this one."
                )
            found = self.memory_type(**(self._given or {}))
            alive = (*alive, (tuple(map(weakref.ref, anchors)), found))
        if found is not self._memory:
            self.reason = None
        self._memory, self._known, self._given = found, alive, None

    def _decided(self, reason: Reason) -> None:
        """Keep the reason, and say it."""
        self.reason = reason
        rank_zero_info(f"{type(self).__name__}: {reason}.")

    # ---- across processes ----------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Tell several of one class in a Trainer apart: by what they monitor."""
        monitor = getattr(self, "monitor", None)
        return super().state_key if monitor is None else self._generate_state_key(monitor=monitor)

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers of the experiment it has seen last."""
        return {} if self._memory is None else self._memory.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, in a fit that resumes from a checkpoint; or in the first fit, where there was none yet.

        ``trainer.test(ckpt_path=...)`` and its like hand over the state of an older round: that changes nothing.
        """
        trainer = self._trainer() if self._trainer is not None else None
        if self._stage == "fit" and trainer is not None:
            for name, value in state_dict.items():
                setattr(self._memory, name, value)
            self._resumed(trainer)
        elif self._stage is None and not self._known:
            self._given = state_dict

    def _resumed(self, trainer: L.Trainer) -> None:
        """Take in memory that a checkpoint has changed while the fit is set up."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RoundCallback:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in vars(RoundCallback)}


def _same(refs: tuple[weakref.ref[Any], ...], anchors: tuple[Any, ...]) -> bool:
    return len(refs) == len(anchors) and all(ref() is anchor for ref, anchor in zip(refs, anchors, strict=True))
