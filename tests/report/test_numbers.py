"""What a report says is what the store says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from al_lightning.report import charts, classes
from al_lightning.report.groups import grouped, half_width
from al_lightning.report.page import write_report
from al_lightning.report.read import read
from al_lightning.run.describe import flatten
from al_lightning.run.store import read_run
from tests.helpers import learner, net, pool_of
from tests.report.reading import Page, sql
from tests.shards import shards_in


def test_its_bill_is_the_results(run: tuple[Any, Path], whole: tuple[Page, Path]) -> None:
    bill, numbers = run[0].bill, whole[0].numbers
    assert flatten(read(run[1]).bill.to_json()) == pytest.approx(flatten(bill.to_json()))
    assert numbers["flops"][0] == bill.flops
    assert numbers["seconds"][0] == pytest.approx(bill.seconds)
    assert numbers["money"] == pytest.approx([bill.money, bill.labels])
    assert numbers["labels"] == [len(run[0].labelled), 60]
    assert numbers["rho"] == pytest.approx([bill.rho, bill.rho_seconds])
    assert numbers["metric"] == [run[0].history[-1].metrics["val_acc"]]
    assert "At 0.5 EUR a label, 20 EUR a compute hour" in whole[0].text


def test_bytes_have_a_column_where_there_are_any(whole: tuple[Page, Path], tmp_path: Path) -> None:
    assert "read" not in whole[0].rows["bill-table"][0]
    data = shards_in(tmp_path / "shards", "tar", 60)
    bill = learner(tmp_path / "run").fit(net(), datamodule=pool_of(data)).bill
    head, *rows = Page(write_report([tmp_path / "run"], tmp_path / "page").page).rows["bill-table"]
    shown = {row[0]: dict(zip(head[1:], row[1:], strict=True))["read"] for row in rows}
    assert shown == {**{phase: line.bytes for phase, line in bill.lines.items()}, "labels": "–", "all": bill.bytes}


def test_its_tables_are_the_stores(run: tuple[Any, Path], whole: tuple[Page, Path]) -> None:
    summed = "SELECT SUM(records), SUM(flops), SUM(seconds) FROM ledger"
    phases = [phase for (phase,) in sql(run[1], "SELECT DISTINCT phase FROM ledger")]
    ledger = {phase: sql(run[1], f"{summed} WHERE phase = ?", phase)[0] for phase in phases}
    head, *rows = whole[0].rows["bill-table"]
    by_phase = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert set(by_phase) == {*ledger, "labels", "all"}
    for phase, (n, flops, seconds) in ledger.items():
        row = by_phase[phase]
        assert [row["records"], row["FLOPs"], row["time"]] == pytest.approx([n, flops, seconds])
        assert row["EUR"] == pytest.approx(seconds / 3600 * 20)
    assert by_phase["all"]["FLOPs"] == pytest.approx(sql(run[1], summed)[0][1])
    stored = [json.loads(record) for (record,) in sql(run[1], "SELECT record FROM round ORDER BY final, round")]
    head, *rows = whole[0].rows["round-table"]
    shown = [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)]
    assert len(shown) == len(stored) == len(run[0].history)
    for row, record in zip(shown, stored, strict=True):
        assert row["labels in all"] == record["labelled"]
        assert row["val_acc"] == record["metrics"]["val_acc"]
        assert row["FLOPs so far"] == record["cost"]["flops"]
        assert row["money so far"] == record["cost"]["money"]
        assert row["agreement"] == ("–" if record["agreement"] is None else record["agreement"])
    for round, ids in enumerate(read_run(run[1]).queries, start=1):
        assert f"Round {round}: {len(ids)} ids" in whole[0].text
        assert ", ".join(map(str, ids)) in whole[0].text


def test_curves_and_bars_end_where_the_tables_do(run: tuple[Any, Path]) -> None:
    from matplotlib.figure import Figure

    one = read(run[1])
    (group,) = grouped([one])
    for panel, x in zip(charts.curves([group], "val_acc", "EUR"), ("labels", "flops", "seconds", "money"), strict=True):
        axes = Figure().subplots()
        panel.draw(axes)
        last = run[0].history[-1]
        end = last.labelled if x == "labels" else last.cost[x]
        assert axes.lines[0].get_xdata()[-1] == pytest.approx(end)
        assert axes.lines[0].get_ydata()[-1] == last.metrics["val_acc"]
    heights = []
    for panel in charts.bills(one):
        axes = Figure().subplots()
        panel.draw(axes)
        heights.append(sum(bar.get_height() for bar in axes.patches))
    assert heights == pytest.approx([run[0].bill.flops, run[0].bill.seconds, run[0].bill.money])


def test_classes_against_the_pools(run: tuple[Any, Path]) -> None:
    from_first = classes.balance(read(run[1]))
    assert from_first is not None
    assert "first query: 12 records" in from_first.reference
    from_data = classes.balance(read(run[1]), classes.sampled_labels(pool_of()))
    assert from_data is not None
    assert "60 records" in from_data.reference
    labels = np.array([value for (value,) in sql(run[1], "SELECT value FROM label")], dtype=int)
    for share in from_data.shares:
        assert share.picked == (labels == int(share.name)).sum()
        assert share.pool == pytest.approx(1 / 3)
        ends = stats.binomtest(20, 60).proportion_ci(method="wilson")
        assert (share.low, share.high) == pytest.approx((ends.low, ends.high), abs=1e-4)


def test_half_width_is_students() -> None:
    for n in range(2, 200):
        assert half_width(2.0, n) == pytest.approx(2 * stats.t.ppf(0.975, n - 1) / n**0.5, rel=2e-3)


def test_labels_of_different_prices(tmp_path: Path) -> None:
    costs = np.linspace(1, 5, 60)
    result = learner(tmp_path).fit(net(), datamodule=pool_of(label_costs=costs))
    assert flatten(read(tmp_path).bill.to_json()) == pytest.approx(flatten(result.bill.to_json()))
