"""The workers of a scorer: started where there is room, replaced when they are gone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from al_lightning.errors import ClusterUnavailable
from al_lightning.scoring.ray.worker import ScoringWorker

_LOOK = 1.0
"""Seconds between two looks at how large the cluster is."""
_STILLBORN = 5
"""Times that all workers may be gone before they were ready while nothing else happens; more is no preemption."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Describe one kind of worker.

    Args:
        count: how many; None: as many as the cluster has room for, also while it grows and shrinks. With a cluster that
            grows on demand, say how many.
        cpus: cores of each; also its threads.
        gpus: of each; a share of one, such as 0.25, puts several workers on a GPU. 0 scores on the CPU.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> scorer = RayScorer(workers=[Workers(4)])  # doctest: +SKIP
    """

    count: int | None = None
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"Workers(count={self.count}): allowed: 1 or more, or None for as many as there is room.")
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus)):
            if value < 0 or (value > 1 and value != int(value)):
                raise ValueError(f"Workers({name}={value}): allowed: a whole number, or a share of one above 0.")
        if not self.cpus and not self.gpus:
            raise ValueError("Workers(cpus=0, gpus=0): a worker needs some of either.")

    @property
    def needs(self) -> dict[str, float]:
        """Return what Ray sets aside for each."""
        return {name: value for name, value in (("CPU", self.cpus), ("GPU", self.gpus)) if value}


@dataclass(eq=False)
class Member:
    """A worker that was started.

    Args:
        kind: what it is.
        actor: its handle.
        left: what it was still doing when a call ended; it is asked nothing before that is done.
    """

    kind: Workers
    actor: Any
    left: Any = None


class Team:
    """Workers on a cluster that this process is connected to.

    Args:
        kinds: what kinds of workers, those first that get what is scarce.
        grows: whether the cluster may get larger, so that a worker without room is waited for.
    """

    def __init__(self, kinds: Sequence[Workers], *, grows: bool) -> None:
        self._kinds, self._grows = kinds, grows
        self._looked = -math.inf
        self._wanted: list[int] = []
        self._stillborn = 0
        self.members: list[Member] = []

    @property
    def needs(self) -> str:
        """Return what a worker takes, in words."""
        return " or ".join(str(kind.needs) for kind in self._kinds)

    def fill(self) -> None:
        """Start the workers that are missing.

        Raises:
            ClusterUnavailable: there is no room for any.
        """
        if time.monotonic() - self._looked > _LOOK:
            self._looked, self._wanted = time.monotonic(), self._count()
        for kind, wanted in zip(self._kinds, self._wanted, strict=True):
            for _ in range(wanted - sum(member.kind is kind for member in self.members)):
                self.members.append(Member(kind, _start(kind)))

    def _count(self) -> list[int]:
        import ray

        resources = ray.cluster_resources()
        left, wanted = dict(resources), []
        for kind in self._kinds:
            room = min(math.floor(left.get(name, 0) / each + 1e-9) for name, each in kind.needs.items())
            count = room if kind.count is None else kind.count if self._grows else min(kind.count, room)
            for name, each in kind.needs.items():
                left[name] = max(0.0, left.get(name, 0) - count * each)
            wanted.append(count)
        if not sum(wanted) and not self.members and not self._grows:
            has = {name: amount for name, amount in resources.items() if name in ("CPU", "GPU")}
            raise ClusterUnavailable(
                f"the cluster has no room for a worker: one takes {self.needs}, and the cluster has {has}. Ask for "
                "less in RayScorer(workers=[Workers(...)]), or add nodes."
            )
        return wanted

    def ready(self) -> None:
        """A worker has started, or answered: there are machines that work."""
        self._stillborn = 0

    def stillborn(self, error: BaseException) -> None:
        """A worker was gone before it was ready.

        Raises:
            ClusterUnavailable: many were, one after the other.
        """
        self._stillborn += 1
        if self._stillborn > _STILLBORN * (len(self.members) + 1):
            raise ClusterUnavailable(
                f"{self._stillborn} workers in a row were gone before they had started: {error} Look at their logs "
                "(`ray logs`), and at the memory a worker needs for the data and the model."
            ) from error

    def bury(self, member: Member) -> None:
        """Do without a worker that is gone."""
        import ray

        with suppress(ValueError):
            self.members.remove(member)
        with suppress(Exception):  # most often there is nothing left to end
            ray.kill(member.actor)

    def close(self) -> None:
        """End all workers."""
        for member in list(self.members):
            self.bury(member)


def _start(kind: Workers) -> Any:
    import ray

    actor = ray.remote(max_restarts=0, scheduling_strategy="SPREAD")(ScoringWorker)
    return actor.options(num_cpus=kind.cpus, num_gpus=kind.gpus).remote(kind.gpus)
