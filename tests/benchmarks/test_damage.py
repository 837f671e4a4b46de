"""Damage to a run folder is noticed, and the benchmark would find damage that is not."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from al_lightning.report import labels
from al_lightning.run import reading as run_reading
from al_lightning.run import schema as run_schema
from benchmarks import damage


@pytest.fixture(scope="module")
def moment(tmp_path_factory: pytest.TempPathFactory) -> damage.Moment:
    root = tmp_path_factory.mktemp("damage")
    damage.start(root / "run")
    damage.answer(root / "run")
    damage.start(root / "run")
    return damage.Moment("waiting", damage.tree(root / "run"), [], root)


@pytest.mark.parametrize("name", ["run.sqlite", "journal.jsonl", "initial.pt", "queries/round-001.csv"])
def test_nothing_is_silent_raw_or_lost(moment: damage.Moment, name: str) -> None:
    row = moment.row(name, damage.damages(moment.files, [], name, moment.outside, 0.05))
    assert row["mutations"] >= 10
    assert row["failures"] == []
    assert not {"silent", "raw", "outside", "not recovered"} & {*row}
    assert row["recovered"] == row["recoverable"] > 0


def test_links_and_names_lead_nowhere(moment: damage.Moment) -> None:
    planted = damage.planted(moment.files, moment.outside)
    row = moment.row("*", ((kind, act) for _, kind, act in islice(planted, 0, None, 4)))
    assert row["refused"] == row["mutations"] > 5
    assert "outside" not in row


def test_a_store_that_did_not_look_would_be_found(moment: damage.Moment, monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(db: run_schema.sqlite3.Connection, table: str, folder: Path) -> list[run_schema.Row]:
        names = run_schema.columns(db, table)
        return db.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()

    def other(folder: Path) -> None:
        damage.lay_out({n: b.replace(b'"epochs": 3', b'"epochs": 4') for n, b in moment.files.items()}, folder)

    for module in (run_reading, labels):
        monkeypatch.setattr(module, "rows", unchecked)
    monkeypatch.setattr(run_reading, "tail_of", lambda *args: ())
    row = moment.row("run.sqlite", iter([("flip", other)]))
    assert row["silent"] == 1
