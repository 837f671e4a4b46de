"""The README's result in ten lines is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from al_lightning.cli.problems import Classifier, digits

README = (Path(__file__).parents[2] / "README.md").read_text()


# Lightning: it tells everyone who takes its default logger
@pytest.mark.filterwarnings("ignore:Starting from v1.9.0:UserWarning")
def test_the_ten_lines_run_and_print_a_bill(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 11
    splits = digits(0)
    torch.manual_seed(0)
    names = {
        "train_dataset": splits.train,
        "val_dataset": splits.val,
        "model": Classifier(in_features=64, classes=10, learning_rate=3e-2),
    }
    exec(code, names)
    assert names["result"].history[-1].metrics["val_acc"] > 0.85
    assert "rho = " in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine" / "run.sqlite").exists()


def test_every_file_it_points_to_is_there():
    root = Path(__file__).parents[2]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (root / link).exists()] == []
