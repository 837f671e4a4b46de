"""The loops of the examples do not go on with a model that stalled."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import pytest

from al_lightning.cli.problems import Classifier


@pytest.mark.filterwarnings("ignore:RoundPlateau")
@pytest.mark.parametrize("name", ["own_loop", "plain_loop"])
def test_a_model_that_never_learns_ends_the_loop(name, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "examples" / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "Classifier", partial(Classifier, weight_decay=0.0))
    monkeypatch.setattr(Classifier, "forward", lambda self, x: 0 * self.head(self.trunk(x)))
    with pytest.raises(SystemExit, match=r"gave up after 2 fits.*train_loss stands at 2\.3"):
        example.main(restarts=2)
    assert "labels:" not in capsys.readouterr().out
