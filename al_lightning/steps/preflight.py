"""PREFLIGHT: one batch goes every way that a run will need, before anything is bought; then all is as it was."""

from __future__ import annotations

import shutil
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from io import BytesIO

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from al_lightning.checks.compatible import reads_features
from al_lightning.checks.parts import Parts
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.errors import ActiveLearningError, PreflightFailed
from al_lightning.features.source import Layer
from al_lightning.fit.outcome import Outcome, run_fit
from al_lightning.fit.plan import FitPlan, Length, Served, Weights, load, records_of, snapshot
from al_lightning.fit.silent import BeforeSteps
from al_lightning.fit.start import apply_start
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.history import RoundRecord
from al_lightning.preflight.labels import labels_of
from al_lightning.preflight.monitors import Monitors, OneBatch, check_monitors, logs, monitors_of, monitors_of_rules
from al_lightning.preflight.plans import plans_of
from al_lightning.preflight.quiet import silence, uncompiled
from al_lightning.preflight.selection import try_first_query, try_query, usual_of
from al_lightning.preflight.small_pool import spread
from al_lightning.preflight.target import check_target, relabel
from al_lightning.preflight.trying import trying
from al_lightning.preflight.untouched import untouched
from al_lightning.preflight.work import Work
from al_lightning.run.durable import read_tensors
from al_lightning.run.paths import SCRATCH
from al_lightning.run.turn import Turn
from al_lightning.seeds import number

_FEW = 2
"""Records of a batch where every batch counts: a rho that is kept has to pay for them."""
_FITS = 12
"""Fits whose last batches are foreseen."""
_AS_TRAINER = "Trainer.fit fails on these records in the same way."


def preflight(turn: Turn, learner: Parts) -> None:
    """Rehearse a run on one batch; its work is put on the ledger.

    Copies of the modules are trained and asked. Weights, buffers, random generators, the pool, the user's DataModule
    and loggers are as they were afterwards, also where this raises.

    Args:
        turn: whose folder is new, or whose settings have changed.
        learner: what was configured.

    Raises:
        PreflightFailed: something of the user's fails.
        ActiveLearningError: parts that do not go together, a monitor that is not logged, outputs that are not the
            task's.
    """
    folder = turn.place(SCRATCH) / "preflight"
    began = turn.accounts.energy.reading()
    modules = [m for model in {turn.model, turn.target} for m in model.modules()]
    callbacks = turn.trainer.callbacks  # type: ignore[attr-defined]
    parts = [learner.query, learner.candidates, learner.initial, learner.policy, learner.round_size]
    with Stopwatch.running() as watch, silence(), uncompiled(), untouched(turn.pool, [*modules, *callbacks, *parts]):
        try:
            work = Work(turn, folder)
            rehearsal = _Rehearsal(work, learner)
            rehearsal.walk()
        finally:
            if turn.ranks.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
    if rehearsal.said:
        rank_zero_info(rehearsal.said)
    turn.accounts.energy.note("preflight", began)
    turn.accounts.rehearsed = turn.ranks.broadcast(work.met)
    turn.accounts.spend(
        Entry(phase="preflight", round=turn.round, records=work.records, flops=work.flops, seconds=watch.seconds)
    )


