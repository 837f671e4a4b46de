"""The processes of a job, as the few operations a round needs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch


class Ranks:
    """The processes of a job, as the few operations a round needs; all of them trivial on one process."""

    def __init__(self, trainer: L.Trainer) -> None:
        self._strategy = trainer.strategy
        self._launcher = trainer.strategy.launcher

    def start(self) -> None:
        """Start the other processes and connect to them. Until then ``strategy.broadcast`` silently does nothing."""
        if self._launcher is not None:
            self._launcher.launch(self._strategy.setup_environment)

    @staticmethod
    def _connected() -> bool:
        return torch.distributed.is_available() and torch.distributed.is_initialized()

    @property
    def world(self) -> int:
        """Return how many processes there are."""
        return torch.distributed.get_world_size() if self._connected() else 1

    @property
    def rank(self) -> int:
        """Return which one this is; 0 is the one that writes."""
        return torch.distributed.get_rank() if self._connected() else 0

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self._strategy.broadcast(value) if self.world > 1 else value

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)
        return values
