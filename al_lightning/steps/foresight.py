"""What a round, or the final fit, would cost: what is not begun cannot exceed a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan

from al_lightning.candidates.base import CandidateSelector
from al_lightning.cost.bill import Bill
from al_lightning.cost.budget import Budget
from al_lightning.cost.course import Course
from al_lightning.cost.ledger import Entry
from al_lightning.fit.plan import FitPlan, FitPolicy
from al_lightning.history import History, Reason, RoundRecord
from al_lightning.query.base import Strategy
from al_lightning.run.accounts import Accounts
from al_lightning.stop.base import StoppingRule, alternatives, every_rule, needed_by
from al_lightning.stop.pool_covered import coverage_flops

LONGEST = 500
"""Rounds that are foreseen; a run of more has no end in sight."""


def _at(bill: Bill) -> dict[str, float]:
    values = {name: getattr(bill, name) for name in ("labels", "flops", "seconds", "money", "rho")}
    return {name: float(value) for name, value in values.items() if value is not None and not isnan(value)}


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """Foretells bills from what has been measured, and holds them against the budgets.

    Args:
        stop: stopping rules, budgets among them.
        policy: plans the fits.
        initial: picks the first query.
        query: what candidates are inferred for.
        candidates: how many those are.
        stop_set: records that agreement is measured on.
    """

    stop: Sequence[StoppingRule]
    policy: FitPolicy
    initial: Strategy
    query: Strategy
    candidates: CandidateSelector
    stop_set: int

    @property
    def budgets(self) -> list[Budget]:
        """Budgets that end the run by themselves: those in an AllOf do not."""
        return [rule for rule in alternatives(self.stop) if isinstance(rule, Budget)]

    @property
    def flop_limit(self) -> str | None:
        """The budget that cannot be kept where FLOPs cannot be counted."""
        budgets = (rule for rule in every_rule(self.stop) if isinstance(rule, Budget) and rule.flops is not None)
        return next((f"Budget(flops={rule.flops:g})" for rule in budgets), None)

    def ahead(self, accounts: Accounts, size: int, *, scored: bool = False) -> Bill | None:
        """The bill after one more round of this size and the shortest final fit; None where no budget asks."""
        if not any(isinstance(rule, Budget) and rule.foresees for rule in every_rule(self.stop)):
            return None
        history, measured, round = accounts.history, accounts.measured, accounts.round + 1
        if "train" not in measured.flops:  # the module's FLOPs are not known, or nothing was trained
            return None
        labelled = history.labelled + size
        plan = self.policy.plan(replace(history, labelled=labelled))
        entries = list(measured.fit(plan, labelled=labelled, new=size, round=round))
        if self.stop_set:
            entries.append(measured.inference("agree", self.stop_set, round=round))
        if not scored:
            inferred = self._inferred(accounts, size) if self.query.needs_inference else 0
            entries.append(measured.inference("score", inferred, passes=self.query.passes, round=round))
            entries.append(measured.beside(round))
        bill = accounts.bill_after(entries, size)
        final = self.policy.final_plan(replace(history, bill=bill, labelled=labelled))
        if final is not None:
            bill = accounts.bill_after([*entries, *self._final(accounts, final, labelled)], size)
        return bill

    def _inferred(self, accounts: Accounts, size: int) -> int:
        """Records that the next query will be made from, at most."""
        unlabelled, before = len(accounts.pool.unlabelled), [r.candidates for r in accounts.saved.rounds if r.round > 1]
        if before:
            return min(unlabelled, max(before))
        return self._count(accounts, size)

    def _count(self, accounts: Accounts, size: int) -> int:
        price = accounts.score_cost(self.query.passes)
        return self.candidates.count(unlabelled=len(accounts.pool.unlabelled), size=size, price=price)

    def after_scoring(self, accounts: Accounts, size: int) -> Bill:
        """The bill after scoring the candidates of a query of this size, and nothing else."""
        entry = accounts.measured.inference(
            "score", self._count(accounts, size), passes=self.query.passes, round=accounts.round
        )
        return accounts.bill_after([entry], 0)

    def _final(self, accounts: Accounts, plan: FitPlan, labelled: int) -> list[Entry]:
        before, round = accounts.saved.rounds[-1].labelled, accounts.round
        # The last query goes straight into the final fit, or there is none: a share of epochs is rounded differently.
        cases = (
            list(accounts.measured.fit(plan, labelled=labelled, new=new, round=round)) for new in (0, labelled - before)
        )
        entries = max(cases, key=lambda entries: sum(entry.flops for entry in entries))
        return [
            *entries,
            *([accounts.measured.inference("agree", self.stop_set, round=round)] if self.stop_set else []),
        ]

    def course(self, policy: FitPolicy, size: Callable[[History], int]) -> Course:
        """The run's course with that policy.

        Args:
            policy: plans the fits.
            size: of the next query, limits on labels included.
        """
        passes = self.query.passes if self.query.needs_inference else 0
        return Course(
            size=size,
            policy=policy,
            candidates=self.candidates,
            passes=passes,
            stop_set=self.stop_set,
            covers="coverage" in needed_by(self.stop),
            initial=self.initial,
            query=self.query,
        )

    def bill_after_final(self, accounts: Accounts, plan: FitPlan, *, new: int) -> Bill:
        """The bill after a final fit on so many new labels."""
        entries = list(accounts.measured.fit(plan, labelled=len(accounts.pool.labelled), new=new, round=accounts.round))
        if self.stop_set:
            entries.append(accounts.measured.inference("agree", self.stop_set, round=accounts.round))
        if accounts.covers:
            pool = accounts.pool
            flops = coverage_flops(len(pool.unlabelled), len(pool.labelled), accounts.rehearsed.features)
            entries.append(Entry(phase="neighbours", round=accounts.round, flops=flops))
        if plan.val_batches is None and accounts.validation is not None and accounts.validation.per_epoch < 1:
            # A shortened fit validates at its end, too.
            entries.append(accounts.measured.inference("validate", accounts.validation.records, round=accounts.round))
        return accounts.bill_after(entries, 0)

    def forecast(
        self, accounts: Accounts, record: RoundRecord, bill: Bill, size: Callable[[History], int]
    ) -> dict[str, float]:
        """Return what the run will have cost at its end, by measured costs; empty where no end is in sight.

        Args:
            accounts: after a fit.
            record: of that fit, which is not in the run yet.
            bill: with that fit.
            size: of the next query, limits on labels included.
        """
        if record.final:
            return _at(bill)
        measured = replace(accounts.measured, cautious=False)
        if "train" not in measured.flops:
            return {}
        measured = replace(measured, epochs={**measured.epochs, record.round: record.epochs})
        history = replace(accounts.history, rounds=(*accounts.saved.rounds, record), bill=bill)
        course = self.course(self.policy, size)
        for i, ahead in enumerate(course.rounds(history, measured, accounts.reference)):
            if i == LONGEST:
                return {}
            if any(rule.exceeded(bill, ahead.bill, "") for rule in self.budgets):
                break
            bill = ahead.bill
        return _at(bill)

    def exceeded(self, accounts: Accounts, ahead: Bill | None, what: str) -> Reason | None:
        """Return why that bill must not come about, if a budget says so."""
        if ahead is None:
            return None
        return next((r for rule in self.budgets if (r := rule.exceeded(accounts.bill, ahead, what)) is not None), None)

    def within(self, accounts: Accounts, plan: FitPlan) -> FitPlan | Reason:
        """The final fit, as long as the budgets allow, or why there is none."""
        if not any(rule.foresees for rule in self.budgets) or "train" not in accounts.measured.flops:
            return plan
        labelled = len(accounts.pool.labelled)

        def exceeded(plan: FitPlan) -> Reason | None:
            return self.exceeded(accounts, accounts.bill_after(self._final(accounts, plan, labelled), 0), "a final fit")

        if exceeded(plan) is None or accounts.recipe_epochs is None:
            return exceeded(plan) or plan
        asked = plan.epochs or accounts.recipe_epochs
        whole = asked if isinstance(asked, float) else asked / accounts.recipe_epochs
        shares = (replace(plan, epochs=min(1.0, whole) * step / 100) for step in range(99, 0, -1))
        fits = next((shorter for shorter in shares if exceeded(shorter) is None), None)
        return fits or exceeded(plan) or plan