class _Rehearsal:
    """Hold what is known while a rehearsal goes on.

    Attributes:
        said: what had to be left out.
    """

    def __init__(self, work: Work, learner: Parts) -> None:
        turn = work.turn
        self._turn, self._learner, self._work = turn, learner, work
        self.said = ""
        size, history = turn.pool.size, turn.accounts.history
        self._batch = turn.pool.batch_size or 1
        self._first = max(1, min(learner.round_size(replace(history, rounds=(), round=0)), size))
        work.usual = usual_of(learner, size, self._first)
        own = fresh_trainer(turn.source, model=turn.model, datamodule=turn.pool, rehearsal=True)
        self._monitors = monitors_of(own)
        self._all_logs = not any(map(logs, own.callbacks))  # type: ignore[attr-defined]
        self._has_helpers = bool(BeforeSteps.of(own.callbacks))  # type: ignore[attr-defined]

    def walk(self) -> None:
        """Go every way that the configured parts will need."""
        pool, state = self._turn.pool, self._turn.pool.state
        whole = pool.batch_size, pool.eval_batch_size
        if getattr(self._learner.policy, "rho", None) is not None:
            pool.batch_size = pool.eval_batch_size = self._work.most = _FEW
            try:
                self._walk()
                return
            except ActiveLearningError:  # there are losses that need more records at once
                (pool.batch_size, pool.eval_batch_size), self._work.most, pool.state = whole, None, state
        self._walk()

    def _walk(self) -> None:
        turn, learner = self._turn, self._learner
        few = min(self._first, (turn.pool.batch_size or 1) * turn.ranks.world)
        labelled = spread(turn.pool.size, few)
        try_first_query(self._work, learner.initial, self._first)
        labels = labels_of(turn.pool, labelled, learner.oracle)
        if labels is None:
            self.said = (
                f"Preflight: no label can be made up for task={turn.pool.task!r} and these records, so no training "
                "step is rehearsed, and scoring only as far as it goes."
            )
        else:
            relabel(turn.pool, labels)
        self._go(turn.model, labelled if labels else None, rounds=True)
        if turn.proxy is not None and labels:
            self._go(turn.target, labelled, rounds=False)

    def _go(self, model: L.LightningModule, labelled: np.ndarray | None, *, rounds: bool) -> None:
        """Train and ask a stand-in of a module.

        Args:
            model: left as it is.
            labelled: ids that have a label; None: it cannot be trained.
            rounds: whether it is the one that selects.
        """
        work = self._work
        work.meter = FlopMeter()
        with work.stand_in(model) as actor:
            trainer = work.trainer(actor)
            if labelled is not None:
                initial = snapshot(actor)
                for plan, before in self._plans(rounds=rounds):
                    trainer = self._fit(actor, initial, plan, before, labelled).trainer
                if rounds:
                    self._look_closer(actor, initial, labelled)
                    rules = monitors_of_rules(self._learner.stop, self._learner.watch)
                    self._check(rules, trainer)
                load(actor, initial)  # what a step has made of the weights says nothing of the run's
            if rounds:
                # Without a label for it, collation may fail on a placeholder that it will not see.
                with suppress(PreflightFailed) if labelled is None else nullcontext():
                    try_query(work, self._learner, trainer, actor, self._first)
            self._write(actor)
        self._note(rounds=rounds)

    def _look_closer(self, actor: L.LightningModule, initial: Weights, labelled: np.ndarray) -> None:
        """Ask of a first fit whether it learns from the target, and whether it can take the smallest of its batches."""
        plan, _ = self._plans(rounds=True)[0]
        pool, batch = self._turn.pool, self._batch

        def trained(first: int = self._first) -> Weights:
            load(actor, initial)
            self._fit(actor, initial, plan, 0, labelled, first)
            return snapshot(actor)

        labels = dict(pool.state.labels)
        check_target(pool, labels, initial, trained)
        if (several := pool.items.elements(pool.eval_data[0])) > 2:
            self.said = f"The last of the {several} elements of an item is taken for its target, and labels replace it."
        alone = next((n for n in self._counts if batch > 1 and n % batch == 1), None)
        if alone is None or pool.loader.get("drop_last") or self._turn.ranks.world > 1:
            return
        try:
            trained(1)
        except PreflightFailed as error:
            raise PreflightFailed(
                f"training {type(actor).__name__} on a batch of one record, which {alone} labels in batches of {batch} "
                "end with,",
                error.__cause__ or error,
                'Pass PoolDataModule(loader={"drop_last": True}), another batch_size= or other round sizes.',
            ) from error

    @property
    def _counts(self) -> list[int]:
        """Labels of each of the first fits."""
        history, counts = self._turn.accounts.history, [self._first]
        with suppress(Exception):  # a size may go by what is only known later
            while len(counts) < _FITS:
                past = tuple(RoundRecord(round=i + 1, labelled=n, queried=n) for i, n in enumerate(counts))
                left = self._turn.pool.size - counts[-1]
                begun = replace(history, rounds=past, round=len(counts), labelled=counts[-1], unlabelled=left)
                new = min(self._learner.round_size(begun), left)
                if new < 1:
                    break
                counts.append(counts[-1] + new)
        return counts

    def _note(self, *, rounds: bool) -> None:
        met, pool = self._work.met, self._turn.pool
        flops = {str(kind): value for kind, value in self._work.meter.per_record.items()}
        if not rounds:
            met.target = flops.get("train")
            return
        met.flops = flops
        if isinstance(pool.features, Layer) and reads_features(self._learner):
            met.note_once("embed", pool.size * flops.get("forward", 0.0))

    def _plans(self, *, rounds: bool) -> list[tuple[FitPlan, int]]:
        policy, final = self._learner.policy, not rounds or self._turn.proxy is None
        with trying(f"{type(policy).__name__}.plan", "A plan is made from the history alone."):
            size = self._learner.round_size
            return plans_of(policy, size, self._turn.accounts.history, self._first, rounds=rounds, final=final)

    def _fit(
        self,
        actor: L.LightningModule,
        initial: Weights,
        plan: FitPlan,
        before: int,
        labelled: np.ndarray,
        first: int | None = None,
    ) -> Outcome:
        """One batch of the fit that this plan makes of the first round, or of a later one."""
        turn = self._turn
        first = first or self._first
        new = first if not before else max(1, first // 2)
        # Few records stand for all that the fit will have: so it is as long as it will be, and reads no more.
        ids = np.resize(labelled, before + new)
        length = Length.of(plan, recipe=turn.accounts.recipe_epochs, labelled=len(ids), new=new)
        served = records_of(
            plan, length, labelled=ids, new=new, batch=turn.pool.batch_size or 1, seed=turn.seed, round=1
        )
        served = served if served.ids is not None else served._replace(ids=ids)
        fit = partial(self._one_batch, actor, initial, plan, length, served, new)
        try:
            return fit(helped=False)
        except PreflightFailed:
            if not self._has_helpers:
                raise
        return fit(helped=True)

    def _one_batch(
        self,
        actor: L.LightningModule,
        initial: Weights,
        plan: FitPlan,
        length: Length,
        served: Served,
        new: int,
        *,
        helped: bool,
    ) -> Outcome:
        turn, guide, seed = self._turn, OneBatch(), number(self._turn.seed, 0, "preflight")

        def silent() -> L.Trainer:
            made = self._work.trainer(actor, helped=helped)
            made.callbacks = [guide, *made.callbacks]  # type: ignore[attr-defined]
            return made

        with trying(f"training {type(actor).__name__}", _AS_TRAINER):
            apply_start(actor, plan, initial=initial, seed=seed)
            outcome = run_fit(
                silent,
                actor,
                turn.pool,
                plan,
                length,
                served,
                new=new,
                round=turn.round,
                round_dir=self._work.folder,
                seed=seed,
                step=0,
                flops=self._work.meter,
            )
        self._work.add(outcome.entries)
        self._check([*self._monitors, *guide.monitors], outcome.trainer)
        return outcome

    def _check(self, monitors: Monitors, trainer: L.Trainer) -> None:
        if self._all_logs:
            check_monitors(monitors, trainer.callback_metrics)

    def _write(self, actor: L.LightningModule) -> None:
        file = BytesIO()
        with trying("reading back a checkpoint", "Keep tensors alone in the module's state_dict."):
            torch.save(snapshot(actor), file)
            file.seek(0)
            load(actor, read_tensors(file))
