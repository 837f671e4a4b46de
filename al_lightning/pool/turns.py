"""The turns of a loop the user writes by hand."""

from __future__ import annotations

from collections.abc import Callable

from al_lightning.seeds import generator


class Loop:
    """Tells one ``pool.rounds(...)`` from the next: callbacks remember each by itself."""


class Round:
    """One turn of a hand-written loop: fit, score, label.

    Attributes:
        number: 1 for the first.
        rng: generator of this seed and round; ``Strategy.pick`` uses it.
    """

    def __init__(self, number: int, size: int, seed: int, stopped: Callable[[], bool]) -> None:
        self.number = number
        self.rng = generator(seed, number, "query")
        self._size, self._stopped = size, stopped

    @property
    def size(self) -> int:
        """Records to query in this round; 0 in the last one, and as soon as a callback has asked to stop."""
        return 0 if self._stopped() else self._size

    @property
    def final(self) -> bool:
        """Return whether this round only trains: nothing is queried after it."""
        return self.size == 0
