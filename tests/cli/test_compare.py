from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from al_lightning.cli.main import main
from al_lightning.report.plots import mean_curve
from al_lightning.report.table import COLUMNS, cells, si, summarise

TINY = ("labels=60", "seeds=[3]", "out=out", "trainer.max_epochs=16")
METHODS = ["everything", "random", "ordinary", "frugal", "frugal_clusters"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compare")
        patch.chdir(folder)
        assert main(["compare", *TINY]) == 0
    return folder / "out", ""


@pytest.fixture
def result(compared: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((compared[0] / "compare.json").read_text())


def test_every_method_and_seed_is_a_row(result: dict[str, Any]) -> None:
    assert [(row["method"], row["seed"]) for row in result["rows"]] == [(m, 3) for m in METHODS]
    assert result["command"] == f"al-lightning compare {' '.join(TINY)}"
    assert result["prices"]["label"] > 0
    assert result["environment"]["threads"] == 1


def test_methods_differ_in_nothing_but_cost(result: dict[str, Any]) -> None:
    rows = {row["method"]: row for row in result["rows"]}
    assert {row["labels"] for method, row in rows.items() if method != "everything"} == {60}
    assert rows["everything"]["labels"] == 1317
    assert all(row["labels_bought"] == row["labels"] + 120 for row in rows.values())
    per_record = {round(row["flops_reference"] / row["labels"], 3) for row in rows.values()}
    assert len(per_record) == 1, "one recipe, one model: the reference differs by the number of labels alone"


def test_rho_is_computed_from_what_was_spent(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        assert row["rho"] == pytest.approx(row["flops"] / row["flops_reference"])
        assert row["flops"] == pytest.approx(sum(phase["flops"] for phase in row["phases"].values()))
        assert row["rho_seconds"] == pytest.approx(row["seconds"] / row["seconds_reference"])
    rows = {row["method"]: row for row in result["rows"]}
    assert 1 < rows["random"]["rho"] < 2.2, "one training, one validation pass, and a batch of each before"
    assert rows["random"]["records_trained"] == 16 * 60
    assert rows["random"]["records_inferred"] == 0
    assert rows["ordinary"]["records_inferred"] == 1317 - 30, "two rounds of 30"


def test_curves_end_where_the_table_does(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        assert row["curve"][-1]["accuracy"] == row["accuracy"]
        assert row["curve"][-1]["labels"] == row["labels"]
        assert row["curve"][-1]["flops"] == pytest.approx(row["flops"])
        assert 0 < row["accuracy"] <= 100


def test_table_is_the_summary(result: dict[str, Any]) -> None:
    assert summarise(result["rows"]) == result["summary"]
    for line, row in zip(cells(result["summary"]), result["rows"], strict=True):
        shown = dict(zip(["method", *COLUMNS], line, strict=True))
        assert shown["method"] == row["method"]
        assert shown["accuracy %"] == f"{row['accuracy']:.2f}"
        assert shown["ρ"] == f"{row['rho']:.2f}"
        assert shown["trained"] == f"{row['records_trained']:,}"


def test_picture_is_not_blank(compared: tuple[Path, str]) -> None:
    picture = matplotlib.image.imread(compared[0] / "compare.png")
    assert min(picture.shape[:2]) > 400
    assert len(np.unique((picture[:, :, :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 50


def test_comparing_again_reads_what_is_there(
    compared: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((compared[0] / "compare.json").read_text())
    monkeypatch.chdir(compared[0].parent)
    assert main(["compare", *TINY]) == 0
    printed = capsys.readouterr().out
    assert "5 of 5 runs were finished before" in printed
    for line in cells(before["summary"]):
        assert all(cell in printed for cell in line), f"the table cuts off a cell of {line}"
    assert {"out/compare.json", "out/compare.png"} <= set(printed.split())
    assert json.loads((compared[0] / "compare.json").read_text())["rows"] == before["rows"]


def test_runs_of_other_settings_are_not_read(
    compared: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(compared[0].parent)
    assert main(["compare", *TINY, "model.learning_rate=0.5"]) == 1
    assert "model.learning_rate: 0.03 there, 0.5 now" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:classes .* have no labelled record")  # eight labels a round
def test_looking_at_the_test_data_changes_nothing(
    compared: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli.test_run import queries

    monkeypatch.chdir(tmp_path)
    assert main(["run", "experiment=frugal", "seed=3", "labels=60", "trainer.max_epochs=16", "run_dir=alone"]) == 0
    assert queries(tmp_path / "alone") == queries(compared[0] / "frugal" / "seed-3")


def test_unknown_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "methods=[nothing]"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    assert "methods=[...]" in capsys.readouterr().out


def test_summary_leaves_out_what_a_seed_lacks() -> None:
    rows = [{"method": "a", "seed": s, "x": x, "y": y} for s, x, y in ((0, 1.0, None), (1, 3.0, 2.0))]
    assert summarise(rows) == {"a": {"x": {"mean": 2.0, "sd": pytest.approx(2**0.5)}}}


def test_si() -> None:
    assert [si(x) for x in (0, 999, 1234, 38.8e6, 388e6, 3.6e9)] == ["0", "999", "1.23 k", "38.8 M", "388 M", "3.60 G"]


def test_final_fit_replaces_the_point_at_its_labels() -> None:
    curve = [{"labels": n, "accuracy": a, "flops": f} for n, a, f in ((10, 50.0, 1), (20, 60.0, 2), (20, 70.0, 5))]
    x, y, sd = mean_curve([{"curve": curve}], "labels")
    assert (x.tolist(), y.tolist(), sd.tolist()) == ([10, 20], [50, 70], [0, 0])
    assert mean_curve([{"curve": curve}], "flops")[0].tolist() == [1, 2, 5]
