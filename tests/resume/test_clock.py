"""Clocks that go backwards: no duration is negative, and what was said last stays last."""

from __future__ import annotations

import itertools
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from al_lightning import Budget
from al_lightning.cost.ledger import Stopwatch
from al_lightning.oracles import FileOracle
from al_lightning.run import lines as run_lines
from al_lightning.run.store import read_run
from tests.helpers import fill, learner, net, pool_of


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at any clock is an hour earlier than the one before."""
    ticks = itertools.count()

    def seconds() -> float:
        return 1e9 - 3600.0 * next(ticks)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2030, 1, 1, tzinfo=timezone.utc) - timedelta(hours=next(ticks))

    for name in ("time", "perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, seconds)
    monkeypatch.setattr(run_lines, "datetime", Clock)


@pytest.mark.usefixtures("backwards")
def test_no_duration_is_negative_and_hours_are_not_won_back(tmp_path: Path) -> None:
    result = learner(tmp_path, stop=[Budget(hours=1.0)]).fit(net(), datamodule=pool_of())
    entries = read_run(tmp_path).entries
    assert {entry.phase for entry in entries} >= {"train", "validate", "score", "select"}
    assert min(entry.seconds for entry in entries) >= 0
    assert result.bill.seconds >= 0
    assert all(record.cost["seconds"] >= 0 for record in result.history)
    with Stopwatch.running() as watch:
        assert watch.seconds >= 0
    assert watch.seconds >= 0


@pytest.mark.filterwarnings("ignore:classes .* have no labelled record")  # everything is said to be of one
@pytest.mark.usefixtures("backwards")
def test_the_last_word_counts_whatever_the_clock_says(tmp_path: Path) -> None:
    def start() -> Any:
        return learner(tmp_path, oracle=FileOracle()).fit(net(), datamodule=pool_of())

    start()
    path = tmp_path / "queries" / "round-001.csv"
    for label in ("0", "1", "2"):
        fill(path, lambda i, label=label: label)
        start()
    saved = read_run(tmp_path)
    assert [s.at for s in saved.statements] == sorted((s.at for s in saved.statements), reverse=True)
    assert [s.value for s in saved.statements] == [0] * 12 + [1] * 12 + [2] * 12
    assert set(saved.answers.values()) == {2}
