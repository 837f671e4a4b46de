"""The decisions of the stopping rules, on histories made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from al_lightning.callbacks.round_plateau import RoundPlateau, labels_for
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.cost.bill import Bill
from al_lightning.cost.budget import Budget
from al_lightning.cost.prices import Prices
from al_lightning.errors import UnknownMonitor
from al_lightning.history import History, RoundRecord
from al_lightning.stop import (
    AllOf,
    AnyOf,
    ClassificationChange,
    CostStopping,
    Coverage,
    OverallUncertainty,
    StabilizingPredictions,
)
from al_lightning.stop.base import alternatives, needed_by
from al_lightning.stop.cost_stopping import best_stop, cost_of_rounds, further_labels
from al_lightning.stop.pool_covered import covered_share

NAN = math.nan


def history(values: Any = (), *, kappa: Any = (), val_labels: int = 500, seconds: float = 0.0, **last: Any) -> History:
    count = max(len(values), len(kappa))
    rounds = tuple(
        RoundRecord(
            round=i + 1, labelled=100 * (i + 1), queried=100, metrics={"val_acc": values[i]} if len(values) else {},
            agreement=kappa[i] if len(kappa) else None, cost={"seconds": seconds * (i + 1)},
            **(last if i == count - 1 else {}),
        )
        for i in range(count)
    )  # fmt: skip
    bill = Bill(labels=100 * count, prices=Prices(label=1.0, hour=3600.0))
    return History(
        rounds=rounds, pool_size=5000, unlabelled=5000 - 100 * count, labelled=100 * count, val_labels=val_labels,
        bill=bill,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "kappa", "stops"),
    [
        (StabilizingPredictions(), [None], False),
        (StabilizingPredictions(), [None, 1.0], False),  # two models are not three
        (StabilizingPredictions(), [None, 0.99, 0.99], True),
        (StabilizingPredictions(), [None, 1.0, 0.97], False),
        (StabilizingPredictions(), [None, 0.999, 0.985], True),  # the mean counts
        (StabilizingPredictions(), [None, 0.99, 0.99, NAN], False),
        (StabilizingPredictions(models=2), [None, 0.5, 0.99], True),
        (StabilizingPredictions(models=4), [None, 0.99, 0.99], False),
        (StabilizingPredictions(0.6), [None, 0.7, -0.2, 0.8], False),
        (ClassificationChange(), [None], False),
        (ClassificationChange(), [None, 0.999], False),
        (ClassificationChange(), [None, 1.0], True),
        (ClassificationChange(), [None, 1.0, 0.99], False),
        (ClassificationChange(rounds=2), [None, 1.0], False),
        (ClassificationChange(rounds=2), [None, 0.9, 1.0, 1.0], True),
        (ClassificationChange(), [None, NAN], False),
    ],
)
def test_agreement(rule: Any, kappa: list[float | None], stops: bool) -> None:
    assert (rule(history(kappa=kappa)) is not None) is stops


@pytest.mark.parametrize(
    ("rule", "numbers", "kind"),
    [
        (OverallUncertainty(0.05), {"uncertainty": 0.049}, "certain"),
        (OverallUncertainty(0.05), {"uncertainty": 0.05}, None),
        (OverallUncertainty(0.05), {"uncertainty": NAN}, None),
        (OverallUncertainty(0.05), {}, None),  # nothing fresh was scored for this round
        (Coverage(0.9), {"coverage": 0.9}, "covered"),
        (Coverage(0.9), {"coverage": 0.89}, None),
        (Coverage(0.9), {"coverage": NAN}, None),
    ],
)
def test_numbers_of_the_last_round(rule: Any, numbers: dict[str, float], kind: str | None) -> None:
    reason = rule(history([0.5, 0.6], **numbers))
    assert (reason and reason.kind) == kind


def test_covered_share_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    left, labelled = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=(25, 3)).astype(np.float32)
    apart = np.linalg.norm(left[:, None] - left[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    radius = np.median(apart.min(1))
    near = np.linalg.norm(left[:, None] - labelled[None], axis=-1).min(1)
    share, flops = covered_share(left, labelled)
    assert share == pytest.approx(np.mean(near <= radius))
    assert flops == 2 * 40 * (40 + 25) * 3


def test_coverage_grows_with_labels_and_is_a_half_for_as_many() -> None:
    rng = np.random.default_rng(1)
    left = rng.normal(size=(500, 4)).astype(np.float32)
    shares = [covered_share(left, rng.normal(size=(m, 4)).astype(np.float32))[0] for m in (50, 500, 5000)]
    assert shares[0] < shares[1] < shares[2]
    assert shares[1] == pytest.approx(0.5, abs=0.1)


# ---- combinations ----------------------------------------------------------------------------------------------------


def test_any_and_all() -> None:
    yes, other, no = Budget(labels=100), ClassificationChange(), OverallUncertainty()
    given = history([0.5, 0.5], kappa=[None, 1.0])
    assert AnyOf([no, yes])(given).kind == "budget"  # type: ignore[union-attr]
    assert AnyOf([no])(given) is None
    assert AllOf([yes, no])(given) is None
    reason = AllOf([yes, other])(given)
    assert reason is not None
    assert reason.kind == "all"
    assert reason.numbers["kinds"] == ["budget", "unchanged"]
    assert reason.sentence.count("; ") == 1
    assert AnyOf([AllOf([yes, no]), other])(given).kind == "unchanged"  # type: ignore[union-attr]


def test_what_combinations_need_and_which_budgets_they_keep() -> None:
    inner, outer = Budget(labels=5), Budget(labels=7)
    rules = [AnyOf([StabilizingPredictions(), AllOf([Coverage(), inner]), outer])]
    assert needed_by(rules) == {"agreement": "StabilizingPredictions", "coverage": "Coverage"}
    assert [rule for rule in alternatives(rules) if isinstance(rule, Budget)] == [outer]


# ---- RoundPlateau ----------------------------------------------------------------------------------------------------


def test_plateau_warns_of_what_its_labels_do_not_support() -> None:
    rule = RoundPlateau("val_acc", min_delta=0.005, patience=3)
    assert rule(history([0.8, 0.9])) is None  # nothing to warn of yet
    with pytest.warns(
        UserWarning, match=r"two standard errors of val_acc=0.9 are 0.027 with 500 validation labels"
    ) as w:
        rule(history([0.8, 0.9, 0.9]))
    needed = labels_for((0.9 * 500 + 1) / 502, 0.005)
    assert f"{needed:,} would support it" in str(w[0].message)
    assert pytest.approx(2 * math.sqrt(0.898 * 0.102 / needed), rel=0.01) == 0.005
    assert rule(history([0.8, 0.9, 0.9, 0.9])) is None  # said once


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        (RoundPlateau("val_acc", min_delta=0.03), history([0.9, 0.9])),  # supported
        (RoundPlateau("val_acc", mode="min"), history([0.9, 0.9])),  # a loss
        (RoundPlateau("val_acc"), history([1.9, 1.9])),  # no share
        (RoundPlateau("val_acc"), history([0.9, 0.9], val_labels=0)),
        (RoundPlateau("val_acc"), history([NAN, NAN])),
    ],
)
def test_plateau_does_not_warn(rule: RoundPlateau, given: History) -> None:
    rule(given)


def test_no_number_of_labels_supports_a_delta_of_nothing() -> None:
    with pytest.warns(UserWarning, match="no number would support it"):
        RoundPlateau("val_acc")(history([0.9, 0.9]))


# ---- CostStopping ----------------------------------------------------------------------------------------------------

CURVE = [0.60, 0.72, 0.78, 0.81, 0.83, 0.845]
KAPPA = [None, 0.70, 0.82, 0.88, 0.91, 0.93]


@pytest.mark.parametrize("kappa", [KAPPA, ()], ids=["with a stop set", "without"])
def test_dear_accuracy_goes_on_and_cheap_accuracy_stops(kappa: Any) -> None:
    given = history(CURVE, kappa=kappa)
    stopped = [CostStopping(price_per_point=p)(given) is not None for p in (1.0, 10.0, 100.0, 1000.0, 10_000.0)]
    assert stopped[0]
    assert not stopped[-1]
    assert stopped == sorted(stopped, reverse=True)


def test_the_reason_has_the_forecast_its_interval_and_what_it_costs() -> None:
    reason = CostStopping(price_per_point=1.0)(history(CURVE, kappa=KAPPA, seconds=2.0))
    assert reason is not None
    numbers = reason.numbers
    assert numbers["labels"][:2] == [700, 800]
    assert numbers["labels"][-1] == 5000
    assert all(
        low < gain < high for low, gain, high in zip(*(numbers[k] for k in ("low", "gain", "high")), strict=True)
    )
    assert numbers["cost"][0] == pytest.approx(100 * 1.0 + 2.0 * 700 / 600)  # a second costs 1
    assert numbers["net"] < 0
    assert "no number of rounds pays" in reason.sentence


def test_rounds_to_come_cost_no_more_for_what_a_kill_has_cost() -> None:
    rule, whole = CostStopping(price_per_point=1.0), history(CURVE, kappa=KAPPA, seconds=2.0)
    *before, last = whole.rounds
    cost = {**last.cost, "seconds": last.cost["seconds"] + 3600, "seconds_lost": 3600.0}
    assert rule.report(replace(whole, rounds=(*before, replace(last, cost=cost)))) == pytest.approx(rule.report(whole))


def test_the_forecast_is_reported_every_round() -> None:
    rule = CostStopping(price_per_point=1000.0)
    assert rule.report(history(CURVE[:2], kappa=KAPPA[:2])) == {}
    report = rule.report(history(CURVE, kappa=KAPPA))
    assert report["gain_low"] < report["gain"] < report["gain_high"]
    assert report["net"] > 0
    assert "net" not in CostStopping(target=0.9).report(history(CURVE, kappa=KAPPA))


def test_it_waits_for_three_rounds_and_for_predictions_to_settle() -> None:
    rule = CostStopping(price_per_point=0.001)
    assert rule(history([0.5], kappa=[None])) is None
    assert rule(history([0.5, 0.5], kappa=[None, 0.9])) is None
    assert rule(history([0.5, 0.5, 0.5], kappa=[None, 0.9, 0.9])) is not None
    assert rule(history([0.5, 0.5, 0.5], kappa=[None, 0.9, 0.59])) is None
    assert CostStopping(price_per_point=0.001, agreement=-1)(history([0.5] * 3, kappa=[None, 0.9, 0.5])) is not None


@pytest.mark.parametrize("kappa", [KAPPA, ()], ids=["with a stop set", "without"])
def test_metrics_that_are_missing_or_fall(kappa: Any) -> None:
    rule = CostStopping(price_per_point=0.001, agreement=-1)
    for values in ([NAN, *CURVE[1:]], [*CURVE[:-1], NAN], CURVE[::-1], [0.0] * 6, [1.0] * 6):
        reason = rule(history(values, kappa=kappa))
        assert reason is not None
        assert np.isfinite(reason.numbers["gain"]).all()
    falling = CostStopping(price_per_point=1.0)(history(CURVE[::-1], kappa=kappa))
    assert falling is not None


def test_without_any_accuracy_it_has_nothing_to_say() -> None:
    rule = CostStopping(price_per_point=0.001)
    assert rule(history([NAN] * 6)) is None
    assert rule(history([NAN] * 6, kappa=KAPPA)) is None
    with pytest.raises(UnknownMonitor, match="Available: val_acc"):
        CostStopping(monitor="acc", price_per_point=1.0)(history(CURVE))
    with pytest.raises(ValueError, match=r"CostStopping\(monitor='val_acc'\): 1.5 is no accuracy"):
        rule(history([0.5, 0.6, 1.5]))


def test_a_target_is_reached_or_out_of_reach() -> None:
    given = history(CURVE, kappa=KAPPA)
    assert CostStopping(target=0.84)(given).kind == "target"  # type: ignore[union-attr]
    assert CostStopping(target=0.87)(given) is None
    assert CostStopping(target=1.0)(history([0.5, 0.51, 0.51, 0.51], kappa=[None, 0.97, 0.99, 0.995])).kind == (  # type: ignore[union-attr]
        "out_of_reach"
    )


def test_rounds_ahead_and_their_price() -> None:
    assert further_labels([100, 250], 600).tolist() == [400, 550, 600]
    assert further_labels([100], 250).tolist() == [200, 250]
    assert further_labels([100, 250], 250).tolist() == []
    assert further_labels([100, 100], 103).tolist() == [101, 102, 103]  # nothing was answered
    cost = cost_of_rounds(np.array([200, 300]), now=100, price=2.0, compute=5.0)
    assert cost.tolist() == [200 + 10, 400 + 10 + 15]


def test_a_later_round_may_pay_where_the_next_does_not() -> None:
    gain, cost = np.array([0.0, 0.1, 0.11]), np.array([1.0, 2.0, 3.0])
    assert best_stop(gain, cost, value=30.0) == (1, pytest.approx(1.0))
    assert best_stop(gain, cost, value=10.0)[1] <= 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StabilizingPredictions(0), r"StabilizingPredictions\(threshold=0\)"),
        (lambda: StabilizingPredictions(models=1), r"models=1\): allowed: 2 or more"),
        (lambda: ClassificationChange(rounds=0), r"rounds=0\)"),
        (lambda: OverallUncertainty(0), r"threshold=0\)"),
        (lambda: Coverage(1.5), r"share=1.5\)"),
        (lambda: AnyOf([]), r"AnyOf\(\[\]\) combines nothing"),
        (lambda: CostStopping(), "price_per_point=, or target="),
        (lambda: CostStopping(price_per_point=1.0, target=0.9), "not both"),
        (lambda: CostStopping(price_per_point=0.0), r"price_per_point=0.0\)"),
        (lambda: CostStopping(target=90.0), r"target=90.0\)"),
        (lambda: CostStopping(target=0.9, agreement=2), r"agreement=2\)"),
        (lambda: CostStopping(target=0.9, confidence=0.5), r"confidence=0.5\): .* between 0.5 and 1"),
        (lambda: CostStopping(target=0.9, confidence=90), r"confidence=90\)"),
    ],
)
def test_settings_out_of_range(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_stall_detection_cannot_be_combined() -> None:
    with pytest.raises(TypeError, match="StallDetection is none"):
        AnyOf([StallDetection("train_loss")])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("monitor", "values"),
    [("val_loss", [0.9, 0.5, 0.2]), ("val/error_rate", [0.9, 0.5, 0.2]), ("valAccuracy", [0.2, 0.5, 0.9])],
)
def test_a_plateau_knows_which_way_is_better_where_the_name_tells(monitor, values):
    def reason(values):
        rounds = tuple(RoundRecord(round=i, labelled=9, queried=9, metrics={monitor: v}) for i, v in enumerate(values))
        return RoundPlateau(monitor, patience=2)(History(rounds=rounds, pool_size=99, unlabelled=9))

    assert reason(values) is None
    assert reason(values[::-1]).kind == "plateau"


@pytest.mark.parametrize("monitor", ["val_score", "accuracy_loss", "f"])
def test_a_plateau_asks_which_way_is_better_where_the_name_does_not_tell(monitor):
    with pytest.raises(ValueError, match=rf"RoundPlateau\('{monitor}'\) needs mode=.*mode='max'.*mode='min'"):
        RoundPlateau(monitor)
    assert RoundPlateau(monitor, mode="min").mode == "min"
