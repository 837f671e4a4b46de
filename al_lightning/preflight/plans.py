"""The kinds of fits that a policy will ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from al_lightning.fit.plan import FitPlan, FitPolicy
from al_lightning.history import History, RoundRecord
from al_lightning.run.describe import describe


def plans_of(
    policy: FitPolicy, size: Callable[[History], int], history: History, first: int, *, rounds: bool, final: bool
) -> list[tuple[FitPlan, int]]:
    """Plans that differ in more than their length, each with the labels that a fit before it had.

    Args:
        policy: makes them.
        size: of the next query.
        history: of a run that begins.
        first: size of its first query.
        rounds: whether the rounds' fits are wanted.
        final: whether the final one is.
    """
    begun = replace(history, rounds=(), round=1, labelled=first)
    past = (RoundRecord(round=1, labelled=first, queried=first),)
    later = replace(begun, rounds=past, round=2, labelled=first + max(1, size(replace(begun, rounds=past))))
    last = policy.final_plan(later) if final else None
    made = [(policy.plan(begun), 0), (policy.plan(later), first)] if rounds else []
    made += [] if last is None else [(last, first)]
    return list(reversed({_kind(plan): (replace(plan, cached=False), n) for plan, n in reversed(made)}.values()))


def _kind(plan: FitPlan) -> str:
    return str(describe(replace(plan, epochs=None, final=False, cached=False, average=float(plan.average > 0))))
