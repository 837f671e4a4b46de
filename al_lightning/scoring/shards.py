"""Which shard is scored next, and what is done when a worker is lost, slow, or stumbles over a record.

No cluster in here: the same schedule runs on Ray (:mod:`al_lightning.scoring.ray.scorer`) and in a simulation.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from al_lightning.errors import PoisonedRecord

LOSSES = 3
"""Workers that may die over a shard before it is a suspect and taken apart, and over a record before it is named.

What is between, parts of a suspect, is taken apart when one more worker dies."""
SLOW = 3.0
"""A shard that has taken this many times the median is given to an idle worker as well."""
LATE = 1.0
"""And this many seconds more: less is not worth a second pass."""
_RECENT = 128
"""Shards whose duration counts."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A task: it can be done by any worker, and again, with the same result.

    Args:
        number: its name in messages; parts of a shard keep it.
        start: where its first id stands among all ids that are asked about.
        ids: ``(n,)``.
    """

    number: int
    start: int
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        return f"shard {self.number} ({len(self)} records, ids {self.ids.min()} to {self.ids.max()})"

    def halves(self, batch: int) -> list[Shard]:
        """Two smaller ones, cut between batches as long as there are several, so that batches stay what they were."""
        middle = len(self) // 2
        if len(self) > batch:
            middle = max(batch, middle // batch * batch)
        return [
            Shard(self.number, self.start, self.ids[:middle]),
            Shard(self.number, self.start + middle, self.ids[middle:]),
        ]


def cut(ids: np.ndarray, *, size: int, batch: int) -> list[Shard]:
    """Shards of about ``size`` records: whole batches, the same ones that one process would make of all ids.

    Args:
        ids: ``(n,)``.
        size: records of a shard, rounded up to whole batches.
        batch: records of a batch.
    """
    step = -(-size // batch) * batch
    return [Shard(i, start, ids[start : start + step]) for i, start in enumerate(range(0, len(ids), step))]


@dataclass(frozen=True, eq=False)
class Attempt:
    """A shard on a worker."""

    shard: Shard
    worker: Hashable
    since: float


class Schedule:
    """Hands out shards until every one of them has been answered for.

    A lost worker costs what it had in flight. When nothing is left to hand out, idle workers get copies of what is slow
    elsewhere, and the first answer counts. A shard that fails is tried once more, then taken apart until the record at
    fault stands alone; so is one over which several workers have died.

    Args:
        shards: what to do.
        batch: records of a batch, between which shards are taken apart.
        clock: seconds.
    """

    def __init__(self, shards: Sequence[Shard], *, batch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting, self._batch, self._clock = deque(shards), batch, clock
        self.running: set[Attempt] = set()
        self.issued = 0
        self.unfinished = len(shards)
        self._copies: Counter[Shard] = Counter()
        self._losses: Counter[Shard] = Counter()
        self._tried: set[Shard] = set()
        self._closed: set[Shard] = set()
        self._recent: deque[float] = deque(maxlen=_RECENT)

    @property
    def pace(self) -> float | None:
        """Seconds that a shard takes, the median; None before one was done."""
        return statistics.median(self._recent) if self._recent else None

    def next(self, worker: Hashable) -> Attempt | None:
        """Return what an idle worker does next, if there is anything to do."""
        while self._waiting and self._waiting[0] in self._closed:  # a copy has answered since it was put back
            self._waiting.popleft()
        shard = self._waiting.popleft() if self._waiting else self._slowest()
        if shard is None:
            return None
        attempt = Attempt(shard, worker, self._clock())
        self.running.add(attempt)
        self._copies[shard] += 1
        self.issued += len(shard)
        return attempt

    def _slowest(self) -> Shard | None:
        pace, now = self.pace, self._clock()
        alone = [a for a in self.running if self._copies[a.shard] == 1 and a.shard not in self._closed]
        oldest = min(alone, key=lambda a: a.since, default=None)
        slow = oldest is not None and pace is not None and now - oldest.since > SLOW * pace + LATE
        return oldest.shard if slow and oldest is not None else None

    def answered(self, attempt: Attempt) -> bool:
        """Take note of an answer; whether it is the first one to its shard, the one that counts."""
        self._end(attempt)
        self._recent.append(self._clock() - attempt.since)
        return self._close(attempt.shard)

    def lost(self, attempt: Attempt) -> None:
        """Its worker is gone.

        Raises:
            PoisonedRecord: several workers have died over this one record.
        """
        self._end(attempt)
        shard = attempt.shard
        self._losses[shard] += 1
        if shard in self._closed or self._copies[shard]:
            return
        if self._losses[shard] < LOSSES:
            self._waiting.appendleft(shard)
        elif len(shard) == 1:
            raise PoisonedRecord(int(shard.ids[0]), shard, f"{LOSSES} worker processes died over it")
        else:
            for half in self._split(shard):
                self._losses[half] = LOSSES - 1 if len(half) > 1 else 0

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """Its worker lives and says why not.

        Raises:
            PoisonedRecord: the record at fault stands alone.
        """
        self._end(attempt)
        shard = attempt.shard
        if shard in self._closed:
            return
        if shard not in self._tried:
            self._tried.add(shard)
            self._waiting.appendleft(shard)
        elif len(shard) == 1:
            raise PoisonedRecord(int(shard.ids[0]), shard, f"{type(error).__name__}: {error}") from error
        else:
            self._split(shard)

    def _split(self, shard: Shard) -> list[Shard]:
        self._close(shard)  # what a copy of it may still answer comes too late
        halves = shard.halves(self._batch)
        self._tried.update(halves)
        self._waiting.extendleft(reversed(halves))
        self.unfinished += len(halves)
        return halves

    def _close(self, shard: Shard) -> bool:
        if shard in self._closed:
            return False
        self._closed.add(shard)
        self.unfinished -= 1
        return True

    def _end(self, attempt: Attempt) -> None:
        self.running.discard(attempt)
        self._copies[attempt.shard] -= 1
