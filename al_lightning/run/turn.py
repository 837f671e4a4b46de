"""Whose turn it is, the proxy's or the target's, and asking it: everything that a step needs but the commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning.pytorch as L
import numpy as np

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry
from al_lightning.fit.plan import Weights
from al_lightning.fit.trainer import TrainerSource, fresh_trainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.run.accounts import Accounts
from al_lightning.run.files import RunFiles
from al_lightning.run.parts import KeptActivations, LastFit
from al_lightning.run.paths import SCRATCH
from al_lightning.scoring.question import Answers, Payload, Question, Request, Scorer
from al_lightning.scoring.samples import Samples
from al_lightning.scoring.trainer import TrainerScorer, run_inference


class Turn(RunFiles):
    """Hold the modules of a run, and ask the one whose turn it is.

    Steps take it. It cannot commit: a step returns its change, and the learner commits that.

    Attributes:
        source: the user's Trainer, or a function that builds one.
        pool: the pool.
        target: the module that is delivered.
        proxy: the module that selects for it; None: the target itself.
        model: whose turn it is: the proxy's until :meth:`deliver`, else the target's.
        seed: of everything that is drawn.
        accounts: where work goes on the ledger.
        scoring: who infers the pool.
        initial: weights that a fit from new weights starts with.
        last: the last fit of this process.
        activations: what a frozen part returns, where that is kept.
        cached: arrays that were read or made in this process, by name.
        used_features: whether anything rests on the features.
    """

    source: TrainerSource
    pool: PoolDataModule
    target: L.LightningModule
    proxy: L.LightningModule | None
    model: L.LightningModule
    seed: int
    accounts: Accounts
    scoring: Scorer
    initial: Weights
    last: LastFit | None
    activations: KeptActivations | None
    cached: dict[str, Any]
    used_features: bool
    _files: dict[str, str]
    _about: dict[str, Any]

    @property
    def round(self) -> int:
        """Queries committed."""
        return len(self.saved.queries)

    @property
    def delivered(self) -> str:
        """Name of the file that holds the weights kept last: a fit's, or the initial ones before there was one."""
        if self.kept_as == "target":
            return "target" if "target" in self.saved.files else "target_initial"
        return "weights" if "weights" in self.saved.files else "initial"

    @property
    def kept_as(self) -> str:
        """Name of the file that a fit's weights go to: the proxy's stay where they are, for further rounds."""
        return "weights" if self.proxy is None or self.model is self.proxy else "target"

    @property
    def trainer(self) -> L.Trainer:
        """The Trainer of the last fit, or a fresh one if this process has not trained yet."""
        if self.last is not None:
            return self.last.trainer
        return fresh_trainer(self.source, model=self.model, datamodule=self.pool)

    def deliver(self) -> None:
        """From here on it is the target's turn, with its initial weights; without a proxy it has been all along."""
        if self.proxy is not None:
            self.model = self.target
            self.accounts.deliver()
            self.last = self.activations = None  # both are of the proxy
            self.initial = self.read_weights("target_initial")

    def ask(self, ids: np.ndarray, question: Question, *, phase: str, least: int | None = None) -> Answers:
        """Ask the model about records of the pool, by whoever does the scoring; the work goes on the ledger.

        Args:
            ids: ``(n,)`` ids to infer.
            question: what to ask.
            phase: of the ledger.
            least: how many answers are enough, should the scorer be allowed to leave some out; None: all.
        """
        books = self.accounts
        whole = nullcontext((self.scoring, books.flops))  # what is embedded is made from records
        with whole if phase == "embed" else self.reading(ids, question.samples) as (who, meter):
            request = Request(
                trainer=self.trainer,
                model=self.model,
                pool=self.pool,
                ids=ids,
                question=question,
                meter=meter,
                least=least,
                scratch=self.place(SCRATCH),
                bill=books.bill,
            )
            if who.every_rank:
                began = books.energy.reading()
                found = who.run(request)
                books.energy.note(phase, began)
            else:
                found = self.on_zero(lambda: who.run(request))
                books.flops.per_record = self.ranks.broadcast(books.flops.per_record)
                books.flops.unknown = self.ranks.broadcast(books.flops.unknown)
        books.spend(found.entry(phase, self.round))
        books.wait(found.wall - found.seconds)
        return found

    def infer(
        self,
        ids: np.ndarray,
        payload: Payload,
        *,
        phase: str,
        meter: FlopMeter | None = None,
        counted: bool = True,
    ) -> tuple[dict[str, np.ndarray], int]:
        """Ask the model about records of the pool through the Trainer, wherever the pool is scored; it is billed.

        Args:
            ids: ``(n,)`` ids to infer.
            payload: what is kept of a batch's outputs.
            phase: of the ledger.
            meter: where FLOPs are measured; default: where they are measured while scoring, which may read activations.
            counted: whether the records stand on the ledger; those of a control are the ones it trains on.

        Returns:
            Arrays aligned with ``ids``, and how many outputs the model has.
        """
        books = self.accounts
        with self.reading(ids) if meter is None else nullcontext((None, meter)) as (_, measured):
            began = books.energy.reading()
            arrays, flops, seconds, width = run_inference(self.trainer, self.model, self.pool, ids, payload, measured)
        books.energy.note(phase, began)
        records = len(ids) if counted else 0
        books.spend(Entry(phase=phase, round=self.round, records=records, flops=flops, seconds=seconds))
        return arrays, width

    @contextmanager
    def reading(self, ids: np.ndarray, samples: Samples | None = None) -> Iterator[tuple[Scorer, FlopMeter]]:
        """Have a pass over these records read activations where they are kept; else nothing changes.

        Args:
            ids: ``(n,)`` that are inferred.
            samples: how several answers are drawn, if they are.

        Yields:
            Who infers, and where FLOPs are measured: from activations the Trainer does, it is little work.
        """
        if self.activations is None or not len(ids) or not self.activations.can_serve(samples):
            yield self.scoring, self.accounts.flops
            return
        with self.activations.scoring(ids) as meter:
            yield TrainerScorer(), meter

    @property
    def about(self) -> dict[str, Any]:
        """Return what files that can be made again must hold, by their names."""
        return {**self.saved.meta.get("about", {}), **self._about}

    def add_file(self, name: str, path: str, about: dict[str, Any]) -> None:
        """Have the next step's commit name a file that was written and can be made again, and what it holds."""
        self._files[name], self._about[name] = path, about
