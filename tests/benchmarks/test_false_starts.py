from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import false_start_suite as suite
from benchmarks.false_start_suite import DEVELOPMENT, FAMILIES, PROBLEMS, SEEDS, plant, records
from benchmarks.false_starts import claims_of, judged, measure, table

FIRST = PROBLEMS["digits"].first


def row(family: str, seed: int, accuracy: float, *, found: bool = False, **more: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"dataset": "digits", "family": family, "seed": seed, "accuracy": accuracy, "found": found}
    own |= {"flops": 100.0, "cost": 0.02}
    if found:
        own |= {"cause": "control", "spent": 8.0, "remedies": ["weights"], "rescued_accuracy": 89.5}
    return own | more


def values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {c["name"]: c["value"] for c in claims_of(judged(rows))}


def test_what_a_run_ends_with_decides_whether_it_was_a_false_start() -> None:
    rows = [row("healthy", seed, accuracy) for seed, accuracy in enumerate([89.0, 90.0, 92.0])]
    rows += [
        row("dead_activations", 0, 20.0, found=True),
        row("dead_activations", 1, 30.0, found=True, rescued_accuracy=88.9, spent=12.0),
        row("one_class", 0, 87.0, found=True, remedies=["weights", "gave_up"]),
        row("one_class", 1, 80.0),
        row("two_classes", 0, 89.0),  # planted, and recovered
        row("near_duplicates", 0, 89.0, found=True, cost=0.5),  # the same, and aborted
    ]
    found = values(rows)
    assert found["runs"] == 9
    assert found["recall"] == 0.75
    assert found["recall_worst_family"] == 0.5
    assert found["false_abort_rate"] == pytest.approx(1 / 5)
    assert found["found_within_budget_share"] == pytest.approx((0.08 + 0.12 + 0.08) / 3)
    assert found["healthy_run_cost_share"] == pytest.approx(0.02)
    assert found["rescued_share"] == pytest.approx(1 / 3)  # a point below is not rescued, and giving up never is
    assert found["families_with_false_starts"] == 2
    lines = {line["family"]: line for line in table(judged(rows))}
    assert lines["dead_activations"]["found"] == 2
    assert lines["one_class"]["false_starts"] == 2
    assert lines["near_duplicates"]["false_aborts"] == 1


def test_reported_seeds_share_no_record_that_anything_is_judged_on_with_development_seeds() -> None:
    assert not set(SEEDS) & set(DEVELOPMENT)
    for noisy in (False, True):
        a, b = records("digits", DEVELOPMENT[0], noisy=noisy), records("digits", SEEDS[0], noisy=noisy)
        parts = [{tuple(x.tolist()) for x in part} for part in (a.x_test, b.x_test, b.x, b.x_val)]
        assert all(not parts[i] & parts[j] for i in range(4) for j in range(i))
    assert len(a.x_val) * 4 == len(records("digits", 0).x_val)


def test_families_are_planted_as_they_are_called() -> None:
    planted = {family: plant("digits", family, SEEDS[0]) for family in FAMILIES}
    classes = {f: len(set(p.records.y[p.initial[:FIRST]].tolist())) for f, p in planted.items()}
    assert (classes["one_class"], classes["two_classes"]) == (1, 2)
    assert classes["healthy"] == 10
    for family, p in planted.items():
        assert sorted(p.initial.tolist()) == list(range(len(p.records.y)))
        wrong = [p.label(i) != int(p.records.y[i]) for i in p.initial.tolist()]
        assert any(wrong) == (family == "corrupted_labels")
        assert not any(wrong[FIRST:])
        assert (p.freeze != ()) == (family == "frozen_layer")
        assert (p.model.rate > 30 * PROBLEMS["digits"].rate) == (family == "exploding_rate")
    corrupted = planted["corrupted_labels"]
    share = np.mean([corrupted.label(i) != int(corrupted.records.y[i]) for i in corrupted.initial[:FIRST].tolist()])
    assert 0.15 < share < 0.65  # 30 to 50 % of sixty, drawn
    dead = planted["dead_activations"].model
    assert not dead.trunk[:2](planted["dead_activations"].records.x).any()
    spread = {
        f: torch.cdist(p.records.x[p.initial[:30]], p.records.x[p.initial[:30]]).median() for f, p in planted.items()
    }
    assert spread["near_duplicates"] < spread["healthy"]


def test_a_dead_run_is_found_and_rescued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suite.PROBLEMS, "digits", replace(PROBLEMS["digits"], rounds=2))
    found = measure("digits", "dead_activations", 0)
    assert found["found"]
    assert found["cause"] == "chance"
    assert found["remedies"] == ["weights"]
    assert found["accuracy"] < 30
    assert found["rescued_accuracy"] > 60
    assert 0 < found["spent"] < found["flops"] / 2
    healthy = measure("digits", "healthy", 0)
    assert not healthy["found"]
    assert healthy["cost"] > 0
