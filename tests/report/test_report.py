"""A report says what the store says, for every run there may be, and runs nothing that a run folder holds."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from al_lightning import FileOracle, KCenterGreedy, Margin, Prices, Random, WarmStart
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.cli.main import main
from al_lightning.errors import ActiveLearningError, PoolChanged
from al_lightning.report import classes, panels
from al_lightning.report.groups import grouped, half_width
from al_lightning.report.page import write_report
from al_lightning.report.records import records
from al_lightning.report.runs import find, read
from al_lightning.round_size import Listed
from al_lightning.settings import flatten
from al_lightning.store import read_run
from tests.callbacks.test_stall_restart import CHANCE, Dead
from tests.helpers import Net, blobs, learner, net, pool_of, quiet
from tests.report.reading import Page
from tests.resume.test_people import NAMES, as_format_1, fill, ids_of, start, truth

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}} $\\frac{x}$ ]]>&amp;"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without its charts, which take a quarter of a second each."""
    monkeypatch.setattr(panels, "svg", lambda panel: "<svg></svg>")
    monkeypatch.setattr(panels, "png", lambda *_: b"")


def written(*folders: Path, **kwargs: Any) -> Page:
    return Page(write_report(folders, folders[0].parent / "report", **kwargs).page)


def sql(folder: Path, command: str, *values: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "run.sqlite", isolation_level=None) as db:
        return db.execute(command, values).fetchall()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A finished run of three rounds and a final fit, with prices of its own."""
    folder = tmp_path_factory.mktemp("report") / "run"
    prices = Prices(label=0.5, hour=20.0, currency="EUR")
    parts = {"fit": WarmStart("keep", final="previous"), "stop_set": 10, "prices": prices, "initial": Random()}
    return learner(folder, **parts).fit(net(), datamodule=pool_of()), folder


@pytest.fixture(scope="module")
def whole(run: tuple[Any, Path]) -> tuple[Page, Path]:
    made = write_report([run[1]], run[1].parent / "whole")
    return Page(made.page), made.page.parent


# ---- numbers ----------------------------------------------------------------------------------------------------


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

    from al_lightning.report import charts

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
    from_data = classes.balance(read(run[1]), pool_of())
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


# ---- the page ---------------------------------------------------------------------------------------------------


def test_the_page_stands_alone(whole: tuple[Page, Path]) -> None:
    assert not [tag for tag, _ in whole[0].tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
    for tag, attributes in whole[0].tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in whole[0].source
    assert "url(http" not in whole[0].source
    assert "default-src 'none'" in whole[0].source


def test_it_can_be_read_without_eyes_and_in_the_dark(whole: tuple[Page, Path]) -> None:
    ids = [attributes["id"] for _, attributes in whole[0].tags if "id" in attributes]
    assert {link["href"][1:] for tag, link in whole[0].tags if tag == "a"} <= set(ids)
    pictures = [a for tag, a in whole[0].tags if tag == "img" or a.get("role") == "img"]
    assert len(pictures) == 9
    assert all(a.get("alt") or a.get("aria-label") for a in pictures)
    light, dark = re.findall(r":root \{(.*?)\}", whole[0].source, re.DOTALL)
    for name in set(re.findall(r"var\(--(\w+)\)", whole[0].source)):
        assert f"--{name}:" in light
        assert f"--{name}:" in dark
    assert not re.search(r"(fill|stroke): #[0-9a-f]{6}", whole[0].source), "a colour the dark page does not change"


def test_pictures_stand_beside_it(whole: tuple[Page, Path]) -> None:
    from matplotlib.image import imread

    names = {path.name for path in whole[1].iterdir()}
    assert names == {"report.html", "accuracy.png", "bill.png", "picks.png", "classes.png"}
    for path in whole[1].glob("*.png"):
        assert len(np.unique((imread(path)[:, :, :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 20


def test_the_run_is_only_read_and_the_page_is_the_same_again(
    run: tuple[Any, Path], whole: tuple[Page, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in run[1].rglob("*") if p.is_file()}
    monkeypatch.setattr(panels, "png", lambda *_: b"")
    assert Page(write_report([run[1]], tmp_path).page).source == whole[0].source
    assert {p: p.read_bytes() for p in run[1].rglob("*") if p.is_file()} == before


# ---- what somebody else's run folder may hold -----------------------------------------------------------------


def test_nothing_from_a_run_folder_is_markup(tmp_path: Path) -> None:
    folder, keys = tmp_path / EVIL.replace("/", "|"), [f"{EVIL} {i}" for i in range(60)]
    oracle = FileOracle(classes=[f"{EVIL.replace(';', ',')} {c}" for c in NAMES], columns=lambda i: {EVIL: EVIL})
    start(folder, oracle, keys=keys)
    for round in (1, 2):
        rows = folder / "queries" / f"round-{round:03d}.csv"
        fill(rows, lambda i: f"{EVIL.replace(';', ',')} {truth(i)}", annotator=EVIL)
        start(folder, oracle, keys=keys)
    sql(folder, "INSERT INTO reason (round, kind, sentence, numbers) VALUES (1, ?, ?, ?)", EVIL, EVIL, f'"{id}"')
    (record,) = sql(folder, "SELECT record FROM round WHERE round = 1")[0]
    changed = json.loads(record)
    changed["metrics"] = {EVIL: 0.5, f"_{EVIL}": 0.25}
    changed["start"] = EVIL
    sql(folder, "UPDATE round SET record = ?", json.dumps(changed))
    found = written(folder)
    assert not [tag for tag, _ in found.tags if tag in ("script", "img")]
    assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
    for place in ("annotator", "picked by"):
        assert place in found.text
    assert found.text.count("<script>alert(1)</script>") > 30
    assert "49" not in re.findall(r"\{\{.{0,9}|\b49\b", found.text)
    other = tmp_path / "other"
    learner(other).fit(net(), datamodule=pool_of())
    compared = Page(write_report([folder, other], tmp_path / "compared").page)
    assert not [tag for tag, _ in compared.tags if tag in ("script", "img")]
    assert compared.text.count("<script>alert(1)<|script>") > 3


COLUMNS = {
    "meta": ("value",),
    "query": ("round", "id"),
    "label": ("value", "skipped"),
    "round": ("record",),
    "ledger": ("phase", "round", "records", "flops", "seconds"),
    "reason": ("round", "kind", "sentence", "numbers"),
    "record_key": ("key",),
    "statement": ("id", "ask", "who", "at", "value"),
}


@pytest.mark.usefixtures("undrawn")
def test_what_no_run_wrote_is_refused_by_name_or_harmless(tmp_path: Path) -> None:
    start(tmp_path / "run", keys=[str(i) for i in range(60)])
    fill(tmp_path / "run" / "queries" / "round-001.csv", annotator="ann")
    start(tmp_path / "run", keys=[str(i) for i in range(60)])
    metas = [key for (key,) in sql(tmp_path / "run", "SELECT key FROM meta")]
    places = [(t, c, "") for t, columns in COLUMNS.items() if t != "meta" for c in columns]
    places += [("meta", "value", f"WHERE key = '{key}'") for key in metas]
    refused = 0
    for table, column, where in places:
        for value in ("<script>", '"<script>"', "null", "[[1]]", '{"<script>": "<script>"}', b"\0\xff", -(2**40)):
            folder = tmp_path / "copy"
            shutil.copytree(tmp_path / "run", folder)
            try:
                sql(folder, f"UPDATE OR IGNORE {table} SET {column} = ? {where}", value)
                page = written(folder)
                assert "script" not in [tag for tag, _ in page.tags]
            except ActiveLearningError as error:
                assert "copy" in str(error)
                refused += 1
            shutil.rmtree(folder)
    assert refused > len(places)


@pytest.mark.usefixtures("undrawn")
def test_what_is_no_run_is_said_with_the_way_out(run: tuple[Any, Path], tmp_path: Path) -> None:
    for folder in (tmp_path / "no", tmp_path):
        with pytest.raises(ActiveLearningError, match=r"is no run folder.*Give the run_dir of a run, or the folder"):
            written(folder)
    shutil.copytree(run[1], tmp_path / "copy")
    sql(tmp_path / "copy", "PRAGMA user_version=99")
    with pytest.raises(ActiveLearningError, match="run format 99"):
        written(tmp_path / "copy")
    sql(tmp_path / "copy", "PRAGMA user_version=0")
    with pytest.raises(ActiveLearningError, match="has not begun"):
        written(tmp_path / "copy")
    (tmp_path / "copy" / "run.sqlite").write_text("no database")
    with pytest.raises(ActiveLearningError, match="cannot be read"):
        written(tmp_path / "copy")
    with pytest.raises(ActiveLearningError, match=r"'f1' was not logged; allowed: val_acc"):
        written(run[1], metric="f1")


# ---- every run there may be -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_people_label(tmp_path: Path) -> None:
    oracle = FileOracle(classes=NAMES, repeat=0.5, annotators=2, columns=lambda i: {"text": f"words of {i}"})
    first = tmp_path / "run" / "queries" / "round-001.csv"
    start(tmp_path / "run", oracle)
    page = written(tmp_path / "run")
    assert "waiting It waits for 12 labels." in page.text
    assert "Nothing has been trained yet" in page.text
    assert f"words of {ids_of(first)[0]}" in page.text
    ids = ids_of(first)
    answers = {"ann": lambda i: "skip" if i == ids[0] else truth(i), "bob": lambda i: NAMES[i == ids[1]] + ""}
    for who, answer in answers.items():
        copy = first.with_name(f"round-001.{who}.csv")
        shutil.copyfile(first, copy)
        fill(copy, answer)
    start(tmp_path / "run", oracle)
    page = written(tmp_path / "run")
    head, ann, bob = page.rows["people-table"]
    assert ann[:5] == ["ann", 11, 1, 6, 0]
    assert bob[:3] == ["bob", 12, 0]
    assert head[2] == "refusals"
    assert "ann / bob" in page.text
    assert "ties that wait for a word" in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_killed_or_is_under_way(run: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    flight = {"round": 3, "records": 77, "flops": 5e6, "seconds": 9.0}
    sql(folder, "UPDATE meta SET value = ? WHERE key = 'in_flight'", json.dumps(flight))
    sql(folder, "UPDATE meta SET value = '\"train\"' WHERE key = 'step'")
    sql(folder, "DELETE FROM reason")
    text = written(folder).text
    assert "unfinished" in text
    assert "A fit was under way when this was written: 77 records" in text
    assert "Nothing was decided yet" in text


class Silent(Net):
    """Logs nothing."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        return


