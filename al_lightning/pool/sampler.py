"""Epochs over part of what is labelled: other records every time, the newest always."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler


class PartSampler(Sampler[int]):
    """Positions of an epoch's records, shuffled: all new ones, and the next of the old ones in a drawn order.

    Over the epochs of a fit every old record is trained on equally often, give or take once: none is left out of a fit
    that goes over most of them a few times.

    Args:
        old: records that were labelled before; positions ``0`` to ``old - 1``.
        new: records that are new; the positions after them.
        size: records of an epoch, ``new <= size <= old + new``.
        seed: of the order; the same on all processes of a job.

    Attributes:
        epoch: how many have begun.
    """

    def __init__(self, *, old: int, new: int, size: int, seed: int) -> None:
        self._order = np.random.default_rng(seed).permutation(old)
        self._new, self._size, self._seed, self.epoch = np.arange(old, old + new), size, seed, 0

    def fit_state(self) -> dict[str, Any]:
        """Return how many epochs have begun."""
        return {"epoch": self.epoch}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """The next epoch is the one after those."""
        self.epoch = state["epoch"]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        count = self._size - len(self._new)
        turn = np.arange(self.epoch * count, (self.epoch + 1) * count) % max(1, len(self._order))
        self.epoch += 1
        positions = np.concatenate([self._order[turn], self._new])
        return iter(np.random.default_rng([self._seed, self.epoch]).permutation(positions).tolist())


class ReplaySampler(Sampler[int]):
    """Positions of an epoch's records, batch by batch: first the new ones of a batch, then old ones.

    Every new record comes once, and old ones in turn, others in every batch. Where both lie in a batch is known, so a
    loss can treat them differently.

    Args:
        old: records that were labelled before; positions ``0`` to ``old - 1``.
        new: records that are new; the positions after them.
        batch: records of a batch; the last one may be smaller.
        replay: old records per new one.
        seed: of the order.

    Attributes:
        epoch: how many have begun.
    """

    def __init__(self, *, old: int, new: int, batch: int, replay: float, seed: int) -> None:
        self._order = np.random.default_rng(seed).permutation(old)
        self._new = np.arange(old, old + new)
        self._seed, self.epoch = seed, 0
        self._rows = max(1, round(batch / (1 + replay)))
        self._batches = -(-new // self._rows)
        self._each = [min(batch - self.new_in(i), round(self.new_in(i) * replay)) for i in range(self._batches)]

    def fit_state(self) -> dict[str, Any]:
        """Return how many epochs have begun."""
        return {"epoch": self.epoch}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """The next epoch is the one after those."""
        self.epoch = state["epoch"]

    def new_in(self, batch: int) -> int:
        """Return how many records of that batch of an epoch, its first ones, are new."""
        return min(self._rows, len(self._new) - batch * self._rows)

    def __len__(self) -> int:
        return len(self._new) + sum(self._each)

    def __iter__(self) -> Iterator[int]:
        turn = self.epoch * sum(self._each)
        new = np.random.default_rng([self._seed, self.epoch]).permutation(self._new)
        self.epoch += 1
        for i, count in enumerate(self._each):
            yield from new[i * self._rows : (i + 1) * self._rows].tolist()
            yield from self._order[np.arange(turn, turn + count) % len(self._order)].tolist()
            turn += count
