"""False starts across rounds, decided on hand-made histories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from al_lightning.callbacks.stall_detection import StallDetection, chance_level, fell_back, no_progress
from al_lightning.errors import UnknownMonitor
from al_lightning.history import Control, History, Reason, RoundRecord
from al_lightning.stop import FalseStart
from al_lightning.stop.false_start import below_band, contradicts_labels, remedy_for

NAN = math.nan


def control(accuracy: float = 0.6, **more: Any) -> Control:
    return Control(**{"labels": 100, "accuracy": accuracy, "judged": 200, "chance": 0.1, **more})


def history(
    values: Sequence[float], *, kappa: Sequence[float | None] = (), restarted: int | None = None, **more: Any
) -> History:
    kappas = [*kappa, *[None] * len(values)]
    rounds = tuple(
        RoundRecord(
            round=i + 1,
            labelled=100 * (i + 1),
            queried=100,
            metrics={"val_acc": value},
            agreement=kappas[i],
            restarted=i == restarted,
        )
        for i, value in enumerate(values)
    )
    settings: dict[str, Any] = {"pool_size": 5000, "unlabelled": 4000, "val_labels": 400, "control": control()}
    return History(**{**settings, "rounds": rounds, **more})


def decide(past: History, **settings: Any) -> Reason | None:
    return FalseStart("val_acc", **settings)(past)


def cause(past: History, **settings: Any) -> str | None:
    reason = decide(past, **settings)
    return None if reason is None else reason.numbers["cause"]


def test_a_run_below_its_control_is_a_false_start_from_the_first_round() -> None:
    reason = decide(history([0.3]))
    assert reason is not None
    assert reason.kind == "stall"
    assert str(reason) == "val_acc is 0.3, and 0.6 with new weights on 100 random records"
    assert reason.numbers["cause"] == "control"
    assert reason.numbers["control"] == 0.6


def test_a_run_near_its_control_is_left_alone_as_are_runs_without_one() -> None:
    assert cause(history([0.55])) is None  # within the noise of 200 and 400 records
    assert cause(history([0.55], control=control(judged=100_000), val_labels=100_000)) == "control"
    assert cause(history([0.55], control=control(judged=100_000), val_labels=100_000), min_gap=0.1) is None
    assert cause(history([0.3], control=None)) is None
    assert cause(history([])) is None


def test_the_best_round_since_the_last_restart_counts() -> None:
    assert cause(history([0.62, 0.3])) is None
    assert cause(history([0.62, 0.3], restarted=1)) == "control"
    assert cause(history([0.1, 0.62], restarted=1)) is None


def test_a_metric_that_is_nan_has_diverged_and_one_that_was_is_forgiven() -> None:
    assert cause(history([NAN])) == "diverged"
    assert cause(history([0.6, NAN])) == "diverged"
    assert cause(history([NAN, 0.65])) is None
    assert cause(history([NAN, 0.3])) == "control"


def test_a_control_that_has_learnt_nothing_tells_of_the_recipe_not_of_the_run() -> None:
    nothing = control(0.11)
    assert cause(history([0.12], control=nothing)) == "chance"
    assert cause(history([0.4], control=nothing)) is None
    assert cause(history([0.12], control=control(NAN))) == "chance"


def test_labels_that_the_control_contradicts() -> None:
    for agreed, wrong in ((0.6, False), (0.5, False), (0.36, True), (None, False)):
        held = control(agreed=agreed, compared=300)
        assert contradicts_labels(held) is wrong
        assert cause(history([0.62], control=held)) == ("labels" if wrong else None)
    assert not contradicts_labels(control(agreed=0.36, compared=5))  # of five records it says nothing
    assert not contradicts_labels(control(0.12, agreed=0.0, compared=300))  # nor from a control that knows nothing


def test_models_that_agree_below_the_control_have_settled_too_low() -> None:
    settled = history([0.55, 0.57], kappa=[None, 0.95])
    assert cause(settled) == "agreement"
    assert cause(settled, agreement=0.96) is None
    assert cause(history([0.55, 0.57], kappa=[None, NAN])) is None
    assert cause(history([0.55, 0.61], kappa=[None, 0.95])) is None


def test_a_round_below_what_the_rounds_before_forecast() -> None:
    rising = [0.6, 0.66, 0.7]
    assert cause(history([*rising, 0.72])) is None
    reason = decide(history([*rising, 0.4]))
    assert reason is not None
    assert reason.numbers["cause"] == "band"
    assert str(reason).startswith("val_acc fell to 0.4, and 0.6")
    assert cause(history([*rising, 0.4], kappa=[None, 0.7, 0.8, 0.3])) == "band"
    assert cause(history([*rising, 0.4, 0.73], control=None)) is None  # it has come back


@pytest.mark.parametrize("accuracy", [[0.6, 0.66, 0.4], [0.6, NAN, 0.7, 0.4], [0.6, 0.66, 0.7, NAN], [0.4], []])
def test_no_band_without_three_known_rounds_before(accuracy: list[float]) -> None:
    labels = [100 * (i + 1) for i in range(len(accuracy))]
    assert below_band(labels, accuracy, val_labels=400, min_delta=0.03) is None


def test_what_is_monitored_must_be_an_accuracy_that_is_logged() -> None:
    with pytest.raises(ValueError, match=r"FalseStart\('val_acc'\): 2\.3 is no accuracy"):
        decide(history([2.3]))
    with pytest.raises(UnknownMonitor, match="val_f1"):
        FalseStart("val_f1")(history([0.5]))


@pytest.mark.parametrize(
    ("cause", "tried", "remedy"),
    [
        ("diverged", [], "weights_and_rate"),
        ("diverged", ["weights_and_rate"], "weights_and_rate"),
        ("one_class", [], "weights_and_selection"),
        ("labels", [], "weights_and_selection"),
        ("chance", [], "weights"),
        ("chance", ["weights"], "weights_and_rate"),
        ("chance", ["weights", "weights_and_rate"], "weights_and_selection"),
        ("control", [], "weights"),
        ("control", ["weights"], "weights_and_selection"),
        ("previous", [], "weights"),
        ("band", ["weights"], "weights_and_selection"),
        ("agreement", ["weights", "weights_and_selection"], "weights_and_selection"),
    ],
)
def test_remedies_by_cause(cause: str, tried: list[Any], remedy: str) -> None:
    assert remedy_for(cause, tried) == remedy
    reason = Reason("stall", "", {"cause": cause})
    assert StallDetection("x").remedy_for(reason, tried) == remedy
    assert FalseStart("x").remedy_for(reason, tried) == remedy


@pytest.mark.parametrize(
    ("values", "reference", "mode", "patience", "worse"),
    [
        ([1.0, 9.0, 9.0], 2.0, "min", 3, True),
        ([9.0, 9.0, 1.0], 2.0, "min", 3, False),  # it has come back
        ([1.0, 9.0, 2.5], 2.0, "min", 3, False),  # a noisy curve
        ([9.0, 9.0], 2.0, "min", 3, False),  # not yet
        ([9.0, 9.0, 9.0], None, "min", 3, False),
        ([0.1, 0.01, 0.02], 0.1, "max", 3, True),
        ([0.1, 0.01, 0.08], 0.1, "max", 3, False),
        ([], 2.0, "min", 1, False),
    ],
)
def test_a_fit_that_is_worse_than_chance(
    values: list[float], reference: float | None, mode: Any, patience: int, worse: bool
) -> None:
    assert fell_back(values, reference=reference, mode=mode, patience=patience) is worse


def test_a_fit_is_held_against_what_rounds_before_reached() -> None:
    settings: dict[str, Any] = {"min_delta": 0.0, "patience": 2}
    low = [2.25, 2.2]
    assert not no_progress(low, reference=2.3, mode="min", **settings)
    assert no_progress(low, reference=2.3, mode="min", reached=0.3, **settings)  # a tenth of the way is 2.1
    assert not no_progress([2.25, 2.05], reference=2.3, mode="min", reached=0.3, **settings)
    assert no_progress([0.11, 0.13], reference=0.1, mode="max", reached=0.9, **settings)
    assert not no_progress([0.11, 0.2], reference=0.1, mode="max", reached=0.9, **settings)
    assert not no_progress(low, reference=2.3, mode="min", reached=NAN, **settings)
    assert not no_progress(low, reference=2.3, mode="min", reached=2.5, **settings)  # rounds before were worse


def test_chance_is_read_off_the_labels() -> None:
    assert chance_level([0, 1, 2, 3], "min") == pytest.approx(math.log(4))
    assert chance_level([0, 0, 0, 1], "max") == 0.75
    assert chance_level([0, 0, 0, 1], "min") == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert chance_level([5, 5], "min") == 0
    assert chance_level([5, 5], "max") == 1
