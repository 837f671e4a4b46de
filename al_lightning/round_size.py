"""How many labels each round asks for. Fewer, larger rounds are the cheapest lever on compute.

A round size is any function of the history: it returns the size of the next query, and 0 means that there is no
further round. It is a wish: the caller cuts it to what the pool and the budget still hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from al_lightning.history import History


class RoundSize(Protocol):
    """Maps the history to the size of the next query; 0 means no further round."""

    def __call__(self, history: History, /) -> int: ...


def _check_size(value: object, setting: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{setting}={value!r}: a round asks for a whole number of labels, allowed: 1 or more.")


@dataclass(frozen=True)
class Fixed:
    """The same number of labels every round.

    Args:
        size: labels per round.
        first: labels in the first round, ``size`` by default.
    """

    size: int
    first: int | None = None

    def __post_init__(self) -> None:
        _check_size(self.size, "Fixed: size")
        if self.first is not None:
            _check_size(self.first, "Fixed: first")

    def __call__(self, history: History, /) -> int:
        return self.first if self.first is not None and history.round == 0 else self.size


@dataclass(frozen=True)
class Growing:
    """Rounds that multiply the labelled set by a factor: 200, 200, 400, 800 labels for ``Growing(200, 2.0)``.

    The size follows the labels that are there, not the labels that were asked for: refused records are not made up.
    Training from scratch every round then costs at most ``factor / (factor - 1)`` times the last round's training.

    Args:
        first: labels in the first round, and in every round until one label has arrived.
        factor: labelled records after a round / before it, more than 1.
    """

    first: int
    factor: float = 2.0

    def __post_init__(self) -> None:
        _check_size(self.first, f"{type(self).__name__}: first")
        if not 1 < self.factor < float("inf"):
            raise ValueError(
                f"{type(self).__name__}: factor={self.factor}: the labelled set is multiplied by it, allowed: more "
                "than 1. Use Fixed for rounds that do not grow."
            )

    def __call__(self, history: History, /) -> int:
        if history.round == 0 or history.labelled == 0:
            return self.first
        return max(1, round(history.labelled * (self.factor - 1)))


@dataclass(frozen=True)
class Doubling(Growing):
    """Rounds that double the labelled set: :class:`Growing` with a factor of 2."""

    factor: float = field(default=2.0, init=False)


@dataclass(frozen=True)
class Listed:
    """Sizes written down, one per round; no further round after the last.

    Args:
        sizes: labels per round, at least one round.
    """

    sizes: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not self.sizes:
            raise ValueError("Listed(sizes=[]): no round at all; allowed: one size or more.")
        for size in self.sizes:
            _check_size(size, "Listed: one of sizes")

    def __call__(self, history: History, /) -> int:
        return self.sizes[history.round] if history.round < len(self.sizes) else 0


@dataclass(frozen=True)
class Spread:
    """A number of labels, spread evenly over a number of rounds.

    What is still to be bought is divided by the rounds that are left: refused records are asked for again later, and
    labels that were there before the run make its rounds smaller.

    Args:
        labels: labelled records after the last round.
        rounds: how many rounds.
    """

    labels: int
    rounds: int

    def __post_init__(self) -> None:
        _check_size(self.labels, "Spread: labels")
        if not isinstance(self.rounds, int) or not 1 <= self.rounds <= self.labels:
            raise ValueError(f"Spread: rounds={self.rounds!r}: a whole number, allowed: 1 to labels={self.labels}.")

    def __call__(self, history: History, /) -> int:
        missing = max(0, self.labels - history.labelled)
        return math.ceil(missing / max(1, self.rounds - history.round))


__all__ = ["Doubling", "Fixed", "Growing", "Listed", "RoundSize", "Spread"]
