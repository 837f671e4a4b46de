import json
from pathlib import Path

import pytest

from benchmarks.common import claim, environment, write_results


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
