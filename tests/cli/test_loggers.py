"""Loggers that the command makes: one log per run, closed with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

from al_lightning.cli.main import main
from al_lightning.cli.problems import Classifier
from tests.hazards.test_loggers import history_of, never_back, offline_run
from tests.helpers import learner, net, pool_of, quiet

TINY = ("labels=30", "trainer.max_epochs=1", "experiment=one_shot")
WANDB = (*TINY, "logger=wandb")
HERE = "tests.cli.test_loggers"


class Fails(Classifier):
    """Ends its run with an error, after the first epoch."""

    def on_train_epoch_end(self) -> None:
        raise RuntimeError("out of luck")


class Noted(Logger):
    """Says how it is closed."""

    name, version, experiment = "noted", 0, None
    closed: list[tuple[int, str]]

    def __init__(self, save_dir: str, name: str) -> None:
        super().__init__()
        ALL.append(self)
        self.closed = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert not self.closed or self.closed[-1][1] == "success"

    def finalize(self, status: str) -> None:
        self.closed.append((len(ALL), status))


ALL: list[Noted] = []


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    return tmp_path


def runs_in(folder: Path) -> list[dict[str, Any]]:
    """Exit code and the steps of every offline run, by folder."""
    found = []
    for path in sorted(folder.rglob("*.wandb")):
        records = offline_run(path)
        rows = history_of(records)
        (code,) = [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"]
        steps = [row["trainer/global_step"] for row in rows if "trainer/global_step" in row]
        found.append({"code": code, "steps": steps, "rounds": sum("al/labels" in row for row in rows), "in": str(path)})
    return found


def test_every_job_of_a_sweep_is_a_wandb_run_of_its_own(offline: Path) -> None:
    assert main(["run", "-m", "seed=0,1", f"out={offline}", *WANDB]) == 0
    assert wandb.run is None
    runs = runs_in(offline)
    assert [run["code"] for run in runs] == [0, 0]
    assert all(f"seed={seed}" in run["in"] for seed, run in zip((0, 1), runs, strict=True))
    assert all(never_back(run["steps"]) and run["rounds"] for run in runs)


def test_every_method_of_a_comparison_is_a_wandb_run_of_its_own(offline: Path) -> None:
    assert main(["compare", "methods=[one_shot,random]", "seeds=[0]", f"out={offline}", *WANDB[:2], WANDB[-1]]) == 0
    assert wandb.run is None
    assert [Path(run["in"]).relative_to(offline).parts[0] for run in runs_in(offline)] == ["one_shot", "random"]


def test_a_job_that_fails_leaves_a_run_that_failed(offline: Path) -> None:
    with pytest.raises(SystemExit):
        main(["run", f"out={offline}", *WANDB, f"model._target_={HERE}.Fails", "preflight=false"])
    assert wandb.run is None
    assert [run["code"] for run in runs_in(offline)] == [1]


def test_two_learners_in_a_program_log_where_lightning_would(offline: Path) -> None:
    """The second logger goes on in the first one's run, which W&B says, unless ``wandb.finish()`` comes between."""

    def run(name: str) -> WandbLogger:
        logger = WandbLogger(project=name, save_dir=offline, offline=True)
        learner(offline / name, quiet(max_epochs=1, logger=logger)).fit(net(), datamodule=pool_of())
        return logger

    first = run("first").experiment
    with pytest.warns(UserWarning, match="already in progress"):
        assert run("second").experiment is first
    wandb.finish()
    assert run("third").experiment is not first
    wandb.finish()
    assert sorted(run["rounds"] for run in runs_in(offline)) == [3, 6]


def test_any_logger_is_told_how_its_run_ended(tmp_path: Path) -> None:
    ALL.clear()
    assert main(["run", "-m", "seed=0,1", f"out={tmp_path}", *TINY, f"logger._target_={HERE}.Noted"]) == 0
    assert [logger.closed[-1] for logger in ALL] == [(1, "success"), (2, "success")], "closed before the next begins"


def test_a_wandb_run_of_the_users_own_is_left_open(offline: Path) -> None:
    """Around the command, and in a program: a learner finishes no logger it was given."""
    outer = wandb.init(project="outer", dir=offline)
    try:
        with pytest.warns(UserWarning, match="already in progress"):
            assert main(["run", f"out={offline}", *WANDB]) == 0
        assert wandb.run is outer
    finally:
        outer.finish()
    logger = WandbLogger(project="p", save_dir=offline, offline=True)
    learner(offline / "run", quiet(logger=logger)).fit(net(), datamodule=pool_of())
    try:
        assert wandb.run is logger.experiment
        logger.experiment.log({"after": 1.0})
    finally:
        wandb.finish()
    assert len(runs_in(offline)) == 2
