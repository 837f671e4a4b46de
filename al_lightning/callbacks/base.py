"""What the callbacks of a hand-written loop share."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback


class RoundCallback(Callback):
    """A callback that looks across rounds: one object for all copies of a Trainer, reset when a new loop begins."""

    al_shared = True

    _loop: object = None

    def new_loop(self, trainer: L.Trainer) -> bool:
        """Whether this is the first fit of a loop: of a ``pool.rounds(...)``, or with another DataModule."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        loop = getattr(datamodule, "loop", datamodule)
        changed = loop is not self._loop
        self._loop = loop
        return changed
