"""ActiveLearner: borrows the user's Trainer and drives the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.utilities import rank_zero_info

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.callbacks.watch import Watch
from al_lightning.candidates.base import CandidateSelector
from al_lightning.candidates.whole import WholePool
from al_lightning.checks.compatible import check_parts, check_pool, reads_features
from al_lightning.checks.given import check_datamodule, check_given, check_model, check_part, round_size_of, rules_of
from al_lightning.checks.packages import check_package
from al_lightning.cost.bill import Bill
from al_lightning.cost.energy import EnergyMeter
from al_lightning.cost.ledger import Entry
from al_lightning.cost.prices import Prices
from al_lightning.cost.recipe import Recipe
from al_lightning.cost.validation import Validation
from al_lightning.errors import RhoTooSmall
from al_lightning.features.activations import Activations
from al_lightning.features.provider import Features
from al_lightning.fit.handed_back import Best, deliver
from al_lightning.fit.outcome import Outcome
from al_lightning.fit.plan import FitPlan, FitPolicy, load, modes_kept
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.set_up import materialise
from al_lightning.fit.trainer import TrainerSource, fresh_trainer
from al_lightning.history import History, Reason, RoundRecord, RoundSize
from al_lightning.moved import passed_to_fit
from al_lightning.oracles.oracle import SKIP, DatasetOracle, Oracle, People
from al_lightning.oracles.votes import agreement
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.preflight.trying import INFER, trying
from al_lightning.query.base import Strategy
from al_lightning.query.random import Random
from al_lightning.result import Result
from al_lightning.round_size import EvenRounds
from al_lightning.run.accounts import Accounts
from al_lightning.run.changes import Change
from al_lightning.run.describe import describe, describe_model
from al_lightning.run.intake import next_step
from al_lightning.run.interrupts import stoppable
from al_lightning.run.meta import Meta
from al_lightning.run.run import Run
from al_lightning.scoring.question import Scorer
from al_lightning.scoring.trainer import TrainerScorer
from al_lightning.steps.allowance import Allowance
from al_lightning.steps.begin import begin, note_trained, resume
from al_lightning.steps.foresight import Foresight
from al_lightning.steps.label import ask, corrected, mended, request, waits
from al_lightning.steps.preflight import preflight
from al_lightning.steps.restart import check_control, hold_against_control, remedied, restart
from al_lightning.steps.select import score_ahead, select
from al_lightning.steps.target import try_target
from al_lightning.steps.train import keep, log, train
from al_lightning.steps.tuning import check_finders
from al_lightning.stop.base import StoppingRule, every_rule, needed_by
from al_lightning.stop.false_start import FalseStart

OnRound = Callable[[RoundRecord, L.LightningModule], None]

WAITING = object()
"""A step returns this when it can go no further before people have answered."""


@passed_to_fit("scoring", "energy", "on_round", "preflight", "recipe_epochs")
class ActiveLearner:
    """Drive active-learning rounds with the Trainer you have.

    Every round runs on a fresh copy of the Trainer, with your own callbacks: what they collect is there afterwards. The
    Trainer then has the delivered fit's metrics and best weights, and can be used again. A run that is interrupted goes
    on when the same call is made with the same ``run_dir``, to the same labelled ids.

    Args:
        trainer: an unused Trainer, or a function that builds one. WarmStart, RoundPlateau and StallDetection among its
            callbacks are adopted as ``fit`` and ``stop``.
        query: strategy that picks from the candidates.
        round_size: how many records each query takes, a number or a plan of it; the first is drawn by ``initial``.
        run_dir: the run's folder.
        candidates: which records are inferred each round; default: all unlabelled ones.
        fit: where each round's weights come from; default: ``WarmStart("reset")``, ordinary active learning.
        proxy: a smaller module that selects for the one that is delivered (Coleman et al., 2020): rounds train and
            score the proxy, on the same Trainer, and the model is trained once, by the final fit of a policy such as
            ``WarmStart("keep", final="initial")``. Default: the model selects for itself.
        stop: a stopping rule, or several, any of which ends the run; StallDetection and FalseStart may be among them,
            which begin it again.
        oracle: who answers; default: the labels the dataset holds.
        initial: strategy of the first query; it cannot use the model.
        stop_set: records kept unlabelled for measuring agreement between rounds; 0 measures none.
        prices: of a label and of an hour.
        seed: of everything that is drawn; None: the run draws one and keeps it in its folder.

    Example:
        >>> from al_lightning.query import Margin
        >>> trainer = L.Trainer(max_epochs=9, logger=False)
        >>> learner = ActiveLearner(trainer, query=Margin(), round_size=20, run_dir="runs/a")
        >>> learner.round_size
        Fixed(size=20, first=None)
    """

    def __init__(
        self,
        trainer: TrainerSource,
        *,
        query: Strategy,
        round_size: RoundSize | int,
        run_dir: str | Path,
        candidates: CandidateSelector | None = None,
        fit: FitPolicy | None = None,
        proxy: L.LightningModule | None = None,
        stop: StoppingRule | StallDetection | Sequence[StoppingRule | StallDetection] = (),
        oracle: Oracle | None = None,
        initial: Strategy | None = None,
        stop_set: int = 0,
        prices: Prices | None = None,
        seed: int | None = 0,
    ) -> None:
        check_given(
            trainer,
            seed,
            query=query,
            initial=initial,
            candidates=candidates,
            fit=fit,
            oracle=oracle,
            proxy=proxy,
            prices=prices,
        )
        round_size = round_size_of(round_size)
        first = fresh_trainer(trainer)  # validates before anything is spent
        callbacks = first.callbacks  # type: ignore[attr-defined]
        rules = [*rules_of(stop), *(c for c in callbacks if isinstance(c, RoundPlateau | StallDetection))]
        self.trainer, self.query, self.round_size, self.run_dir = trainer, query, round_size, Path(run_dir)
        self._sizes = round_size
        self.candidates = candidates or WholePool()
        self.proxy = proxy
        self.policy: FitPolicy = fit or next((c for c in callbacks if isinstance(c, WarmStart)), WarmStart("reset"))
        self.watch = Watch(
            fits=next((rule for rule in rules if isinstance(rule, StallDetection)), None),
            rounds=next((rule for rule in rules if isinstance(rule, FalseStart)), None),
        )
        self.stop = [rule for rule in rules if not isinstance(rule, StallDetection | FalseStart)]
        self.oracle, self.initial = oracle or DatasetOracle(), initial or Random()
        self.stop_set, self.prices, self.seed = stop_set, prices or Prices(), seed
        self.recipe = Recipe.of(first)
        self._foresight = Foresight(
            stop=self.stop,
            policy=self.policy,
            initial=self.initial,
            query=self.query,
            candidates=self.candidates,
            stop_set=stop_set,
        )
        self._allowance = Allowance(foresight=self._foresight, size=self._size)
        check_parts(self)

    # ---- the story ---------------------------------------------------------------------------------------------

    def fit(
        self,
        model: L.LightningModule,
        datamodule: PoolDataModule,
        *,
        scoring: Scorer | None = None,
        energy: EnergyMeter | None = None,
        on_round: OnRound | None = None,
        preflight: bool = True,
        recipe_epochs: int | None = None,
    ) -> Result:
        """Run, or go on, until a rule stops it, the pool is exhausted, or answers are waited for.

        Args:
            model: the user's module; it holds the delivered weights afterwards.
            datamodule: the pool.
            scoring: who infers the pool, for example ``RayScorer()`` on other machines; default: the Trainer.
            energy: read around fits and scoring, for kWh on the bill: ``NvmlEnergy()`` or ``CodeCarbonEnergy()``;
                default: energy is not measured.
            on_round: called after every fit with its record and the module that was fitted, on every rank; not again
                for a round that was committed before a kill.
            preflight: whether one batch is rehearsed before anything is bought: a training and a validation step,
                scoring, the query, a label's way through the store, a checkpoint. What cannot work is refused there,
                and everything is as it was afterwards.
            recipe_epochs: epochs of the declared recipe, the denominator of rho; default: the limits of the Trainer,
                EarlyStopping or not. Without a limit on epochs or steps there is none, and rho is None.

        Returns:
            The result, with the bill.

        Raises:
            BadPart: no LightningModule, or no pool.
            PreflightFailed: something fails on a single batch; nothing is spent.
            ActiveLearningError: other bad input; what was labelled and spent so far is in ``run_dir``.
            Interrupted: Ctrl-C or SIGTERM; the same call goes on.
        """
        steps = {
            "query": self._query,  # candidates -> scores -> query
            "label": self._label,  # oracle -> labels
            "train": self._train,  # plan the fit -> fresh trainer -> fit
            "decide": self._decide,  # should we stop?
            "finish": self._finish,  # the consolidating fit
        }
        check_model(model)
        check_datamodule(datamodule)
        for name, part in (("scoring", scoring), ("energy", energy), ("on_round", on_round)):
            if part is not None:
                check_part(name, part)
        self.scoring: Scorer = scoring or TrainerScorer()
        self.energy, self.on_round, self.preflight = energy, on_round, preflight
        self._recipe_epochs = recipe_epochs
        with (
            stoppable(self.run_dir),
            datamodule.in_use(),
            closing(self.scoring),
            closing(self._open(model, datamodule)) as run,
        ):
            note_trained(self._modules(model), run.folder)
            while run.step != "done":
                if steps[run.step](run) is WAITING:
                    break
            self._hand_back(run)
            return self._result(run)

    def _query(self, run: Run) -> None:
        history = run.accounts.history
        size = self._size(history)
        if size == 0:
            run.commit(Change(step="finish", reasons=(_exhausted(history),)))
        elif not run.saved.rounds:  # nothing fitted yet: the model knows nothing
            if reads_features(self):
                Features(run).verify()
            run.commit(select(run, candidates=None, strategy=self.initial, size=size))
        else:
            predict = getattr(self.oracle, "predictions", False)
            change = select(run, candidates=self.candidates, strategy=self.query, size=size, predict=predict)
            # Scoring and what goes with it may have cost more than was foreseen: no label is bought then.
            reason = self._foresight.exceeded(
                run.accounts, self._foresight.ahead(run.accounts, size, scored=True), "another round"
            )
            run.commit(change if reason is None else Change(step="finish", reasons=(reason,)))

    def _label(self, run: Run) -> object:
        query = request(run, run.saved.open_ids)
        intake = ask(run, self.oracle, query)
        if len(intake.answers) < len(query.ids):
            run.commit(intake.change(run.saved, "label"))
            if getattr(self.oracle, "score_ahead", False):
                self._score_ahead(run)
            return WAITING
        known = {**run.saved.answers, **intake.answers, **intake.corrections}
        bought = any(known[i] is not SKIP for i in run.saved.queries[-1])  # now, or in an earlier, partial answer
        run.commit(intake.change(run.saved, "train" if bought else "query"))
        return None

    def _train(self, run: Run) -> None:
        history = run.accounts.history
        if run.saved.rounds and self._size(history) == 0 and self.policy.final_plan(history) is not None:
            # No query follows that this round's model would be needed for: the final fit trains on its labels.
            run.commit(Change(step="finish", reasons=(self._reason(history) or _exhausted(history),)))
            return
        if run.saved.meta["attempt"] > 1:  # new weights after a stall are planned for as a run's first ones
            history = replace(history, rounds=())
        plan = remedied(run.saved.meta, self.policy.plan(history))
        if run.proxy is not None and "train" not in run.accounts.target_flops.known():
            run.commit(try_target(run))
        plan = self._allowance.of_round(run.accounts, plan)
        outcome = train(run, plan, stall=self.watch.fits)
        if outcome.stalled is not None:
            self._restart(run, outcome.stalled, outcome.entries)
            return
        self._keep(run, plan, outcome, step="decide")

    def _keep(self, run: Run, plan: FitPlan, outcome: Outcome, *, step: str) -> None:
        superseded = run.saved.meta.get("last_checkpoints", [])
        change = keep(run, plan, outcome, step=step, forecast=self._forecast(run.accounts))
        assert change.record is not None
        run.commit(change)
        run.remove(set(superseded) - set(run.saved.meta["last_checkpoints"]))
        log(run.accounts, change.record, outcome.trainer.loggers, self._reports)
        self._show(change.record, run.model)

    def _show(self, record: RoundRecord, model: L.LightningModule) -> None:
        if self.on_round is not None:
            with modes_kept(model.modules()):  # it may well evaluate
                self.on_round(record, model)

    def _decide(self, run: Run) -> None:
        if self.watch.rounds is not None:
            control = hold_against_control(run, self.watch)
            if control is not None:
                run.commit(control)
        history = run.accounts.history
        size = self._size(history)
        if size and run.saved.rounds:
            history = replace(history, ahead=self._foresight.ahead(run.accounts, size))
        stalled = self.watch.across_rounds(history)
        if stalled is not None:
            self._restart(run, stalled, ())
            return
        reason = self._reason(history)
        if reason is None:
            run.go_on("query")
        else:
            run.commit(Change(step="finish", reasons=(reason,)))

    def _finish(self, run: Run) -> None:
        plan = self.policy.final_plan(run.accounts.history)
        if plan is None or not run.saved.rounds or run.saved.reasons[-1].kind == "gave_up":
            run.commit(Change(step="done"))
            return
        cut = self._foresight.within(run.accounts, self._allowance.of_final(run.accounts, plan))
        if isinstance(cut, Reason):
            run.commit(Change(step="done", reasons=(cut,)))
            return
        cut = remedied(run.saved.meta, cut)
        run.deliver()
        outcome = train(run, cut, stall=None)
        self._keep(run, cut, outcome, step="done")

    def _score_ahead(self, run: Run) -> None:
        history = run.accounts.history
        size = self._size(replace(history, labelled=history.labelled + len(run.saved.open_ids)))
        if not size or not run.saved.rounds or run.saved.meta.get("scored_ahead") == run.round:
            return  # no query follows, no model knows anything yet, or it is done
        after = self._foresight.after_scoring(run.accounts, size)
        if self._foresight.exceeded(run.accounts, after, "scoring ahead") is None:
            run.commit(score_ahead(run, candidates=self.candidates, strategy=self.query, size=size))

    # ---- its parts ---------------------------------------------------------------------------------------------

    def _open(self, model: L.LightningModule, pool: PoolDataModule) -> Run:
        for given in (model, pool, *self._modules(model)):
            check_package(given, "ActiveLearner")
        first = fresh_trainer(self.trainer, model=model, datamodule=pool)
        self.recipe = Recipe.of(first, self._recipe_epochs)
        self.recipe.check_trains(first)
        self.recipe.check_shares(self.policy, first)
        ranks = Ranks(first)
        ranks.start()
        check_finders(first, pool)
        for module in self._modules(model):
            with trying(f"setting up {type(module).__name__}", "Trainer.fit sets it up in the same way."):
                materialise(module, first, pool)
        self.query = self.query.suited(pool)
        self._foresight = replace(self._foresight, query=self.query)
        self._allowance = replace(self._allowance, foresight=self._foresight)
        with trying("showing records to the model", INFER):
            check_pool(self, pool, model)

        def recipe(labels: int) -> int | None:
            return self.recipe.records(labels, (pool.batch_size or 1) * ranks.world)

        run = Run(
            self.run_dir,
            source=self.trainer,
            model=model,
            pool=pool,
            ranks=ranks,
            seed=self.seed,
            prices=self.prices,
            config=self._config(model, pool),
            recipe=recipe,
            recipe_epochs=self.recipe.epochs,
            proxy=self.proxy,
            scoring=self.scoring,
            energy=self.energy,
        )
        run.accounts.covers = "coverage" in needed_by(self.stop)
        run.accounts.flops.needed_by = run.accounts.target_flops.needed_by = self._foresight.flop_limit
        try:
            if run.found is not None:
                run.commit(run.found)
            if getattr(self.policy, "cached", False):
                frozen: tuple[str] = self.policy.freeze  # type: ignore[attr-defined]
                run.activations = Activations(run, *frozen, commit=lambda: run.commit(Change()))
            check_control(pool, self.watch)
            labelling, run.accounts.validates = self._labelling(), Validation.of(first, pool)
            if self.preflight and (run.is_new or run.changed):
                if reads_features(self) and not run.saved.rounds:
                    Features(run).verify()  # of all records: a rehearsal looks at some
                preflight(run, self)
            taken = self._settle_rounds(run)
            if run.is_new:
                modules = self._modules(model)
                change = begin(run, modules, stop_set=self.stop_set, stop=self.stop, labelling=labelling)
                run.commit(replace(change, meta={**change.meta, **taken}))
            else:
                for change in resume(run, stop=self.stop, labelling=labelling):
                    run.commit(change)
                if taken:
                    run.commit(Change(meta=taken))
                self._correct(run)
                if run.step == "done" and run.proxy is not None:
                    run.deliver()
                    load(run.model, run.read_weights(run.delivered))
        except BaseException:
            run.close()
            raise
        return run

    def _settle_rounds(self, run: Run) -> Meta:
        """Take as many rounds as there is rho for, where the round size lets them be fewer; return what is new of it.

        Raises:
            RhoTooSmall: there is not enough, and there cannot be fewer rounds.
        """
        self._sizes = even = self.round_size
        undecided = (run.is_new or run.changed) and not run.saved.rounds
        if not (isinstance(even, EvenRounds) and even.shrink):
            if undecided:
                self._allowance.check(run.accounts)
            return {}
        known = run.saved.meta.get("rounds")
        if not undecided:
            self._sizes = replace(even, rounds=known or even.rounds)
            return {}
        for rounds in range(even.rounds, 0, -1):
            self._sizes = replace(even, rounds=rounds)
            try:
                self._allowance.check(run.accounts)
                break
            except RhoTooSmall:
                if rounds == 1:
                    raise
        if rounds < even.rounds:
            rank_zero_info(f"{rounds} rounds are within rho, instead of {even}.")
        return {} if rounds == known else {"rounds": rounds}

    def _modules(self, model: L.LightningModule) -> list[L.LightningModule]:
        return [model] if self.proxy is None else [self.proxy, model]

    def _config(self, model: L.LightningModule, pool: PoolDataModule) -> dict[str, Any]:
        # Stopping rules, prices and the oracle may change between two starts: a budget can be raised.
        return {
            "task": pool.task,
            "model": describe_model(model),
            **({} if self.proxy is None else {"proxy": describe_model(self.proxy)}),
            "recipe": {**describe(self.recipe), "batch_size": pool.batch_size},
            "features": describe(pool.features),
            "query": describe(self.query),
            "candidates": describe(self.candidates),
            "round_size": describe(self.round_size),
            "fit": describe(self.policy),
            "initial": describe(self.initial),
            "stop_set": self.stop_set,
            "seed": self.seed,
        }

    def _correct(self, run: Run) -> None:
        """Take in what people have said since, and better labels for those that cannot be trained on."""
        for look in (mended,) if run.step == "label" else (corrected, mended):
            intake = look(run, self.oracle)
            if not intake.empty:
                run.commit(intake.change(run.saved, next_step(run.saved, intake)))

    def _labelling(self) -> dict[str, Any]:
        if not isinstance(self.oracle, People):
            return {}
        return {**self.oracle.rules(), "prices": {"label": self.prices.label, "currency": self.prices.currency}}

    def _reason(self, history: History) -> Reason | None:
        return next((reason for rule in self.stop if (reason := rule(history)) is not None), None)

    def _forecast(self, accounts: Accounts) -> Callable[[RoundRecord, Bill], dict[str, float]]:
        return lambda record, bill: self._foresight.forecast(accounts, record, bill, self._size)

    def _reports(self, history: History) -> dict[str, float]:
        rules = [rule for rule in every_rule(self.stop) if hasattr(rule, "report")]
        planned = history.rounds[0].forecast if history.rounds else {}
        return {
            **{f"planned_{name}": value for name, value in planned.items()},
            **{f"forecast_{name}": value for rule in rules for name, value in rule.report(history).items()},
        }

    def _size(self, history: History) -> int:
        size = min(self._sizes(history), history.unlabelled)
        return min([size, *(rule.labels_left(history) for rule in self._foresight.budgets)])

    # ---- its ends ------------------------------------------------------------------------------------------------

    def _restart(self, run: Run, reason: Reason, entries: tuple[Entry, ...]) -> None:
        history = run.accounts.history
        most = min([history.unlabelled, *(rule.labels_left(history) for rule in self._foresight.budgets)])
        run.commit(restart(run, reason, stall=self.watch, entries=entries, most=most))

    def _hand_back(self, run: Run) -> None:
        last = None if run.last is None or run.last.stalled else run.last.trainer
        record = run.saved.final or next(iter(run.saved.rounds[-1:]), None)
        deliver(
            self.trainer, run.target, last, metrics=record.metrics if record else {}, best=self._best(run.saved.meta)
        )

    def _best(self, meta: Meta) -> Best:
        kept = Best(**(meta.get("best") or {}))
        return kept if kept.path and Path(kept.path).exists() else Best()

    def _result(self, run: Run) -> Result:
        best = run.last.best_model_path if run.last else self._best(run.saved.meta).path
        return Result(
            bill=run.accounts.bill,
            history=(*run.saved.rounds, *((run.saved.final,) if run.saved.final else ())),
            labelled=run.pool.labelled,
            model=run.target,
            trainer=run.last.trainer if run.last else None,
            best_model_path=best or str(run.place(run.saved.files[run.delivered])),
            reason=run.saved.reasons[-1] if run.step == "done" else waits(run, self.oracle),
            run_dir=run.folder,
            agreement=agreement(run.saved.statements, task=run.pool.task),
        )


def _exhausted(history: History) -> Reason:
    sentence = f"no further round: {history.labelled} labelled, {history.unlabelled} unlabelled records left"
    return Reason("exhausted", sentence, {"labelled": history.labelled, "unlabelled": history.unlabelled})
