"""A project in the shape of the public Lightning + Hydra templates runs with active learning by a few more lines."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.compat.template import train as plain
from tests.compat.template import train_actively as active

HERE = Path(__file__).parent / "template"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Attribute 'net' is an instance of .nn.Module.:UserWarning",
    "ignore:Experiment logs directory .* exists and is not empty:UserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
)


def configured(folder: Path, *overrides: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(HERE / "conf")):
        return compose("train", [f"output_dir={folder}", *overrides])


def test_the_difference_is_a_few_lines() -> None:
    before, after = ((HERE / f"{name}.py").read_text().splitlines() for name in ("train", "train_actively"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-" and line[2:].strip()]
    assert len(changed) <= 6, "\n".join(changed)


@pytest.mark.parametrize(
    ("program", "overrides"),
    [
        (plain, ()),
        (active, ()),
        (active, ("seed=1",)),
        (active, ("test=false",)),
        (active, ("model.compile=true",)),
        (active, ("model.scheduler=null", "callbacks.model_checkpoint.monitor=val/acc_best")),
    ],
    ids=["plain", "active", "seeded", "not tested", "compiled", "no scheduler"],
)
def test_the_project_runs(tmp_path: Path, program: Any, overrides: tuple[str, ...]) -> None:
    cfg = configured(tmp_path, *overrides)
    metrics, objects = program.train(cfg)
    checkpoint = objects["trainer"].checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    assert Path(checkpoint.best_model_path).is_file()
    assert metrics["val/acc_best"] >= metrics["val/acc"] > 0.4
    assert ("test/acc" in metrics) == cfg.test
    assert {"train/loss", "train/acc", "val/loss"} <= set(metrics)


def test_the_delivered_model_is_what_the_trainer_tests(tmp_path: Path) -> None:
    metrics, objects = active.train(configured(tmp_path, "seed=1"))
    best = objects["trainer"].checkpoint_callback.best_model_path
    (tested,) = objects["trainer"].test(
        objects["model"], objects["datamodule"], ckpt_path=best, verbose=False, weights_only=False
    )
    assert tested["test/acc"] == pytest.approx(float(metrics["test/acc"]))
    assert len(objects["datamodule"].labelled) == 48


def test_a_search_over_a_hyperparameter_finds_what_each_trial_returned(tmp_path: Path) -> None:
    """As Optuna's sweeper does: a trial is a call, and what it returns is compared."""
    found = {}
    for lr in (1e-6, 0.02):
        cfg = configured(tmp_path / str(lr), "seed=1", f"model.optimizer.lr={lr}", "test=false")
        metrics, _ = active.train(cfg)
        found[lr] = metrics[cfg.optimized_metric].item()
    assert found[0.02] > found[1e-6]
