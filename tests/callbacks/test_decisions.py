"""The decisions behind the callbacks, on histories made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from al_lightning.callbacks.round_plateau import RoundPlateau, rounds_without_progress
from al_lightning.callbacks.stall_detection import no_progress
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.contrib import Gated, Replay, ShrinkPerturb
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.budget import Budget
from al_lightning.errors import UnknownMonitor
from al_lightning.fit.plan import FitPlan
from al_lightning.history import History, RoundRecord

NAN = math.nan


def history(
    values: list[float], *, name: str = "val_acc", agreement: Any = (), restarted: Any = (), **kwargs: Any
) -> History:
    agreements = [*agreement, *[None] * len(values)]
    rounds = tuple(
        RoundRecord(round=i + 1, labelled=10 * (i + 1), queried=10, metrics={name: value}, agreement=agreements[i],
                    restarted=i in restarted)
        for i, value in enumerate(values)
    )  # fmt: skip
    return History(**{"rounds": rounds, "pool_size": 100, "unlabelled": 50, "labelled": 10 * len(values), **kwargs})


@pytest.mark.parametrize(
    ("values", "mode", "min_delta", "since"),
    [
        ([], "max", 0, 0),
        ([0.5], "max", 0, 0),
        ([NAN], "max", 0, 1),
        ([0.5, 0.6, 0.7], "max", 0, 0),
        ([0.5, 0.7, 0.6], "max", 0, 1),
        ([0.5, 0.5, 0.5], "max", 0, 2),  # equal is no improvement
        ([0.5, 0.55, 0.58, 0.59], "max", 0.1, 3),  # creeping: none beats the best by more than 0.1
        ([0.5, 0.55, 0.65], "max", 0.1, 0),  # measured from the best, not from the last
        ([0.5, 0.6], "max", 0.1, 1),  # exactly min_delta is not more than it
        ([0.5, NAN, 0.6], "max", 0, 0),
        ([0.5, NAN, NAN], "max", 0, 2),
        ([1.0, 0.9, 0.8], "min", 0, 0),
        ([1.0, 1.1, 0.95], "min", 0.1, 2),
        ([-1.0, -2.0], "min", 0, 0),
        ([-3.0, -2.0, -1.0], "max", 0, 0),
        ([0.0, 0.0], "max", 0, 1),
    ],
)
def test_rounds_without_progress(values: list[float], mode: Any, min_delta: float, since: int) -> None:
    assert rounds_without_progress(values, mode=mode, min_delta=min_delta) == since


def test_plateau_stops_at_its_patience_and_says_why() -> None:
    rule = RoundPlateau("val_acc", patience=2, min_delta=0.01)
    assert rule(history([])) is None
    assert rule(history([0.5])) is None
    assert rule(history([0.5, 0.6, 0.6])) is None
    reason = rule(history([0.5, 0.6, 0.6, 0.605]))
    assert reason is not None
    assert reason.kind == "plateau"
    assert str(reason) == "val_acc has not improved by more than 0.01 for 2 rounds (now 0.605)"
    assert reason.numbers == {"monitor": "val_acc", "values": [0.5, 0.6, 0.6, 0.605], "rounds": 2}


def test_plateau_keeps_no_memory_between_histories() -> None:
    rule = RoundPlateau("val_acc", patience=1)
    assert rule(history([0.5, 0.4])) is not None
    assert rule(history([0.1, 0.2])) is None


def test_plateau_refuses_an_unknown_monitor() -> None:
    with pytest.raises(UnknownMonitor, match="Available: val_acc"):
        RoundPlateau("acc")(history([0.5]))


@pytest.mark.parametrize(
    ("values", "reference", "mode", "min_delta", "patience", "stalled"),
    [
        ([], None, "min", 0, 1, False),
        ([1.1], None, "min", 0, 1, False),  # the first value is where it starts
        ([1.1, 1.1], None, "min", 0, 1, True),  # a dead network: not a hair's breadth
        ([1.1, 1.2], None, "min", 0, 1, True),
        ([1.1, 1.0], None, "min", 0, 1, False),
        ([1.1, 1.2], None, "min", 0, 2, False),  # not yet
        ([1.1, 1.0, 1.2, 1.3], None, "min", 0, 3, False),  # it got away once
        ([1.1, 1.09, 1.08], None, "min", 0.05, 2, True),
        ([1.1], 1.1, "min", 0.01, 1, True),  # with a reference the first value counts
        ([1.0], 1.1, "min", 0.01, 1, False),
        ([0.34, 0.33], 1 / 3, "max", 0.05, 2, True),
        ([0.34, 0.5], 1 / 3, "max", 0.05, 2, False),
        ([0.1, 0.2], None, "max", 0, 1, False),
        ([NAN], None, "min", 0, 9, True),  # at once, whatever the patience
        ([1.0, 0.5, math.inf], 1.1, "min", 0, 9, True),
        ([-math.inf], None, "min", 0, 9, True),
    ],
)
def test_no_progress(
    values: list[float], reference: float | None, mode: Any, min_delta: float, patience: int, stalled: bool
) -> None:
    got = no_progress(values, reference=reference, mode=mode, min_delta=min_delta, patience=patience)
    assert got is stalled


@pytest.mark.parametrize(
    ("budget", "spent", "kind"),
    [
        (Budget(labels=30), history([1, 1, 1]), "labels"),
        (Budget(labels=31), history([1, 1, 1]), None),
        (Budget(flops=100), history([], bill=Bill(lines={"train": Line(flops=99), "score": Line(flops=1)})), "flops"),
        (Budget(flops=101), history([], bill=Bill(lines={"train": Line(flops=99), "score": Line(flops=1)})), None),
        (Budget(hours=1), history([], bill=Bill(lines={"aborted": Line(seconds=3600)})), "hours"),
        (Budget(hours=1.1), history([], bill=Bill(lines={"aborted": Line(seconds=3600)})), None),
        (Budget(money=3.59), history([], bill=Bill(labels=100)), "money"),
        (Budget(money=3.7), history([], bill=Bill(labels=100)), None),
        (Budget(rho=2), history([], bill=Bill(lines={"train": Line(flops=200)}, reference=Line(flops=100))), "rho"),
        (Budget(rho=2.1), history([], bill=Bill(lines={"train": Line(flops=200)}, reference=Line(flops=100))), None),
        (Budget(rho=0.1), history([], bill=Bill(lines={"train": Line(flops=200)})), None),  # unknown is not spent
        (Budget(labels=99, money=3.59), history([1], bill=Bill(labels=100)), "money"),
    ],
)
def test_budgets(budget: Budget, spent: History, kind: str | None) -> None:
    reason = budget(spent)
    if kind is None:
        assert reason is None
    else:
        assert reason is not None
        assert reason.kind == "budget"
        assert str(reason).startswith(f"{kind}: ")
        assert reason.numbers["limit"] == getattr(budget, kind)


def test_labels_left() -> None:
    assert Budget(labels=25).labels_left(history([1, 1])) == 5
    assert Budget(labels=15).labels_left(history([1, 1])) == 0
    assert Budget(hours=1).labels_left(history([1, 1])) == 50


@pytest.mark.parametrize("mode", ["reset", "keep", "shrink_perturb", "resume"])
def test_the_first_round_is_cold(mode: Any) -> None:
    assert WarmStart(mode, epochs=1, first_epochs=7, freeze=("a",)).plan(history([])) == FitPlan(
        start="initial", epochs=7
    )


@pytest.mark.parametrize(
    ("policy", "plan"),
    [
        (WarmStart("reset", epochs=1, first_epochs=7), FitPlan(start="initial", epochs=7)),
        (WarmStart("keep", epochs=3, freeze=("a", "b")), FitPlan(start="previous", epochs=3, freeze=("a", "b"))),
        (
            ShrinkPerturb(shrink=0.5, perturb=0.2),
            FitPlan(start="shrink_perturb", shrink=0.5, perturb=0.2),
        ),
        (Replay(replay=2), FitPlan(start="previous", replay=2)),
    ],
)
def test_later_rounds(policy: WarmStart, plan: FitPlan) -> None:
    assert policy.plan(history([0.5, 0.6])) == plan


def test_the_gate_opens_once_and_stays_open() -> None:
    policy = Gated("keep", epochs=1, gate=0.8)
    cold, warm = FitPlan(start="initial"), FitPlan(start="previous", epochs=1)
    assert policy.plan(history([1, 1])) == cold
    assert policy.plan(history([1, 1, 1], agreement=[None, 0.5, 0.79])) == cold
    assert policy.plan(history([1, 1, 1], agreement=[None, 0.5, 0.8])) == warm
    assert policy.plan(history([1, 1, 1, 1], agreement=[None, 0.9, 0.1, 0.1])) == warm


def test_the_final_fit() -> None:
    assert WarmStart("keep").final_plan(history([1])) is None
    plan = WarmStart("keep", freeze=("a",), final="initial", final_epochs=9).final_plan(history([1]))
    assert plan == FitPlan(start="initial", epochs=9, final=True)


@pytest.mark.parametrize(("spent", "epochs"), [(0.0, 0.9), (0.5, 0.4), (0.8, 0.25), (3.0, 0.25), (None, 0.25)])
def test_the_final_fit_gets_what_is_left_of_rho(spent: float | None, epochs: float) -> None:
    lines = {"train": Line(records=1, flops=spent or 0.0, seconds=1.0)}
    bill = Bill(lines=lines, reference=None if spent is None else Line(records=1, flops=1.0, seconds=1.0))
    plan = WarmStart("keep", final="previous", final_epochs=0.25, rho=0.9).final_plan(replace(history([1]), bill=bill))
    assert plan is not None
    assert plan.epochs == pytest.approx(epochs)


def test_what_is_left_of_rho_is_at_most_a_whole_recipe() -> None:
    plan = WarmStart("keep", final="previous", final_epochs=0.25, rho=9.0).final_plan(history([1]))
    assert plan is not None
    assert plan.epochs in (1.0, 0.25)
