"""WarmStart(rho=): the final fit and all validation are held to what the rounds leave of it."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import isnan

from lightning.pytorch.utilities import rank_zero_info

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.cost.ahead import Measured
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.ledger import Entry
from al_lightning.cost.validation import ALL, Validation
from al_lightning.errors import RhoTooSmall
from al_lightning.fit.plan import FitPlan
from al_lightning.history import History
from al_lightning.planning.architectures import BACKWARD
from al_lightning.run.accounts import Accounts
from al_lightning.steps.control import new_labels
from al_lightning.steps.foresight import LONGEST, Foresight
from al_lightning.steps.target import tried

TOLERANCE = 0.02
"""How far above its rho a run may be foreseen to end: epochs are whole."""
RESERVE = 0.2
"""Share of rho that is left alone before costs are measured: distances to what is labelled are not foreseen."""
_FORWARD = {"at most": 1 / 2, "at least": 1 / 3}
"""FLOPs of validating a record / those of training on it, before they are measured."""


def _known(accounts: Accounts) -> dict[str, float]:
    """FLOPs of a record by kind of pass: measured, or met in a rehearsal."""
    return {**accounts.rehearsed.flops, **{str(kind): value for kind, value in accounts.flops.known().items()}}


@dataclass(frozen=True)
class _Shortest:
    """A policy with the shortest final fit, and with validation of so many batches; None: as the Trainer says."""

    policy: WarmStart
    val_batches: int | None

    def plan(self, history: History) -> FitPlan:
        return replace(self.policy.plan(history), val_batches=self.val_batches)

    def final_plan(self, history: History) -> FitPlan | None:
        plan = self.policy.final_plan(history)
        return plan and replace(plan, epochs=self.policy.final_epochs, val_batches=self.val_batches)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """Keeps a run within the rho of its :class:`WarmStart`; of other policies it changes nothing.

    As long as the shortest final fit fits in, validation is what the Trainer says. Then fits validate at their end
    alone, and at last on as many batches as there is room for, one at least.

    Args:
        foresight: foretells bills.
        size: of the next query, limits on labels included.
    """

    foresight: Foresight
    size: Callable[[History], int]

    def check(self, accounts: Accounts) -> None:
        """Refuse a rho that the rounds and the shortest final fit exceed, before a label is bought.

        Raises:
            RhoTooSmall: with what they come to.
        """
        policy = self._policy(accounts)
        if policy is None or policy.rho is None or (accounts.proxied and accounts.rehearsed.target is None):
            return
        lines = self._at_end(accounts, policy, 1, _FORWARD["at least"])
        if lines is None or lines.rho is None or lines.rho <= policy.rho + TOLERANCE:
            return
        whole = lines.reference.flops if lines.reference else 1.0
        parts = {phase: line.flops / whole for phase, line in lines.lines.items() if line.flops}
        raise RhoTooSmall(policy.rho, lines.rho, parts)

    def of_round(self, accounts: Accounts, plan: FitPlan) -> FitPlan:
        """The plan of a round's fit, with as much validation as leaves room for the rest of the run."""
        policy, validation = self._policy(accounts), accounts.validation
        measured = "train" in _known(accounts)
        if policy is None or policy.rho is None or validation is None or (accounts.proxied and not measured):
            return plan
        before, rho = accounts.saved.meta.get("val_batches"), policy.rho

        def within(val_batches: int | None, rho: float) -> bool:
            bill = self._at_end(accounts, policy, val_batches, _FORWARD["at most"])
            return bill is None or bill.rho is None or bill.rho <= rho

        if before is None and within(None, rho):
            return plan
        if within(ALL, rho):
            return self._said(accounts, replace(plan, val_batches=ALL), validation)
        left = rho if measured else (1 - RESERVE) * rho
        most = bisect_right(range(1, validation.batches), False, key=lambda n: not within(n, left))
        return self._said(accounts, replace(plan, val_batches=max(1, most)), validation)

    def of_final(self, accounts: Accounts, plan: FitPlan) -> FitPlan:
        """The final fit, as long as what is left of rho allows for with its own validation."""
        policy, validation = self._policy(accounts), accounts.validation
        if policy is None or policy.rho is None or accounts.bill.rho is None:
            return plan
        new, most = new_labels(accounts.pool, accounts.saved), policy.rho + 1e-9
        options = [plan, *self._shorter(plan, policy)]
        if validation is not None:
            once = [replace(p, val_batches=ALL) for p in options]
            fewer = [replace(once[-1], val_batches=n) for n in range(validation.batches - 1, 0, -1)]
            options = [*(options if "val_batches" not in accounts.saved.meta else []), *once, *fewer]

        def fits(plan: FitPlan) -> bool:
            rho = self.foresight.bill_after_final(accounts, plan, new=new).undisturbed.rho
            return rho is None or rho <= most

        found = next((option for option in options if fits(option)), options[-1])
        return found if found.val_batches is None or validation is None else self._said(accounts, found, validation)

    @staticmethod
    def _shorter(plan: FitPlan, policy: WarmStart) -> Iterator[FitPlan]:
        least, most = policy.final_epochs, plan.epochs
        if isinstance(least, float) and isinstance(most, float) and most > least:
            yield from (replace(plan, epochs=least + (most - least) * step / 100) for step in range(99, 0, -1))
            yield replace(plan, epochs=least)

    def _policy(self, accounts: Accounts) -> WarmStart | None:
        policy = self.foresight.policy
        return policy if isinstance(policy, WarmStart) and policy.rho is not None and accounts.recipe_epochs else None

    def _at_end(self, accounts: Accounts, policy: WarmStart, val_batches: int | None, forward: float) -> Bill | None:
        """The bill at the end of the accounts, with the shortest final fit; None where no end is in sight."""
        history, measured = accounts.history, replace(accounts.measured, cautious=False)
        history = replace(history, bill=history.bill.undisturbed)
        reference: Callable[[int], Line | None] = accounts.reference
        if not accounts.saved.rounds:
            history, measured, reference = self._unmeasured(accounts, forward)
        course = self.foresight.course(_Shortest(policy, val_batches), self.size)
        if history.round:  # a fit is about to begin
            history = course.after_fit(history, measured, reference, new=new_labels(accounts.pool, accounts.saved))
        ahead = list(islice(course.rounds(history, measured, reference), LONGEST))
        return None if len(ahead) == LONGEST else ahead[-1].bill if ahead else history.bill

    def _unmeasured(self, accounts: Accounts, forward: float) -> tuple[History, Measured, Callable[[int], Line | None]]:
        """Before the first fit: by what a rehearsal has shown, else in units of training on a record."""
        met, validation = accounts.rehearsed, accounts.validation or Validation(records=0, batch=1)
        flops = _known(accounts)
        known, train = "train" in flops, flops.get("train", 1.0)
        validate = flops.get("validate", flops.get("forward", forward * train))
        forward = flops.get("forward", validate)
        final = train if not accounts.proxied else accounts.target_flops.known().get("train", met.target or train)
        measured = Measured.assumed(
            train=(train, 1.0),
            forward=(forward, forward / train),
            epochs=accounts.recipe_epochs or 1,
            validated_per_epoch=round(validation.records * validation.per_epoch),
            validated_per_fit=validation.before,
        )
        measured = replace(
            measured,
            flops={**measured.flops, **flops, "validate": validate},
            final=None if not accounts.proxied else (final, final / train),
            validation=accounts.validation,
            distance=met.distance,
            features=met.features,
            answers=met.answers,
            guessed=train / (1 + BACKWARD) if known else None,
        )

        def reference(labels: int) -> Line | None:
            records = accounts.recipe(labels)
            return Line(records=records, flops=records * final, seconds=records * final / train) if records else None

        history, bill = accounts.history, accounts.bill.undisturbed
        if not known or isnan(bill.flops):
            return replace(history, bill=Bill(prices=accounts.prices)), measured, reference
        once = [Entry(phase=p, round=0, flops=f - bill.line(p).flops) for p, f in met.once.items()]
        if accounts.proxied and "train" not in accounts.target_flops.known():
            labels = history.labelled or self.size(history)
            once.append(Entry(phase="train", round=1, flops=final * min(labels, tried(accounts.pool, accounts.ranks))))
        once = [entry for entry in once if entry.flops > 0]
        return replace(history, bill=bill.plus(once, reference=bill.reference)), measured, reference

    def _said(self, accounts: Accounts, plan: FitPlan, validation: Validation) -> FitPlan:
        """The plan, once it has been said that it validates less often than the Trainer would."""
        known = accounts.saved.meta.get("val_batches")
        batches = validation.batches
        rho = f"WarmStart(rho={self.foresight.policy.rho:g})"  # type: ignore[attr-defined]
        if plan.val_batches is not None and plan.val_batches < batches and (known is None or known >= batches):
            warnings.warn(
                f"{rho} leaves room to validate {plan.val_batches} of {batches} batches, once, at the end of a fit. "
                "Fewer rounds, a larger rho=, or check_val_every_n_epoch= and limit_val_batches= of the Trainer leave "
                "more.",
                stacklevel=2,
            )
        elif known is None:
            rank_zero_info(f"{rho}: fits validate once, at their end; every epoch would exceed it.")
        return plan
