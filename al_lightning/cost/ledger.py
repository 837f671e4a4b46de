"""The ledger: every unit of work, as it happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan, nan

PHASES = (
    *("preflight", "embed", "cluster", "neighbours", "score", "select", "agree"),
    *("train", "validate", "control", "aborted", "lost"),
)
"""What work is for. ``preflight`` is a batch of everything before anything is bought; ``agree`` is the stop set;
``control`` is a fit on random records that a run is held against; ``aborted`` is all work of a fit that was thrown
away; ``lost`` is work that an interruption cost, and that was done again after it."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Work of one kind in one round.

    Args:
        phase: one of :data:`PHASES`.
        round: queries committed when the work was done.
        records: records that went through the model (or the algorithm), epochs counted.
        flops: floating-point operations, 2 per multiply-add, measured on the user's model; NaN where they could not be
            counted.
        seconds: wall-clock time.
        bytes: read of the records' files, where the dataset counts them (``ParquetShards``, ``TarShards``).
    """

    phase: str
    round: int
    records: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    bytes: int = 0

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"phase is {self.phase!r}; allowed: {', '.join(PHASES)}.")


def stored(flops: float) -> float:
    """FLOPs for a column that takes no NaN: below 0 where they are unknown."""
    return -1.0 if isnan(flops) else flops


def restored(flops: float) -> float:
    """Return what :func:`stored` was given."""
    return nan if flops < 0 else flops


def since(moment: float) -> float:
    """Seconds since a reading of ``time.perf_counter``; 0 where a clock has gone backwards."""
    return max(0.0, time.perf_counter() - moment)


class Stopwatch:
    """Seconds of a ``with`` block, readable inside and after it."""

    def __init__(self) -> None:
        self._start = 0.0
        self._took: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the block began, until it ended."""
        return since(self._start) if self._took is None else self._took

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Stopwatch]:
        """Time the block."""
        watch = cls()
        watch._start = time.perf_counter()
        try:
            yield watch
        finally:
            watch._took = since(watch._start)
