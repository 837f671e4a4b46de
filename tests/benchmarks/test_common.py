import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.common import claim, environment, gain_kept, paired, write_results


@pytest.mark.parametrize(
    ("value", "op", "holds"),
    [(1, "<=", True), (1, "<", False), (2, ">", True), (1, ">=", True), (1, "==", True), (float("nan"), "<=", False)],
)
def test_claim(value: float, op: str, holds: bool) -> None:
    assert claim("x", value, op, 1)["holds"] is holds


def test_results_are_one_row_a_line(tmp_path: Path) -> None:
    path = write_results("b", "python -m b", [{"seed": 1}, {"seed": 2}], [claim("x", 1, "<=", 2)], folder=tmp_path, n=3)
    assert json.loads(path.read_text()) == {
        "benchmark": "b",
        "command": "python -m b",
        "environment": environment(),
        "n": 3,
        "claims": [{"name": "x", "value": 1, "op": "<=", "target": 2, "holds": True}],
        "rows": [{"seed": 1}, {"seed": 2}],
    }
    assert '\n  {"seed": 1},\n  {"seed": 2}\n' in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_results("b", "c", [{"accuracy": float("nan")}], [], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def rows(**accuracies: np.ndarray) -> list[dict[str, object]]:
    return [
        {"method": m, "seed": s, "accuracy": float(v)} for m, values in accuracies.items() for s, v in enumerate(values)
    ]


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_a_paired_difference_has_scipys_interval(seeds: int) -> None:
    a, b = np.random.default_rng(seeds).normal(90, 1, size=(2, seeds))
    mean, half = paired(rows(a=a, b=b), "a", "b")
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-3)


def test_the_share_of_a_gain_holds_what_a_t_test_does_not_refuse() -> None:
    rng = np.random.default_rng(0)
    floor = rng.normal(80, 1, size=10)
    best, ours = floor + rng.normal(4, 0.5, size=10), floor + rng.normal(3, 0.5, size=10)
    kept = gain_kept(rows(random=floor, baseline=best, ours=ours), "ours", "baseline")
    assert kept.value == pytest.approx((ours - floor).mean() / (best - floor).mean())

    def p_value(share: float) -> float:
        return float(stats.ttest_1samp((ours - floor) - share * (best - floor), 0).pvalue)

    assert [p_value(kept.low), p_value(kept.high)] == pytest.approx([0.05, 0.05], abs=1e-3)
    assert kept.low < kept.value < kept.high


def test_a_gain_that_may_be_nothing_has_no_share() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(80, 1, size=(3, 5))
    kept = gain_kept(rows(random=noise[0], baseline=noise[1], ours=noise[2]), "ours", "baseline")
    assert (kept.low, kept.high) == (-math.inf, math.inf)
