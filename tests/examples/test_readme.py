"""The code of the README runs on data of the reader's own shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from al_lightning.cli.problems import Classifier, digits

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the reader has: tensors, and a module."""
    monkeypatch.chdir(tmp_path)
    train, val, _ = digits(0)
    torch.manual_seed(0)
    return {
        **dict(zip(("x_train", "y_train"), train.tensors, strict=True)),
        **dict(zip(("x_val", "y_val"), val.tensors, strict=True)),
        "model": Classifier(in_features=64, classes=10, learning_rate=3e-2),
    }


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


# Lightning: it tells everyone who takes its default logger
@pytest.mark.filterwarnings("ignore:Starting from v1.9.0:UserWarning")
def test_the_first_lines_run_and_print_the_bill_the_reason_and_where_things_are(names, tmp_path, capsys):
    exec(BLOCKS[0], names)
    assert names["result"].history[-1].metrics["val_acc"] > 0.85
    printed = capsys.readouterr().out
    assert "rho = 0.9" in printed
    assert "ended: labels: 400 of 400 spent" in printed
    assert "run folder: runs/mine" in printed
    assert (tmp_path / "runs" / "mine" / "run.sqlite").exists()


@pytest.mark.filterwarnings("ignore:Starting from v1.9.0:UserWarning")
def test_the_loop_by_hand_runs_on_the_same_data(names):
    exec(BLOCKS[0].partition("pool = ")[0] + BLOCKS[1], names)
    assert 50 < len(names["pool"].labelled) <= 400
    assert names["stall"].reason is None
    assert names["t"].callback_metrics["val_acc"] > 0.8


def test_every_file_it_points_to_is_there():
    root = Path(__file__).parents[2]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (root / link).exists()] == []
