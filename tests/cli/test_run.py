from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from al_lightning.cli import run as run_module
from al_lightning.cli.main import USAGE, main

TINY = ("labels=40", "round_size.rounds=2", "trainer.max_epochs=12")
FOLDER = "labels=40,round_size.rounds=2,trainer.max_epochs=12"


def queries(folder: Path) -> list[tuple[int, int, int]]:
    with sqlite3.connect(folder / "run.sqlite") as db:
        return db.execute("SELECT round, position, id FROM query ORDER BY round, position").fetchall()


def test_run_twice_is_one_run(
    al_lightning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = al_lightning("run", *TINY)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs" / "run" / FOLDER
    ids = queries(folder)
    assert len(ids) == 40
    for said in ("rho = ", "ended: labels: 40 of 40 spent", "test_acc: 0.", f"run folder: runs/run/{FOLDER}"):
        assert said in first.stdout
    assert "GPU available" not in first.stdout + first.stderr
    assert (folder / ".hydra" / "config.yaml").exists()
    assert list((folder / "logs").rglob("metrics.csv"))
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}, "something was written beside the run folder"

    monkeypatch.chdir(tmp_path)
    assert main(["run", *reversed(TINY)]) == 0
    assert queries(folder) == ids
    assert capsys.readouterr().out.split("phase")[1] == first.stdout.split("phase")[1]


def test_sweep_gives_every_job_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "-m", "query=random,margin", *TINY]) == 0
    folders = [tmp_path / "runs" / "run" / f"labels=40,query={q},{FOLDER[10:]}" for q in ("random", "margin")]
    random, margin = map(queries, folders)
    assert random[:20] == margin[:20], "both begin with the same random records"
    assert random[20:] != margin[20:]
    assert (folders[0] / ".hydra").is_dir()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("query=nothing", "nothing"),
        ("candidates.share=7", "candidates: RotatingSubset(share=7)"),
        ("no_such_option=1", "no_such_option"),
        ("labels=100000", "100000"),
    ],
)
def test_bad_option_is_named_without_a_traceback(
    option: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["run", option])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_interrupted_run_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = run_module.build

    def build_and_interrupt(cfg: Any, on_round: Any) -> Any:
        return build(cfg, lambda record, model: signal.raise_signal(signal.SIGINT))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "build", build_and_interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["run", *TINY])
    assert stop.value.code == 130
    assert f"The same command goes on from here: runs/run/{FOLDER}" in capsys.readouterr().err


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == USAGE + "\n"
    assert main([]) == 0


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    error = capsys.readouterr().err
    assert "no verb 'train'; allowed: run, compare" in error


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("al-lightning 0.")
