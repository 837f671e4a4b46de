"""What every exported stopping rule keeps: a pure decision on a history, whatever that lacks."""

from __future__ import annotations

import json
import math

import pytest

from al_lightning.history import History, Reason, RoundRecord


def history(rounds: int, *, kappa: float | None = 1.0, accuracy: float = 0.9, **numbers: float | None) -> History:
    records = tuple(
        RoundRecord(
            round=i + 1, labelled=100 * (i + 1), queried=100, metrics={"val_acc": accuracy},
            agreement=kappa if i else None, **{"uncertainty": 0.01, "coverage": 0.95, **numbers},
        )
        for i in range(rounds)
    )  # fmt: skip
    return History(
        rounds=records, pool_size=5000, unlabelled=5000 - 100 * rounds, labelled=100 * rounds, val_labels=500
    )


def test_nothing_is_decided_before_the_first_round(rule):
    assert rule(history(0)) is None


def test_a_reason_is_data(rule):
    reason = rule(history(6))
    assert isinstance(reason, Reason)  # flat, stable, certain and covered: there is nothing left to go on for
    assert reason.kind
    assert reason.sentence[0] != reason.sentence[0].upper() or not reason.sentence[0].isalpha()
    assert json.loads(json.dumps(reason.numbers)) == reason.numbers


def test_the_same_history_gives_the_same_decision_and_is_not_changed(rule):
    given = history(6)
    before = json.dumps([r.to_json() for r in given.rounds])
    assert rule(given) == rule(given)
    rule(history(2, accuracy=0.1))
    assert rule(given) == rule(given)
    assert json.dumps([r.to_json() for r in given.rounds]) == before


@pytest.mark.filterwarnings("ignore:RoundPlateau")
def test_what_is_not_a_number_is_no_reason_to_stop(rule):
    nan = history(6, kappa=math.nan, uncertainty=math.nan, coverage=math.nan, accuracy=math.nan)
    reason = rule(nan)
    assert reason is None or reason.kind in ("plateau", "out_of_reach")


@pytest.mark.filterwarnings("ignore:RoundPlateau")
def test_what_was_not_measured_is_no_reason_to_stop(rule):
    if getattr(rule, "needs", None):
        assert rule(history(6, kappa=None, uncertainty=None, coverage=None)) is None
