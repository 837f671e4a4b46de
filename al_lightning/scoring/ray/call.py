"""One call of a RayScorer: shards go to whoever is idle until all of them, or enough of them, are answered."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import ActiveLearningError, BadScores, ClusterUnavailable, WorkerFailed
from al_lightning.scoring.kept import Gathered, Kept
from al_lightning.scoring.ray.team import Member, Team
from al_lightning.scoring.ray.worker import Done, versions
from al_lightning.scoring.shards import Attempt, Schedule, Shard

_TICK = 0.2
"""Seconds between two looks for stragglers, new nodes and the deadline, where nothing else happens."""
_SILENCE = 60.0
"""Seconds after which somebody should be told that no worker has started."""


@dataclass
class Spent:
    """Hold what a call has cost so far.

    Args:
        records: that went through the model, those that did so twice included.
        flops: of all passes.
        seconds: of all workers.
        bytes: that they read.
    """

    records: float = 0
    flops: float = 0.0
    seconds: float = 0.0
    bytes: float = 0.0

    def add(self, records: float, flops: float, seconds: float, bytes: float) -> None:
        """Add work."""
        self.records, self.flops, self.seconds = self.records + records, self.flops + flops, self.seconds + seconds
        self.bytes += bytes

    @property
    def bytes_per_record(self) -> float:
        """Bytes read per record so far."""
        return self.bytes / self.records if self.records else 0.0


@dataclass
class Call:
    """Runs a schedule on a team.

    Args:
        team: who works.
        schedule: what there is to do.
        gathered: where answers go.
        kept: where they go as well, should this process be killed.
        reading: name of the pool and a reference to how it is read.
        asked: a reference to the model and the question.
        known: FLOPs per record by kind of pass, extended by what workers measure.
    """

    team: Team
    schedule: Schedule
    gathered: Gathered
    kept: Kept
    reading: tuple[str, list[Any]]
    asked: list[Any]
    known: dict[Any, float]
    spent: Spent = field(default_factory=Spent)
    width: int = 0
    _said: bool = False
    _idle: list[Member] = field(default_factory=list)
    _opening: dict[Any, Member] = field(default_factory=dict)
    _scoring: dict[Any, tuple[Attempt, Member]] = field(default_factory=dict)

    def run(self, *, deadline: float | None, enough: float, least: int | None) -> None:
        """Work until everything is answered.

        Args:
            deadline: seconds after which ``least`` answers are enough.
            enough: share of the records after which they are.
            least: answers that are enough then; None: all.

        Raises:
            PoisonedRecord: a record that no worker can score.
            ClusterUnavailable: no worker can be had.
            WorkerFailed: data or model cannot be opened there, or an answer is none.
            BadScores: an answer is NaN or infinite.
        """
        with Stopwatch.running() as watch:
            try:
                while self.schedule.unfinished and not self._enough(watch.seconds, deadline, enough, least):
                    self._staff()
                    self._hand_out()
                    self._take_in()
                    if watch.seconds > _SILENCE and not self.schedule.issued and not self._said:
                        self._say_silence()
            finally:
                self._leave()

    def _enough(self, seconds: float, deadline: float | None, enough: float, least: int | None) -> bool:
        fresh = int(self.gathered.fresh.sum()) if least is not None else 0
        if least is None or fresh < least:
            return False
        return fresh >= enough * len(self.gathered.fresh) or (deadline is not None and seconds > deadline)

    def _staff(self) -> None:
        self.team.fill()
        known = {id(m) for m in [*self._idle, *self._opening.values(), *(m for _, m in self._scoring.values())]}
        for member in self.team.members:
            if id(member) not in known:
                self._open(member)

    def _open(self, member: Member) -> None:
        reference = member.left
        if reference is None:
            reference = member.actor.open.remote(versions(), self.reading, self.asked)
        self._opening[reference] = member

    def _leave(self) -> None:
        """Nobody waits any more for what workers still do; they are asked again in the next call."""
        for reference, (attempt, member) in self._scoring.items():
            self._bill_unfinished(attempt)
            member.left = reference
        for reference, member in self._opening.items():
            member.left = reference

    def _hand_out(self) -> None:
        while self._idle:
            attempt = self.schedule.next(self._idle[0])
            if attempt is None:
                return
            member = self._idle.pop(0)
            self._scoring[member.actor.score.remote(attempt.shard.ids)] = attempt, member

    def _take_in(self) -> None:
        import ray

        references = [*self._scoring, *self._opening]
        if not references:
            time.sleep(_TICK)
            return
        ready, rest = ray.wait(references, num_returns=1, timeout=_TICK)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in ready:
            if reference in self._opening:
                self._opened(reference, self._opening.pop(reference))
            else:
                self._answered(reference, *self._scoring.pop(reference))

    def _opened(self, reference: Any, member: Member) -> None:
        seconds, error, gone = _result_of(reference)
        if gone is not None:
            self.team.bury(member)
            self.team.stillborn(gone)
            return
        if member.left is reference:
            member.left = None
            self._open(member)
            return
        if error is not None:
            raise error
        self.spent.add(0, 0.0, seconds, 0.0)
        self.team.ready()
        self._idle.append(member)

    def _answered(self, reference: Any, attempt: Attempt, member: Member) -> None:
        done, error, gone = _result_of(reference)
        shard = attempt.shard
        if gone is not None:
            self.team.bury(member)
            self._bill_unfinished(attempt)
            self.schedule.lost(attempt)
            return
        self.team.ready()
        self._idle.append(member)
        if error is not None:
            self._bill_unfinished(attempt)
            if isinstance(error, ActiveLearningError):  # it says what is wrong with all of them
                raise _in_shard(error, shard)
            self.schedule.failed(attempt, error)
            return
        self.spent.add(len(shard), done.flops, done.seconds, done.bytes)
        if self.schedule.answered(attempt):
            self.take(shard, done)
            self.kept.write(shard, done)

    def take(self, shard: Shard, done: Done) -> None:
        """Count an answer in.

        Raises:
            WorkerFailed: it has not one row per record.
            BadScores: it is NaN or infinite.
        """
        check(shard, done.arrays)
        self.known.update(done.known)
        self.width = done.width
        self.gathered.add(shard, done.arrays)

    def _bill_unfinished(self, attempt: Attempt) -> None:
        """Bill what a worker did of a shard that it will not answer for, as far as can be told from here."""
        seconds, pace = max(0.0, time.monotonic() - attempt.since), self.schedule.pace
        records = len(attempt.shard) * (1.0 if pace is None else min(1.0, seconds / max(pace, 1e-9)))
        flops, read = records * self.known.get("forward", 0.0), records * self.spent.bytes_per_record
        self.spent.add(records, flops, seconds, read)

    def _say_silence(self) -> None:
        import ray

        self._said, free = True, ray.available_resources()
        warnings.warn(
            f"no worker has started for {_SILENCE:g} s: one takes {self.team.needs}, and free in the cluster are "
            f"{ {name: free.get(name, 0) for name in ('CPU', 'GPU')} }. It is waited for.",
            stacklevel=2,
        )


def check(shard: Shard, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise WorkerFailed or BadScores, naming the shard, unless there is one finite row per record of it."""
    wrong = {name: len(rows) for name, rows in arrays.items() if len(rows) != len(shard)}
    if wrong or not arrays:
        raise WorkerFailed(f"{shard}: a worker returned {wrong or 'nothing'}, expected one row for each record.")
    for name, rows in arrays.items():
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        if bad.any():
            raise _in_shard(BadScores(shard.ids[bad].tolist(), name), shard)


def _in_shard(error: ActiveLearningError, shard: Shard) -> ActiveLearningError:
    error.args = (f"{shard}: {error}",)
    return error


def _result_of(reference: Any) -> tuple[Any, BaseException | None, BaseException | None]:
    """Return what a task returned, or the error it raised, or why its worker is gone."""
    import ray
    from ray import exceptions

    try:
        return ray.get(reference), None, None
    except exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        return None, cause, None
    except (exceptions.RuntimeEnvSetupError, exceptions.ActorUnschedulableError) as error:
        raise ClusterUnavailable(f"no worker can be started: {error}") from error
    except exceptions.RayError as error:
        return None, None, error
