"""What is asked of a model, who asks it, and what comes back: the seam between rounds and the machines that infer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import lightning.pytorch as L
import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader

from al_lightning.cost.bill import Bill
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.place import Place
from al_lightning.query.base import Strategy
from al_lightning.run.describe import describe
from al_lightning.scoring.samples import Samples

Payload = Callable[[Any], dict[str, Tensor]]
"""Outputs -> small arrays; of a strategy that samples, the Outputs of every answer -> small arrays."""


class Readable(Protocol):
    """Hold what inference needs of a pool; a :class:`~al_lightning.pool.datamodule.PoolDataModule` has it."""

    task: str
    items: ItemFormat
    scoring_batch_size: int | None
    width: int
    """Of the model's logits, once some were seen; else 0."""

    @property
    def place(self) -> Place | None:
        """Return where the target stands in a batch; None: where it stands in an item."""

    def indexed_dataloader(self, ids: Sequence[int] | np.ndarray, place: Place | None = None) -> DataLoader[Any]:
        """``(ids, batch)`` for exactly these ids, in this order."""


@dataclass(frozen=True)
class Question:
    """Hold what is asked of a model about every record. It is pickled and goes to where the model is.

    Args:
        on: given the model, a context in which the payload can be taken of its outputs.
        says: what is asked, in words that differ where answers would.
        samples: how several answers to every record are drawn; the payload then gets an iterable of Outputs.
    """

    on: Callable[[nn.Module], AbstractContextManager[Payload]]
    says: str
    samples: Samples | None = None

    @classmethod
    def of(cls, strategy: Strategy, *, seed: int) -> Question:
        """Return what a strategy needs to know of its candidates.

        Args:
            strategy: whose payload travels.
            seed: of what is drawn meanwhile: dropout masks.
        """
        says = json.dumps([describe(strategy), seed])
        if "samples" in strategy.requires:
            return cls(partial(_same, strategy.payload_of), says, Samples(strategy.passes, seed))
        return cls(partial(_same, strategy.payload), says)


def _same(payload: Payload, model: nn.Module) -> AbstractContextManager[Payload]:
    return nullcontext(payload)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A call of a :class:`Scorer`.

    Args:
        trainer: whose settings (device, precision) count.
        model: the user's module.
        pool: where the records are.
        ids: ``(n,)`` ids to infer.
        question: what to ask.
        meter: FLOP measurements to use and extend.
        least: how many answers are enough, where the scorer's settings let it leave some out; None: all.
        scratch: folder for what is worth keeping of a call that is killed, or None.
        bill: what has been spent so far, for scorers that decide by it.
    """

    trainer: L.Trainer
    model: L.LightningModule
    pool: PoolDataModule
    ids: np.ndarray
    question: Question
    meter: FlopMeter = field(default_factory=FlopMeter)
    least: int | None = None
    scratch: Path | None = None
    bill: Bill = field(default_factory=Bill)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Hold what came back.

    Args:
        ids: records that were answered for, ``(n,)``, in the order they were asked in.
        arrays: payload arrays aligned with ``ids``.
        width: size of the last logits dimension, 0 if nothing was inferred.
        records: records that went through the model, those that did so twice included.
        flops: of all passes.
        seconds: of all machines that worked, added up: what is billed.
        wall: seconds that the caller waited.
        bytes: that other machines read of the records' files; what this one reads, its dataset counts.
    """

    ids: np.ndarray
    arrays: dict[str, np.ndarray]
    width: int
    records: int
    flops: float
    seconds: float
    wall: float
    bytes: int = 0

    def entry(self, phase: str, round: int) -> Entry:
        """The work as a line of the ledger."""
        return Entry(
            phase=phase, round=round, records=self.records, flops=self.flops, seconds=self.seconds, bytes=self.bytes
        )


class Scorer(Protocol):
    """Infer records: through the Trainer, or on other machines."""

    every_rank: ClassVar[bool]
    """Whether all processes of a job take part in :meth:`run`; else rank 0 calls it and the others get its answers."""

    def run(self, request: Request) -> Answers:
        """Ask the model about records of the pool."""

    def close(self) -> None:
        """Let go of machines."""
