"""The course of a run, round by round, from counts alone: before it begins, and from any round on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isnan

from al_lightning.candidates.base import CandidateSelector
from al_lightning.cost.ahead import Measured
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.ledger import Entry
from al_lightning.fit.plan import FitPlan, FitPolicy
from al_lightning.history import History, RoundRecord
from al_lightning.query.base import Strategy
from al_lightning.query.work import PickSize
from al_lightning.stop.pool_covered import coverage_flops


@dataclass(frozen=True, kw_only=True)
class RoundAhead:
    """One round that has not been yet, or the final fit.

    Args:
        round: queries committed when its fit begins.
        labelled: records with a label then.
        new: labels it buys.
        entries: its work.
        final: whether it is the consolidating fit.
        bill: everything spent up to and including it.
    """

    round: int
    labelled: int
    new: int
    entries: tuple[Entry, ...]
    final: bool = False
    bill: Bill = field(repr=False)

    def line(self, *phases: str) -> Line:
        """Its work of these phases."""
        return sum((Line() + entry for entry in self.entries if entry.phase in phases), Line())


@dataclass(frozen=True, kw_only=True)
class Course:
    """Hold what decides how much a run does; the same parts the run itself is made of.

    Args:
        size: of the next query, limits on labels included; 0 ends the rounds.
        policy: plans the fits.
        candidates: how many records are inferred for a query.
        passes: inferences of each of them; 0 where the query needs none.
        stop_set: records that agreement is measured on after every fit.
        covers: whether coverage is measured after every fit.
        units: what a label costs, in multiples of ``Prices.label``.
        initial: picks the first query; None: for nothing.
        query: picks the later ones; None: for nothing but distances.
    """

    size: Callable[[History], int]
    policy: FitPolicy
    candidates: CandidateSelector
    passes: int = 1
    stop_set: int = 0
    covers: bool = False
    units: float = 1.0
    initial: Strategy | None = None
    query: Strategy | None = None

    def rounds(
        self, history: History, measured: Measured, reference: Callable[[int], Line | None]
    ) -> Iterator[RoundAhead]:
        """The rounds still to come, as :class:`~al_lightning.learner.ActiveLearner` would run them.

        Metrics and agreement are taken to stay as they are. Rules that stop by what is learnt are not foreseen, and
        before anything is known, a warm start with a gate is taken to be let in.

        Args:
            history: after a fit, or before everything.
            measured: what work costs.
            reference: labels -> one training on them, the denominator of rho.
        """
        turn = sum(record.candidates > 0 for record in history.rounds)
        while size := self.size(history):
            entries = self._first(history, measured, size)
            if history.rounds:
                entries = self._query(history, measured, size, turn)
                turn += 1
            history = self._bought(history, size, entries, reference)
            last = self.size(history) == 0
            if history.rounds and last and self.policy.final_plan(history) is not None:
                yield from self._final(history, measured, entries, size, reference)
                return
            plan = self.policy.plan(history)
            fit = self._fit(plan, history, measured, size)
            history = self._trained(history, size, fit, reference)
            yield self._round(history, size, [*entries, *fit])
        if history.rounds:
            yield from self._final(history, measured, [], 0, reference)

    def after_fit(
        self, history: History, measured: Measured, reference: Callable[[int], Line | None], *, new: int
    ) -> History:
        """The history once the fit of the round that has begun is done.

        Args:
            history: before that fit, with the labels it is to train on.
            measured: what work costs.
            reference: as for :meth:`rounds`.
            new: how many of those labels are new.
        """
        fit = self._fit(self.policy.plan(history), history, measured, new)
        return self._trained(history, new, fit, reference)

    def _first(self, history: History, measured: Measured, size: int) -> list[Entry]:
        begins = self.initial is not None and not history.rounds and not history.round
        return self._comparing(self.initial, history, measured, size, history.unlabelled) if begins else []

    @staticmethod
    def _comparing(
        strategy: Strategy | None, history: History, measured: Measured, size: int, candidates: int
    ) -> list[Entry]:
        """Comparisons that a pick is made by, as far as the strategy foresees them."""
        if strategy is None:
            return []
        at = PickSize(
            records=history.pool_size,
            candidates=candidates,
            labelled=history.labelled,
            size=size,
            features=measured.features,
            answers=measured.answers,
        )
        flops = strategy.work(at)
        return [Entry(phase="neighbours", round=history.round, flops=flops)] if flops else []

    def _query(self, history: History, measured: Measured, size: int, turn: int) -> list[Entry]:
        train, recipe = measured.flops.get("train"), measured.recipe
        whole = train if measured.final is None else measured.final[0]
        forward = measured.forward if turn or measured.guessed is None else measured.guessed
        price = forward * max(1, self.passes) / (whole * recipe) if whole and recipe else None
        price = None if price is None or isnan(price) else price  # FLOPs could not be counted
        inferred = self.candidates.count(unlabelled=history.unlabelled, size=size, price=price, turn=turn)
        score = []
        if self.passes:
            score.append(measured.inference("score", inferred, passes=self.passes, round=history.round))
        picking = self._comparing(self.query, history, measured, size, inferred)
        beside = measured.beside(history.round, {r.round: r.labelled for r in history.rounds})
        if picking:
            return [*score, *picking, replace(beside, flops=0.0)]
        compared = history.unlabelled if self.candidates.reuses_scores else inferred
        flops = compared * history.labelled * measured.distance
        comparing = Entry(phase="neighbours", round=history.round, flops=flops)
        return [*score, *(entry for entry in (beside, comparing) if entry.flops or entry.seconds)]

    def _fit(self, plan: FitPlan, history: History, measured: Measured, new: int) -> list[Entry]:
        fit = list(measured.fit(plan, labelled=history.labelled, new=new, round=history.round))
        if self.stop_set:
            fit.append(measured.inference("agree", self.stop_set, round=history.round))
        if self.covers:
            flops = coverage_flops(history.unlabelled, history.labelled, measured.features)
            fit.append(Entry(phase="neighbours", round=history.round, flops=flops))
        return fit

    def _bought(
        self, history: History, size: int, entries: list[Entry], reference: Callable[[int], Line | None]
    ) -> History:
        labelled = history.labelled + size
        bill = history.bill.plus(entries, labels=size, units=self.units, reference=reference(labelled))
        unlabelled = history.unlabelled - size
        return replace(history, labelled=labelled, unlabelled=unlabelled, round=history.round + 1, bill=bill)

    def _trained(
        self, history: History, size: int, fit: list[Entry], reference: Callable[[int], Line | None]
    ) -> History:
        nothing = RoundRecord(round=0, labelled=0, queried=0, agreement=1.0)
        last = history.rounds[-1] if history.rounds else nothing
        record = replace(last, round=history.round, labelled=history.labelled, queried=size)
        bill = history.bill.plus(fit, reference=reference(history.labelled))
        return replace(history, rounds=(*history.rounds, record), bill=bill)

    def _final(
        self,
        history: History,
        measured: Measured,
        entries: list[Entry],
        new: int,
        reference: Callable[[int], Line | None],
    ) -> Iterator[RoundAhead]:
        plan = self.policy.final_plan(history)
        if plan is not None:
            fit = self._fit(plan, history, measured, new)
            history = self._trained(history, new, fit, reference)
            yield replace(self._round(history, new, [*entries, *fit]), final=True)

    def _round(self, history: History, new: int, entries: list[Entry]) -> RoundAhead:
        return RoundAhead(
            round=history.round, labelled=history.labelled, new=new, entries=tuple(entries), bill=history.bill
        )
