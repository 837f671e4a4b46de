"""PREFLIGHT: one batch goes every way that a run will need, before anything is bought; then all is as it was."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.durable import read_tensors
from al_lightning.errors import ActiveLearningError, BadScores, PreflightFailed
from al_lightning.features.provider import Features
from al_lightning.features.source import Layer
from al_lightning.fit_plan import FitPlan, Length, Served, load, records_of, snapshot
from al_lightning.fit_start import apply_start
from al_lightning.history import History, RoundRecord
from al_lightning.pool.state import PoolState
from al_lightning.pool.view import PoolView
from al_lightning.preflight.labels import labels_of
from al_lightning.preflight.monitors import Monitors, OneBatch, check_monitors, logs, monitors_of, monitors_of_rules
from al_lightning.preflight.small_pool import RECORDS, SmallPool, spread
from al_lightning.preflight.trying import INFER, trying
from al_lightning.preflight.untouched import stand_in, untouched
from al_lightning.query.base import Strategy
from al_lightning.rounds import BeforeSteps, fresh_trainer, silent_trainer
from al_lightning.run import Run
from al_lightning.run_paths import SCRATCH
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Question
from al_lightning.scoring.trainer import run_inference, unwrapped
from al_lightning.seeds import generator, number
from al_lightning.settings import describe
from al_lightning.steps.fit import Outcome, run_fit

if TYPE_CHECKING:
    from al_lightning.learner import ActiveLearner

_FEW = 2
"""Records of a batch where every batch counts: a rho that is kept has to pay for them."""
_PASSES = 2
"""Answers that are drawn of a model that is asked several times: enough to see whether it can be."""
_AS_TRAINER = "Trainer.fit fails on these records in the same way."


def preflight(run: Run, learner: ActiveLearner) -> None:
    """Rehearse a run on one batch; its work is put on the ledger.

    Copies of the modules are trained and asked. Weights, buffers, random generators, the pool, the user's DataModule
    and loggers are as they were afterwards, also where this raises.

    Args:
        run: whose folder is new, or whose settings have changed.
        learner: what was configured.

    Raises:
        PreflightFailed: something of the user's fails.
        ActiveLearningError: parts that do not go together, a monitor that is not logged, outputs that are not the
            task's.
    """
    folder = run.place(SCRATCH) / "preflight"
    began = run.energy.reading()
    modules = [m for model in {run.model, run.target} for m in model.modules()]
    callbacks = run.trainer.callbacks  # type: ignore[attr-defined]
    parts = [learner.query, learner.candidates, learner.initial, learner.policy, learner.round_size]
    with Stopwatch.running() as watch, _silence(), _uncompiled(), untouched(run.pool, [*modules, *callbacks, *parts]):
        try:
            rehearsal = _Rehearsal(run, learner, folder)
            rehearsal.walk()
        finally:
            if run.ranks.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
    if rehearsal.said:
        rank_zero_info(rehearsal.said)
    run.energy.note("preflight", began)
    run.spend(
        Entry(
            phase="preflight",
            round=run.round,
            records=rehearsal.records,
            flops=rehearsal.flops,
            seconds=watch.seconds,
        )
    )


def _uncompiled() -> AbstractContextManager[Any]:
    """Run compiled code as it was written: a batch or two are not worth compiling a copy for."""
    stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    return nullcontext() if stance is None else stance("force_eager")


@contextmanager
def _silence() -> Iterator[None]:
    """What Lightning and the user's code say of a fit, they say again in the first one."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Rehearsal:
    """What is known while a rehearsal goes on.

    Attributes:
        records: records that went through a model.
        flops: of those passes.
        said: what had to be left out.
    """

    def __init__(self, run: Run, learner: ActiveLearner, folder: Path) -> None:
        self._run, self._learner, self._folder = run, learner, folder
        self.records, self.flops, self.said = 0, 0.0, ""
        size, history = run.pool.size, run.history
        self._first = max(1, min(learner.round_size(replace(history, rounds=(), round=0)), size))
        own = fresh_trainer(run.source, model=run.model, datamodule=run.pool, rehearsal=True)
        self._monitors = monitors_of(own)
        self._all_logs = not any(map(logs, own.callbacks))  # type: ignore[attr-defined]
        self._has_helpers = bool(BeforeSteps.of(own.callbacks))  # type: ignore[attr-defined]
        self._meter = FlopMeter()
        self._most: int | None = None  # records that are asked about at a time

    def walk(self) -> None:
        """Go every way that the configured parts will need."""
        pool, state = self._run.pool, self._run.pool.state
        whole = pool.batch_size, pool.eval_batch_size
        if getattr(self._learner.policy, "rho", None) is not None:
            pool.batch_size = pool.eval_batch_size = self._most = _FEW
            try:
                self._walk()
                return
            except ActiveLearningError:  # there are losses that need more records at once
                (pool.batch_size, pool.eval_batch_size), self._most, pool.state = whole, None, state
        self._walk()

    def _walk(self) -> None:
        run, learner = self._run, self._learner
        few = min(self._first, (run.pool.batch_size or 1) * run.ranks.world)
        labelled = spread(run.pool.size, few)
        self._draw_first()
        labels = labels_of(run.pool, labelled, learner.oracle)
        if labels is None:
            self.said = (
                f"Preflight: no label can be made up for task={run.pool.task!r} and these records, so no training step "
                "is rehearsed, and scoring only as far as it goes."
            )
        else:
            run.pool.state = PoolState(run.pool.size)
            run.pool.state.query(labels)
            run.pool.state.answer(labels)
        self._go(run.model, labelled if labels else None, rounds=True)
        if run.proxy is not None and labels:
            self._go(run.target, labelled, rounds=False)

    def _go(self, model: L.LightningModule, labelled: np.ndarray | None, *, rounds: bool) -> None:
        """Train and ask a stand-in of a module.

        Args:
            model: left as it is.
            labelled: ids that have a label; None: it cannot be trained.
            rounds: whether it is the one that selects.
        """
        run = self._run
        shared = [run.pool, *run.pool.datasets, run.source]
        self._meter = FlopMeter()
        with stand_in(model, shared) as actor:
            trainer = silent_trainer(run.source, self._folder, model=actor, datamodule=run.pool)
            if labelled is not None:
                initial = snapshot(actor)
                for plan, before in self._plans(rounds):
                    trainer = self._fit(actor, initial, plan, before, labelled).trainer
                if rounds:
                    rules = monitors_of_rules(self._learner.stop, self._learner.stall)
                    self._check(rules, trainer)
                load(actor, initial)  # what a step has made of the weights says nothing of the run's
            if rounds:
                # Without a label for it, collation may fail on a placeholder that it will not see.
                with suppress(PreflightFailed) if labelled is None else nullcontext():
                    self._select(trainer, actor)
            self._write(actor)

    # ---- training ------------------------------------------------------------------------------------------------

    def _plans(self, rounds: bool) -> list[tuple[FitPlan, int]]:
        """Plans that differ in more than their length, each with the labels that a fit before it had."""
        policy, first = self._learner.policy, self._first
        with trying(f"{type(policy).__name__}.plan", "A plan is made from the history alone."):
            begun = replace(self._run.history, rounds=(), round=1, labelled=first)
            second = max(1, self._learner.round_size(replace(begun, rounds=(_round(first),))))
            later: History = replace(begun, rounds=(_round(first),), round=2, labelled=first + second)
            final = policy.final_plan(later)
            made = [(policy.plan(begun), 0), (policy.plan(later), first)] if rounds else []
            own = [(final, first)] if final is not None and (not rounds or self._run.proxy is None) else []
        made = [(replace(plan, cached=False), before) for plan, before in [*made, *own]]
        shapes = {
            str(describe(replace(plan, epochs=None, final=False, average=float(plan.average > 0)))): (plan, before)
            for plan, before in reversed(made)
        }
        return list(reversed(shapes.values()))

    def _fit(
        self, actor: L.LightningModule, initial: Mapping[str, Any], plan: FitPlan, before: int, labelled: np.ndarray
    ) -> Outcome:
        """One batch of the fit that this plan makes of the first round, or of a later one."""
        run = self._run
        new = self._first if not before else max(1, self._first // 2)
        # Few records stand for all that the fit will have: so it is as long as it will be, and reads no more.
        ids = np.resize(labelled, before + new)
        length = Length.of(plan, recipe=run.recipe_epochs, labelled=len(ids), new=new)
        served = records_of(plan, length, labelled=ids, new=new, batch=run.pool.batch_size or 1, seed=run.seed, round=1)
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
        initial: Mapping[str, Any],
        plan: FitPlan,
        length: Length,
        served: Served,
        new: int,
        *,
        helped: bool,
    ) -> Outcome:
        run, guide, seed = self._run, OneBatch(), number(self._run.seed, 0, "preflight")

        def silent() -> L.Trainer:
            made = silent_trainer(run.source, self._folder, model=actor, datamodule=run.pool, helped=helped)
            made.callbacks = [guide, *made.callbacks]  # type: ignore[attr-defined]
            return made

        with trying(f"training {type(actor).__name__}", _AS_TRAINER):
            apply_start(actor, plan, initial=initial, seed=seed)
            outcome = run_fit(
                silent,
                actor,
                run.pool,
                plan,
                length,
                served,
                new=new,
                round=run.round,
                round_dir=self._folder,
                seed=seed,
                step=0,
                flops=self._meter,
            )
        self.records += sum(entry.records for entry in outcome.entries)
        self.flops += sum(entry.flops for entry in outcome.entries)
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

    # ---- selection -----------------------------------------------------------------------------------------------

    def _draw_first(self) -> None:
        """The first query, which no model is needed for; it may have been made already, or brought."""
        run, strategy = self._run, self._learner.initial
        if run.saved.queries or len(run.pool.labelled):
            return
        if "features" in strategy.requires:
            small = self._small(apart=True)
            view, size = small.view(0, round=0), min(self._first, max(1, len(small.ids) // 2))
        else:
            view, size = run.pool.view(features=Features(run)), self._first
        self._pick(strategy, view, view.unlabelled, {}, size)

    def _select(self, trainer: L.Trainer, actor: L.LightningModule) -> None:
        """A later query: candidates, what the model says of them, and the pick."""
        learner, run = self._learner, self._run
        if isinstance(run.pool.features, Layer):
            run.pool.features.question(actor, fitted=True)  # a name that is no layer's is refused, needed or not
        apart = learner.candidates.uses_features or "features" in learner.query.requires
        small = self._small(trainer, actor, apart=apart)
        view = small.view(len(small.ids) // 4, round=1)
        size = max(1, min(self._first, len(view.unlabelled) // 2))
        with trying(f"candidates={type(learner.candidates).__name__}", "They are chosen from the view alone."):
            rng = generator(run.seed, 0, "preflight candidates")
            ids, _ = learner.candidates.propose(view=view, size=size, rng=rng, state={})
        ids = ids if len(ids) >= size else view.unlabelled
        arrays: dict[str, np.ndarray] = {}
        if learner.query.needs_inference:
            arrays = self._ask(trainer, actor, small.real(ids), _briefly(learner.query, run.seed))
        self._pick(learner.query, view, ids, arrays, size)
        if learner.stop_set:
            self._ask(trainer, actor, small.real(ids), Question(_classes, "classes"))

    def _small(
        self, trainer: L.Trainer | None = None, actor: L.LightningModule | None = None, *, apart: bool
    ) -> SmallPool:
        def embed(layer: Layer, ids: np.ndarray) -> np.ndarray:
            question = layer.question(actor or self._run.model, fitted=actor is not None)
            if trainer is not None and actor is not None:
                return self._ask(trainer, actor, ids, question)["features"]
            with self._asking() as (made, copied):
                return self._ask(made, copied, ids, question)["features"]

        return SmallPool(self._run.pool, spread(self._run.pool.size, RECORDS), embed, apart)

    @contextmanager
    def _asking(self) -> Iterator[tuple[L.Trainer, L.LightningModule]]:
        run = self._run
        with stand_in(run.model, [run.pool, *run.pool.datasets, run.source]) as actor:
            yield silent_trainer(run.source, self._folder, model=actor, datamodule=run.pool), actor

    def _ask(
        self, trainer: L.Trainer, actor: L.LightningModule, ids: np.ndarray, question: Question
    ) -> dict[str, np.ndarray]:
        some = ids[: self._most]
        with trying(f"asking {type(actor).__name__} about records", INFER), question.on(unwrapped(actor)) as payload:
            arrays, flops, _, _ = run_inference(
                trainer, actor, self._run.pool, some, payload, self._meter, question.samples
            )
        self.records, self.flops = self.records + len(some), self.flops + flops
        for name, values in arrays.items():
            bad = ~np.isfinite(values).reshape(len(some), -1).all(axis=1)
            if bad.any():
                raise BadScores(some[bad], name)
        return {name: np.resize(values, (len(ids), *values.shape[1:])) for name, values in arrays.items()}

    def _pick(
        self, strategy: Strategy, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], size: int
    ) -> None:
        rng = generator(self._run.seed, 0, "preflight query")
        with trying(f"{type(strategy).__name__}.pick", "It is made from the view and the payload alone."):
            strategy.pick(view=view, ids=ids, arrays=arrays, size=size, rng=rng)


def _round(labelled: int) -> RoundRecord:
    return RoundRecord(round=1, labelled=labelled, queried=labelled)


def _briefly(strategy: Strategy, seed: int) -> Question:
    question = Question.of(strategy, seed=number(seed, 0, "preflight passes"))
    samples = question.samples
    return question if samples is None else replace(question, samples=replace(samples, passes=_PASSES))


@contextmanager
def _classes(model: nn.Module) -> Iterator[Any]:
    def predicted(outputs: Outputs) -> dict[str, Any]:
        return {"classes": outputs.predictions}

    yield predicted
