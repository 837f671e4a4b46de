from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ours import REFERENCES, STRATEGIES
from benchmarks.peers.worker import load
from benchmarks.scoring import measure_scoring, throughput_ratios
from benchmarks.selection import (
    CASES,
    OURS,
    RESOLUTION,
    Case,
    Problem,
    Work,
    claims_of,
    interpreters_in,
    ratios,
    run,
    write_arrays,
)

MACHINE = {"bytes_per_second": 1e9, "flops_per_second": 1e10, "logs_per_second": 1e8}
SMALL = Problem(n=400, size=20, labelled=30)


def case(moved: float = 1e7, **kwargs: Any) -> Case:
    return Case("margin", ("baal", "modal"), lambda p: Work(bytes=moved), SMALL, **kwargs)


def row(library: str, seconds: float = 0.02, memory: int = 4 << 20, **extra: Any) -> dict[str, Any]:
    return {"strategy": "margin", "n": 400, "library": library, "seconds": seconds, "memory": memory, **extra}


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(bytes=2e9), 2.0),
        (Work(flops=2e10), 2.0),
        (Work(logs=2e8), 2.0),
        (Work(bytes=1e9, flops=3e10, logs=1e8), 3.0),
        (Work(3e9, 1e10), 3.0),
    ],
)
def test_the_roofline_is_the_larger_of_bytes_and_operations(work: Work, seconds: float) -> None:
    assert work.seconds(MACHINE) == pytest.approx(seconds)


def test_ours_is_held_against_the_fastest_the_leanest_and_the_roofline() -> None:
    rows = [row(OURS, 0.02, 4 << 20), row("baal", 0.04, 2 << 20), row("modal", 0.01, 8 << 20)]
    (found,) = ratios(rows, [case()], MACHINE)
    assert found["time_against_fastest"] == pytest.approx(2)
    assert found["memory_against_leanest"] == pytest.approx(2)
    assert found["against_roofline"] == pytest.approx(2)
    assert not found["tiny"]


def test_memory_that_cannot_be_told_apart_is_equal() -> None:
    (found,) = ratios([row(OURS, memory=RESOLUTION // 2), row("baal", memory=0)], [case()], MACHINE)
    assert found["memory_against_leanest"] == 1


def test_gains_are_over_what_the_peer_wastes() -> None:
    rows = [row(OURS, 0.01, 1 << 20), row("baal", 0.5, 64 << 20)]
    (time,) = ratios(rows, [case(wasteful={"baal": "seconds"})], MACHINE)
    (memory,) = ratios(rows, [case(wasteful={"baal": "memory", "modal": "seconds"})], MACHINE)
    assert time["gains"] == {"baal seconds": pytest.approx(50)}
    assert memory["gains"] == {"baal memory": 64}  # modal did not run


def test_a_peer_that_failed_is_no_competitor_and_ours_that_failed_is_counted() -> None:
    failed = {"strategy": "margin", "n": 400, "library": "baal", "error": "MemoryError"}
    (found,) = ratios([row(OURS), failed], [case()], MACHINE)
    assert "time_against_fastest" not in found
    (found,) = ratios([{**failed, "library": OURS}, row("modal")], [case()], MACHINE)
    assert found == {"strategy": "margin", "n": 400, "failed": True}
    claims = {c["name"]: c for c in claims_of([found], [], 1.0)}
    assert not claims["strategies_failed"]["holds"]


def test_claims_are_of_the_worst_and_leave_out_tiny_rooflines() -> None:
    tiny = case(1e3)
    rows = [row(OURS, as_reference=1.0), row("baal", 0.01)]
    found = [*ratios(rows, [case(wasteful={"baal": "seconds"})], MACHINE), *ratios(rows, [tiny], MACHINE)]
    claims = {c["name"]: c for c in claims_of(found, rows, 0.96)}
    assert claims["time_against_fastest_peer_max"]["value"] == pytest.approx(2)
    assert claims["time_against_roofline_max"]["value"] == pytest.approx(2)  # and not 20,000
    assert claims["wasteful_peer_speedup_min"]["value"] == pytest.approx(0.5)
    assert claims["scoring_throughput_ratio"]["holds"]
    assert claims["picks_as_reference_min"]["value"] == 1


def test_without_peers_nothing_is_claimed_about_them() -> None:
    names = [c["name"] for c in claims_of(ratios([row(OURS)], [case()], MACHINE), [], float("nan"))]
    assert names == ["time_against_roofline_max", "strategies_failed"]


def test_cases_name_what_is_there() -> None:
    peers = Path(__file__).parents[2] / "benchmarks" / "peers"
    for one in CASES:
        assert one.strategy in STRATEGIES
        assert set(one.wasteful) <= set(one.peers)
        for peer in one.peers:
            assert f"def {one.strategy}(" in (peers / f"{peer}.py").read_text()
            assert (peers / f"{peer}.txt").exists()
    assert set(REFERENCES) <= set(STRATEGIES)


@pytest.mark.parametrize("strategy", REFERENCES)
def test_ours_picks_what_the_reference_picks(strategy: str, tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path, SMALL)
    expected = load(REFERENCES[strategy], arrays, SMALL.size)
    picked = load(STRATEGIES[strategy], arrays, SMALL.size)()
    assert sorted(picked) == sorted(expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ours_picks_as_many_as_asked(strategy: str, tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path, SMALL)
    picked = load(STRATEGIES[strategy], arrays, SMALL.size)()
    assert len(np.unique(picked)) == SMALL.size


def test_peers_are_found_by_their_environments(tmp_path: Path) -> None:
    (tmp_path / "baal" / "bin").mkdir(parents=True)
    (tmp_path / "baal" / "bin" / "python").touch()
    assert interpreters_in(None) == {OURS: sys.executable}
    assert set(interpreters_in(tmp_path)) == {OURS, "baal"}


@pytest.mark.slow
def test_a_run_without_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.selection.REPEATS", 1)
    path = run([case()], interpreters_in(None), scoring_records=0, folder=tmp_path)
    written = json.loads(path.read_text())
    (only,) = written["rows"]
    assert only["library"] == OURS
    assert only["as_reference"] == 1
    assert only["seconds"] > 0
    assert {c["name"]: c["holds"] for c in written["claims"]}["strategies_failed"]
    assert written["peers"] == []


@pytest.mark.slow
def test_what_is_not_measured_anew_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.selection.REPEATS", 1)
    old = {"part": "strategy", **row(OURS, seconds=9.0), "strategy": "entropy", "n": 50_000}
    scoring = {"part": "scoring", "case": "a", "plain": 3.0, "ours": 2.0}
    stale = {"part": "strategy", **row(OURS, seconds=9.0)}
    known = {"rows": [old, stale, scoring], "machine": dict.fromkeys(MACHINE, 1e20)}
    written = json.loads(
        run([case()], interpreters_in(None), scoring_records=0, folder=tmp_path, known=known).read_text()
    )
    assert [r["strategy"] for r in written["ratios"]] == ["entropy", "margin"]
    assert old in written["rows"]
    assert scoring in written["rows"]
    assert stale not in written["rows"]
    assert written["machine"] == known["machine"]


def test_scoring_is_measured_on_both_sides() -> None:
    rows = measure_scoring(n=60, repeats=2)
    found = throughput_ratios(rows)
    assert len(found) == 4
    assert len(rows) == 8
    assert all(ratio > 0 for ratio in found.values())
    assert throughput_ratios([{"part": "scoring", "case": "a", "plain": 3.0, "ours": 2.0}]) == {"a": 1.5}
