"""What runs on a worker: it keeps the data and the model, and infers the shards it is given.

A shard goes through the same :func:`~al_lightning.scoring.trainer.run_inference` as the whole pool would in one
process: same batches, same collation, same precision, payload beside the model.
"""

from __future__ import annotations

import io
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import ActiveLearningError, WorkerFailed
from al_lightning.pool import fingerprint
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.place import Place
from al_lightning.pool.views import loader_for_scoring
from al_lightning.pool.wrapped import size_of
from al_lightning.scoring.question import Question
from al_lightning.scoring.trainer import run_inference

_LOADING = ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout", "pin_memory")


def versions() -> dict[str, str]:
    """Return what must be the same here and there: pickles are exchanged, and numbers compared."""
    found = {name: version(name).split("+")[0] for name in ("al_lightning", "lightning", "torch")}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def unpack(packed: bytes) -> Any:
    """Return what :func:`al_lightning.scoring.ray.cluster.pack` packed, on the CPU."""
    return torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Hold how the pool's records are read: what of a pool goes to the workers, once.

    Args:
        task: what logits mean.
        items: where the target sits.
        place: where it stands in a batch; None: where it stands in an item.
        known: a label that was bought, for the place of a target that nobody knows.
        size: records of the pool.
        batch: records of a batch.
        options: further settings of the DataLoader.
        hooks: the DataModule's own batch-transfer hooks.
        data: the records themselves, or None.
        opens: opens the records on the worker, or None.
        fingerprint: of the records, where they are opened on the worker.
    """

    task: str
    items: ItemFormat
    place: Place | None
    known: Any
    size: int
    batch: int
    options: Mapping[str, Any]
    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    data: Any = None
    opens: Callable[[], Any] | None = None
    fingerprint: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A call: the model of this round and what it is asked.

    Args:
        model: the user's module.
        question: what to ask.
        settings: of the Trainer, which numbers depend on.
        known: FLOPs per record by kind of pass.
    """

    model: L.LightningModule
    question: Question
    settings: Mapping[str, Any]
    known: Mapping[Any, float]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A shard's answers, and what they took.

    Args:
        arrays: payload arrays aligned with the shard's ids.
        width: size of the last logits dimension.
        flops: of the passes.
        seconds: of this worker.
        known: FLOPs per record by kind of pass.
        bytes: read of the records' files since this worker's last answer.
    """

    arrays: dict[str, np.ndarray]
    width: int
    flops: float
    seconds: float
    known: dict[Any, float]
    bytes: int = 0


class OpenedPool:
    """The pool as inference sees it."""

    def __init__(self, reading: Reading, *, parallel: bool) -> None:
        data = reading.data if reading.opens is None else reading.opens()
        self.task, self.items, self.scoring_batch_size = reading.task, reading.items, None
        self.place, self._known, self.width = reading.place, reading.known, 0
        self._data, self._batch = data, reading.batch
        self._bytes_seen = 0
        # A worker on the CPU has the cores it asked for; loader processes of its own would take those of others.
        self._options = {k: v for k, v in reading.options.items() if parallel or k not in _LOADING}
        vars(self).update(reading.hooks)
        if reading.fingerprint is not None:
            fingerprint.check(reading.fingerprint, size_of(data), None, fingerprint.reader(data, self.items))

    def indexed_dataloader(self, ids: Sequence[int] | np.ndarray, place: Place | None = None) -> DataLoader[Any]:
        """``(ids, batch)`` for exactly these ids, in this order."""
        shown = self.items.showing(self._known, None if place is None else place.label)
        return loader_for_scoring(self._data, ids, self.scoring_batch_size or self._batch, self._options, shown)

    def bytes_new(self) -> int:
        """Bytes the dataset has read since this was asked last."""
        total = getattr(self._data, "bytes_read", 0)
        new, self._bytes_seen = total - self._bytes_seen, total
        return int(new)


class ScoringWorker:
    """Keeps data and model, and scores shards. On Ray it is an actor.

    Args:
        gpus: share of a GPU this worker has; 0 scores on the CPU.
    """

    def __init__(self, gpus: float) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        self._gpus = gpus
        self._read = ""
        self._pool: Any = None
        self._call: Any = None

    def open(self, expected: Mapping[str, str], reading: tuple[str, list[Any]], asked: list[Any]) -> float:
        """Open the data and take in the model; the seconds it took.

        Args:
            expected: versions of the driver.
            reading: name of the pool, and a reference to a packed :class:`Reading`; what is open stays open.
            asked: a reference to a packed :class:`Asked`.

        Raises:
            WorkerFailed: other versions, or something that cannot be opened here.
        """
        found = versions()
        if found != expected:
            raise WorkerFailed(
                f"worker and driver differ: the worker on {platform.node()} has {_listed(found)}, the driver "
                f"{_listed(expected)}. Give both the same environment: the same image, or RayScorer(runtime_env=...)."
            )
        name, reference = reading
        with Stopwatch.running() as watch:
            if name != self._read:
                make = partial(OpenedPool, parallel=self._gpus > 0)
                self._pool = _opened("the pool's dataset", lambda: make(_fetched(reference)))
                self._read = name
            self._call = _opened("the model", lambda: self._prepared(_fetched(asked)))
        return watch.seconds

    def score(self, ids: np.ndarray) -> Done:
        """Infer a shard.

        Args:
            ids: ``(n,)``.
        """
        call, trainer, meter = self._call
        with Stopwatch.running() as watch, call.question.on(call.model) as payload:
            arrays, flops, _, width = run_inference(
                trainer, call.model, self._pool, ids, payload, meter, call.question.samples
            )
        return Done(
            arrays=arrays,
            width=width,
            flops=flops,
            seconds=watch.seconds,
            known=meter.per_record,
            bytes=self._pool.bytes_new(),
        )

    def _prepared(self, call: Asked) -> tuple[Asked, L.Trainer, FlopMeter]:
        trainer = L.Trainer(
            accelerator="gpu" if self._gpus else "cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **call.settings,
        )
        return call, trainer, FlopMeter(dict(call.known))


def _fetched(reference: list[Any]) -> Any:
    import ray

    return unpack(ray.get(reference[0]))


def _opened(what: str, open: Callable[[], Any]) -> Any:
    try:
        return open()
    except ActiveLearningError:
        raise
    except Exception as error:
        raise WorkerFailed(
            f"{what} cannot be opened on the worker on {platform.node()}: {type(error).__name__}: {error}. Code and "
            "files must be there as they are here: the same image, shared storage, or RayScorer(runtime_env=...)."
        ) from None


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())
