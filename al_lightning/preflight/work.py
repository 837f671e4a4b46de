"""What a rehearsal does with modules: stand-ins of them, Trainers for those, and passes that are counted."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as L
import numpy as np

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry
from al_lightning.cost.rehearsed import Rehearsed
from al_lightning.errors import BadScores
from al_lightning.fit.silent import silent_trainer
from al_lightning.preflight.trying import INFER, trying
from al_lightning.preflight.untouched import stand_in
from al_lightning.run.turn import Turn
from al_lightning.scoring.question import Question
from al_lightning.scoring.trainer import run_inference, unwrapped


@dataclass
class Work:
    """Work of a rehearsal, as it is done.

    Args:
        turn: the run.
        folder: for what is written all the same.
        most: records that are asked about at a time; None: all of them.
        records: that went through a model.
        flops: of those passes.
        meter: of the module that stands in now.
        width: of the logits that were last seen.
        usual: clusters that parts ask for where they go by the size of the pool.
        met: what records cost.
    """

    turn: Turn
    folder: Path
    most: int | None = None
    records: int = 0
    flops: float = 0.0
    meter: FlopMeter = field(default_factory=FlopMeter)
    width: int = 0
    usual: int = 0
    met: Rehearsed = field(default_factory=Rehearsed)

    def stand_in(self, model: L.LightningModule) -> AbstractContextManager[L.LightningModule]:
        """Another module in the place of one that stays as it is."""
        pool = self.turn.pool
        return stand_in(model, [pool, *pool.datasets, self.turn.source])

    def trainer(self, actor: L.LightningModule, *, helped: bool = False) -> L.Trainer:
        """Build a Trainer for it, see :func:`~al_lightning.fit.silent.silent_trainer`."""
        return silent_trainer(self.turn.source, self.folder, model=actor, datamodule=self.turn.pool, helped=helped)

    def add(self, entries: Iterable[Entry]) -> None:
        """Count what a fit has done."""
        for entry in entries:
            self.records, self.flops = self.records + entry.records, self.flops + entry.flops

    def ask(
        self, trainer: L.Trainer, actor: L.LightningModule, ids: np.ndarray, question: Question
    ) -> dict[str, np.ndarray]:
        """Ask about records, or about the first of them, whose answers then stand for all.

        Raises:
            BadScores: an answer is NaN or infinite; the ids are named.
        """
        some = ids[: self.most]
        with trying(f"asking {type(actor).__name__} about records", INFER), question.on(unwrapped(actor)) as payload:
            arrays, flops, _, self.width = run_inference(
                trainer, actor, self.turn.pool, some, payload, self.meter, question.samples
            )
        self.records, self.flops = self.records + len(some), self.flops + flops
        for name, values in arrays.items():
            bad = ~np.isfinite(values).reshape(len(some), -1).all(axis=1)
            if bad.any():
                raise BadScores(some[bad], name)
        return {name: np.resize(values, (len(ids), *values.shape[1:])) for name, values in arrays.items()}