@pytest.mark.usefixtures("undrawn")
def test_one_round_and_no_metric(tmp_path: Path) -> None:
    one = learner(tmp_path / "run", round_size=Listed([12]), initial=KCenterGreedy())
    one.fit(Silent(), datamodule=pool_of(features=blobs().tensors[0].numpy()))
    page = written(tmp_path / "run")
    assert "The module logged no metric" in page.text
    assert "its first query was not drawn at random" in page.text
    assert len(page.rows["round-table"]) == 2


@pytest.mark.usefixtures("undrawn")
def test_aborts_and_restarts_are_among_the_decisions(tmp_path: Path) -> None:
    stall = StallDetection("val_loss", reference=CHANCE, min_delta=0.01, patience=3)
    result = learner(tmp_path / "run", quiet(max_epochs=6, callbacks=[stall])).fit(Dead(), datamodule=pool_of())
    page = written(tmp_path / "run")
    assert "val_loss stands at" in page.text
    assert "trained in 2 attempts" in page.text
    aborted = next(row for row in page.rows["bill-table"] if row[0] == "aborted")
    assert aborted[2] == pytest.approx(result.bill.lines["aborted"].flops)


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_the_version_before(run: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(run[1], tmp_path / "run")
    as_format_1(tmp_path / "run")
    sql(tmp_path / "run", "DELETE FROM meta WHERE key = 'pricing'")
    page = written(tmp_path / "run")
    assert page.numbers["money"] == [run[0].history[-1].cost["money"]]
    assert "written by a version that did not note prices" in page.text
    assert page.numbers["rho"][0] == pytest.approx(run[0].bill.rho)


def test_labels_of_different_prices(tmp_path: Path) -> None:
    costs = np.linspace(1, 5, 60)
    result = learner(tmp_path).fit(net(), datamodule=pool_of(label_costs=costs))
    assert flatten(read(tmp_path).bill.to_json()) == pytest.approx(flatten(result.bill.to_json()))


# ---- several ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "multirun"
    for name, query in (("margin", Margin()), ("random", Random())):
        for seed in range(3):
            made = learner(folder / f"query={name},seed={seed}", query=query, seed=seed, round_size=Listed([12, 6]))
            made.fit(net(seed), datamodule=pool_of())
    return folder


@pytest.mark.usefixtures("undrawn")
def test_seeds_are_one_line_with_a_band(sweep: Path) -> None:
    runs, _ = find([sweep])
    groups = grouped(runs)
    assert [(group.name, len(group.runs)) for group in groups] == [("query=margin", 3), ("query=random", 3)]
    page = written(sweep)
    assert "6 runs, 2 configurations" in page.text
    head, *rows = page.rows["group-table"]
    for row, group in zip(rows, groups, strict=True):
        shown = dict(zip(head, row, strict=True))
        finals = [run.trained[-1].metrics["val_acc"] for run in group.runs]
        assert shown["val_acc"] in (
            pytest.approx(np.mean(finals)),
            pytest.approx(half_width(np.std(finals, ddof=1), 3)),
        )
        assert page.source.count(f'value="{np.mean([run.bill.flops for run in group.runs])}"') >= 1
    assert "query.class" in page.text
    assert [row[0] for row in page.rows["run-table"][1:]] == [run.name for run in runs]


def test_a_run_of_a_sweep_that_cannot_be_read_is_left_out_by_name(
    sweep: Path, tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    broken = tmp_path / "sweep" / "query=margin,seed=0"
    (broken / "run.sqlite").write_text("no database")
    assert main(["report", str(tmp_path / "sweep"), "-o", str(tmp_path / "out")]) == 0
    assert f"left out: {broken}" in capsys.readouterr().err
    page = Page(tmp_path / "out" / "report.html")
    assert f"Left out: {broken}" in page.text
    assert "5 runs, 2 configurations" in page.text
    with pytest.raises(ActiveLearningError):
        written(broken)


# ---- records ----------------------------------------------------------------------------------------------------


def test_records_are_shown_only_with_the_data(run: tuple[Any, Path]) -> None:
    one = read(run[1])
    assert records(one)[0] == []
    assert "--records" in records(one)[1]
    assert "neither images" in records(one, pool_of())[1]
    found, _ = records(one, pool_of(), lambda x: x.reshape(2, 2))
    assert [(round, len(shown)) for round, shown in found] == [(1, 8), (2, 6), (3, 6)]
    first = found[0][1][0]
    assert first.id == one.saved.queries[0][0]
    assert first.label == str(one.labels[first.id])
    assert str(first.picture).startswith("data:image/png;base64,")
    texts, _ = records(one, pool_of(), lambda x: {"a": "one", "b": "two " * 200, "c": 3})
    assert str(texts[0][1][0].text).startswith("a: one\nb: two")
    assert len(str(texts[0][1][0].text)) < 320
    with pytest.raises(PoolChanged):
        records(one, pool_of(blobs(seed=5)))


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 200, 100), (200, 100, 3), (4, 30, 30)])
def test_images_in_every_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from base64 import b64decode
    from io import BytesIO

    from matplotlib.image import imread

    from al_lightning.report.records import _picture

    source = _picture((torch.rand(shape) * 9 - 4, "words"))
    assert source is not None
    picture = imread(BytesIO(b64decode(source.split(",")[1])))
    sides = sorted(n for n in shape if n > 4)
    assert max(picture.shape[:2]) == min(160, sides[-1])
    assert 0 <= picture[..., :3].min() < 0.2
    assert 0.8 < picture[..., :3].max() <= 1


