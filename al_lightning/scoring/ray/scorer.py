"""RayScorer: infers the pool on a Ray cluster, on workers that may vanish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.fingerprint import digest
from al_lightning.scoring.kept import Gathered, Kept, missing
from al_lightning.scoring.question import Answers, Request
from al_lightning.scoring.ray.call import Call
from al_lightning.scoring.ray.cluster import connect, imported, packed, reading_of
from al_lightning.scoring.ray.team import Team, Workers
from al_lightning.scoring.ray.worker import Asked
from al_lightning.scoring.shards import Schedule, cut
from al_lightning.scoring.trainer import unwrapped


@dataclass(kw_only=True)
class RayScorer:
    """Infer the pool on a Ray cluster: spare, preemptible machines will do. Training stays where the Trainer puts it.

    Shards of candidates are pulled by workers that keep data and model. Scores come back, not outputs and not data; the
    model goes out once a round, through the object store. A worker that vanishes costs the shard it had in flight. The
    same batches are made as in one process, so on the same hardware the query is the same (docs/distributed.md).

    Args:
        address: ``"host:port"`` of a running cluster, ``"auto"`` for the one this machine belongs to; None starts one
            on this machine and ends it after the run.
        workers: how many, or of what kinds, in the order in which they get what is scarce; None: one per core.
        shard_size: records of a task, rounded up to whole batches. What a preemption may cost, and every shard some
            milliseconds.
        dataset: opens the pool's records (its ``eval_view``) on a worker, the same ones in the same order; default:
            they are sent, once.
        deadline: seconds after which a round goes on with the scores it has, stale ones of earlier rounds for the rest,
            once there are as many fresh ones as the query takes. What is queried then depends on the machines. None:
            never.
        enough: share of the candidates whose fresh scores are enough, likewise.
        runtime_env: what workers need that is not installed there, see Ray's documentation.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> result = learner.fit(model, pool, scoring=RayScorer(address="head:6379"))  # doctest: +SKIP
    """

    address: str | None = None
    workers: int | Sequence[Workers] | None = None
    shard_size: int = 4096
    dataset: Callable[[], Any] | None = None
    deadline: float | None = None
    enough: float = 1.0
    runtime_env: Mapping[str, Any] | None = None

    every_rank: ClassVar[bool] = False
    _team: Team | None = field(default=None, init=False, repr=False)
    _started: bool = field(default=False, init=False, repr=False)
    _reading: tuple[str, list[Any]] = field(default=("", []), init=False, repr=False)
    _held: tuple[Any, int, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"RayScorer(shard_size={self.shard_size}): allowed: 1 or more records.")
        if self.deadline is not None and self.deadline < 0:
            raise ValueError(f"RayScorer(deadline={self.deadline}): allowed: seconds, 0 or more, or None.")
        if not 0 < self.enough <= 1:
            raise ValueError(f"RayScorer(enough={self.enough}): a share of the candidates, allowed: 0 < enough <= 1.")

    def run(self, request: Request) -> Answers:
        """Ask on the cluster, see :class:`~al_lightning.scoring.question.Scorer`.

        Raises:
            ClusterUnavailable: no cluster, other versions, or no room for a worker.
            WorkerFailed: data or model cannot be opened on a worker, or an answer is none; the shard is named.
            UnsupportedModel: the model, or the dataset, cannot be pickled.
            PoisonedRecord: a record that no worker can score; it is named.
            BadScores: NaN or infinite answers; shard and ids are named.
        """
        ids = np.asarray(request.ids, dtype=np.int64)
        with Stopwatch.running() as watch:
            if not len(ids):
                return Answers(ids=ids, arrays={}, width=0, records=0, flops=0.0, seconds=0.0, wall=0.0)
            batch = request.pool.records_at_once
            shards = cut(ids, size=self.shard_size, batch=batch)
            kept = Kept(request.scratch, _key(request, batch))
            before = list(kept.read(shards))
            call = Call(
                team=self._ready(),
                schedule=Schedule(missing(shards, [shard for shard, _ in before]), batch=batch),
                gathered=Gathered(len(ids)),
                kept=kept,
                reading=self._read(request.pool),
                asked=_asked(request),
                known=request.meter.per_record,
            )
            for shard, done in before:
                call.take(shard, done)
                call.spent.add(len(shard), done.flops, done.seconds, done.bytes)
            call.run(deadline=self.deadline, enough=self.enough, least=request.least)
        return Answers(
            ids=ids[call.gathered.fresh],
            arrays=call.gathered.rows(),
            width=call.width,
            records=round(call.spent.records),
            flops=call.spent.flops,
            seconds=call.spent.seconds,
            wall=watch.seconds,
            bytes=round(call.spent.bytes),
        )

    def close(self) -> None:
        """End the workers, and the cluster where this started it."""
        if self._team is not None:
            self._team.close()
            self._team = None
        self._reading, self._held = ("", []), None
        if self._started:
            imported().shutdown()
            self._started = False

    def _ready(self) -> Team:
        if self._team is None:
            self._started = connect(self.address, self.runtime_env)
            kinds = self.workers if isinstance(self.workers, Sequence) else [Workers(count=self.workers)]
            self._team = Team(kinds, grows=self.address is not None)
        return self._team

    def _read(self, pool: PoolDataModule) -> tuple[str, list[Any]]:
        """The pool under a name, in the object store."""
        held = self._held
        if held is None or held[0] is not pool.eval_data or held[1:] != (pool.size, pool.records_at_once):
            sent = packed(reading_of(pool, self.dataset), self.dataset or pool.eval_data, "the dataset")
            self._reading = uuid4().hex, [imported().put(sent)]
            self._held = pool.eval_data, pool.size, pool.records_at_once
        return self._reading


def _asked(request: Request) -> list[Any]:
    """The model and the question, in the object store."""
    trainer, model = request.trainer, unwrapped(request.model)
    settings = {"precision": trainer.precision, "inference_mode": trainer.predict_loop.inference_mode}
    known = dict(request.meter.per_record)
    call = Asked(model=model, question=request.question, settings=settings, known=known)  # type: ignore[arg-type]
    return [imported().put(packed(call, model, "the model"))]


def _key(request: Request, batch: int) -> str:
    """Return what answers of an earlier process must be to."""
    return digest([unwrapped(request.model).state_dict(), request.question.says, batch]) if request.scratch else ""
