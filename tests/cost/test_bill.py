"""The bill's arithmetic."""

from __future__ import annotations

import json

import pytest

from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.ledger import PHASES, Entry
from al_lightning.cost.prices import Prices

ENTRIES = [
    Entry(phase="train", round=1, records=100, flops=1000, seconds=10),
    Entry(phase="score", round=1, records=50, flops=100, seconds=5),
    Entry(phase="train", round=2, records=200, flops=2000, seconds=20),
    Entry(phase="aborted", round=2, records=30, flops=300, seconds=3),
    Entry(phase="embed", round=2, records=7, flops=70, seconds=1),
    Entry(phase="agree", round=2, records=5, flops=50, seconds=1),
    Entry(phase="select", round=2, seconds=2),
]


def bill(**kwargs: object) -> Bill:
    return Bill.of(ENTRIES, **{"labels": 100, "prices": Prices(label=0.5, hour=36), **kwargs})  # type: ignore[arg-type]


def test_phases_are_added_up_in_order() -> None:
    made = bill()
    assert list(made.lines) == [p for p in PHASES if p in made.lines]
    assert made.lines["train"] == Line(records=300, flops=3000, seconds=30)
    assert made.total == Line(records=392, flops=3520, seconds=42)
    assert made.records_trained == 330  # aborted work was trained, too
    assert made.records_inferred == 62


def test_money() -> None:
    made = bill()
    assert made.label_money == 50
    assert made.compute_money == pytest.approx(42 / 3600 * 36)
    assert made.money == pytest.approx(50.42)


def test_rho_is_all_compute_over_one_training() -> None:
    made = bill(reference=Line(records=100, flops=1760, seconds=10))
    assert made.rho == 2.0
    assert made.rho_seconds == pytest.approx(4.2)
    assert bill().rho is None
    assert bill().rho_seconds is None
    assert "rho = 2.00" in str(made)
    assert "rho = unknown" in str(bill())


def test_the_bill_is_json() -> None:
    data = json.loads(json.dumps(bill(reference=Line(flops=1760, seconds=10)).to_json()))
    assert data["rho"] == 2.0
    assert data["phases"]["aborted"] == {"records": 30, "flops": 300, "seconds": 3}
    assert data["money"] == pytest.approx(50.42)
    assert data["prices"] == {"label": 0.5, "hour": 36}


def test_the_bill_as_text_shows_every_phase_and_the_prices() -> None:
    text = str(bill())
    assert all(phase in text for phase in ("train", "score", "aborted", "embed", "agree", "select"))
    assert "100 labels 50.00 + compute 0.4200 = 50.42 USD (at 0.5 USD a label, 36 USD a compute hour)" in text


def test_an_empty_bill() -> None:
    assert (Bill().flops, Bill().money, Bill().records_trained) == (0, 0, 0)


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="phase is 'traning'; allowed: preflight, embed, "):
        Entry(phase="traning", round=1)