def test_a_link_in_a_run_folder_leads_nowhere(tmp_path: Path) -> None:
    oracle = FileOracle(classes=NAMES, columns=lambda i: {"text": f"words of {i}"})
    start(tmp_path / "run", oracle)
    path = tmp_path / "run" / "queries" / "round-001.csv"
    assert records(read(tmp_path / "run"))[0]
    path.rename(tmp_path / "elsewhere.csv")
    path.symlink_to(tmp_path / "elsewhere.csv")
    assert records(read(tmp_path / "run"))[0] == []


@pytest.mark.usefixtures("undrawn")
def test_the_command_rebuilds_the_data_from_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["labels=40", "round_size.rounds=2", "trainer.max_epochs=1", "seed=3"]
    assert main(["run", *options, "run_dir=runs/x"]) == 0
    (tmp_path / "runs/x/.hydra/config.yaml").write_text("data: {_target_: os.abort}")
    (tmp_path / "conf/data").mkdir(parents=True)
    mine = "_target_: al_lightning.cli.parts.digits_pool\nseed: ${seed}\nbatch_size: 16\n"
    (tmp_path / "conf/data/mine.yaml").write_text(mine)
    capsys.readouterr()
    assert main(["report", "runs/x", "--config-dir", "conf", "--shape", "8x8", "--records", "data=mine", "seed=3"]) == 0
    assert capsys.readouterr().out.split()[0] == "runs/x/report/report.html"
    page = Page(tmp_path / "runs/x/report/report.html")
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 16
    for options, said in (
        (["--records", "data=digits", "seed=4"], "PoolChanged"),
        (["--records", "data=nothing"], "nothing"),
        (["--shape", "8"], "for example 28x28"),
        (["--shape", "9x9", "--records", "data=digits", "seed=3"], "not 81 numbers in a line"),
    ):
        assert main(["report", "runs/x", *options]) == 1
        assert said in capsys.readouterr().err
