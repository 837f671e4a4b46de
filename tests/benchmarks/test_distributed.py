"""The benchmark of scoring on Ray: its claims are computed from its rows as they say."""

from __future__ import annotations

from benchmarks.distributed import claims
from benchmarks.distributed_scale import scale


def chaos(preemption, executed, **more):
    row = {"part": "chaos", "preemption": preemption, "records": 100, "executed": executed}
    return {**row, "lost": 0, "duplicated": 0, "same": True, **more}


def by_name(rows):
    return {one["name"]: one for one in claims(rows)}


def test_claims_are_of_all_rows():
    rows = [
        {"part": "identical", "same_query": True, "same_payload": True},
        {"part": "identical", "same_query": True, "same_payload": True},
        {"part": "waiting", "workers": 16, "efficiency": 0.93},
        {"part": "waiting", "workers": 1, "efficiency": 0.1},
        *({"part": "compute", "case": "compute", "efficiency": e} for e in (0.5, 0.92, 0.95)),
        {"part": "compute", "case": "wait", "efficiency": 0.99},
        chaos(0.1, 110),
        chaos(0.1, 120),
        chaos(0.3, 150, lost=2),
        {"part": "ray_data", "ratio": 0.8},
    ]
    made = by_name(rows)
    assert made["identical_query"]["holds"]
    assert made["efficiency_2_workers"]["value"] == 0.92
    assert made["efficiency_16_waiting_workers"]["value"] == 0.93
    assert round(made["redone_share_at_10_percent"]["value"], 9) == 0.15
    assert not made["redone_share_at_10_percent"]["holds"]
    assert made["scores_lost"]["value"] == 2
    assert made["time_against_ray_data"]["holds"]
    assert not by_name([*rows, chaos(0.3, 100, same=False)])["identical_query"]["holds"]


def test_what_was_not_run_is_not_claimed():
    made = by_name([{"part": "identical", "same_query": True, "same_payload": True}])
    assert list(made) == ["parts_missing", "identical_query"]
    assert made["parts_missing"]["value"] == 4
    assert not made["parts_missing"]["holds"]


def test_a_thousand_workers_wait_for_little(monkeypatch):
    monkeypatch.setattr("benchmarks.distributed_scale.RECORDS", 20_000_000)
    monkeypatch.setattr("benchmarks.distributed_scale.WORKERS", 20)
    calm, *_, busy = scale()
    assert calm["redone_share"] == 0
    assert busy["efficiency"] > 0.8
    assert 0 < busy["redone_share"] < 0.2
