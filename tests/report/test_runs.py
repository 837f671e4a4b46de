"""Every run there may be, several of them, and their records."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.cli.main import main
from al_lightning.errors import ActiveLearningError, PoolChanged
from al_lightning.oracles import FileOracle
from al_lightning.query import KCenterGreedy, Margin, Random
from al_lightning.report.groups import grouped, half_width
from al_lightning.report.read import find, read
from al_lightning.report.records import _picture, records
from al_lightning.round_size import Listed
from tests.callbacks.test_stall_restart import CHANCE, Dead
from tests.formats import as_format
from tests.helpers import Net, blobs, learner, net, pool_of, quiet
from tests.report.reading import Page, sql, written
from tests.resume.test_people import NAMES, fill, ids_of, start, truth

# ---- every run there may be ------------------------------------------------------------


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
    as_format(folder, 3)  # which had no sums to be found out by
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
    as_format(tmp_path / "run", 1)
    sql(tmp_path / "run", "DELETE FROM meta WHERE key = 'pricing'")
    page = written(tmp_path / "run")
    assert page.numbers["money"] == [run[0].history[-1].cost["money"]]
    assert "written by a version that did not note prices" in page.text
    assert page.numbers["rho"][0] == pytest.approx(run[0].bill.rho)


# ---- several ------------------------------------------------------------


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


# ---- records ------------------------------------------------------------


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
        written(run[1], pool=pool_of(blobs(seed=5)))


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 200, 100), (200, 100, 3), (4, 30, 30)])
def test_images_in_every_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from matplotlib.image import imread

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


@pytest.mark.filterwarnings("ignore:classes .* have no labelled record")  # twenty labels a round
@pytest.mark.usefixtures("undrawn")
def test_the_command_rebuilds_the_data_from_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["labels=40", "round_size.rounds=2", "trainer.max_epochs=16", "seed=3"]
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
