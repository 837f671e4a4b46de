"""``al-lightning plan`` as a user types it."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from al_lightning import DatasetOracle
from al_lightning.cli import parts
from al_lightning.cli.build import compose_config, register_resolvers
from al_lightning.cli.main import main

IMAGENET = ("architecture=resnet152", "pool=1200000", "labels=200000", "epochs=90", "experiment=ordinary")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


def planned(capsys, *arguments):
    assert main(["plan", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_before_there_is_code(capsys):
    found = planned(capsys, *IMAGENET, "rounds=20", "maturity=0")
    ordinary = found["verdict"]["money"]["ordinary active learning"]
    assert ordinary == pytest.approx(7818, rel=0.001)  # 13.5 EFLOP, 200,000 labels
    assert found["plan"]["sizes"] == [10_000] * 20
    assert found["plan"]["flops"] == pytest.approx(13.53e18, rel=0.001)
    assert {a["name"] for a in found["assumptions"]} == {"prices.label", "prices.hour", "flops_per_second"}


def test_the_run_as_it_would_be_made_and_the_command_for_it(capsys):
    found = planned(capsys, "rounds=3", "prices.label=0.5", "trainer.max_epochs=6")
    assert next(r["trained"] for r in found["plan"]["rounds"]) > 0
    verb = shlex.split(found["run"])
    assert verb[:2] == ["al-lightning", "run"]
    register_resolvers()
    cfg = compose_config("run", verb[2:])
    assert list(cfg.round_size.sizes) == found["plan"]["sizes"]
    assert cfg.prices.label == 0.5
    assert cfg.trainer.max_epochs == 6
    assert "measured on your model" in found["about"][0]


def test_the_tables(capsys):
    assert main(["plan", *IMAGENET, "prices.hour=20", "prices.currency=EUR"]) == 0
    out = capsys.readouterr().out
    for said in (
        "label everything",
        "Cheapest: ",
        "inferred",
        "pays while",
        "a default: ",
        "torchvision",
    ):
        assert said in out
    assert "labels EUR" in out
    assert "al-lightning run experiment=ordinary" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("architecture=vgg",), "allowed are resnet18"),
        (("architecture=resnet18",), "pool and epochs missing"),
        ((*IMAGENET, "epochs=0"), "epochs=0"),
        ((*IMAGENET, "pool=10"), "labels=200,000, pool=10"),
        ((*IMAGENET, "prices.label=-1"), "Prices(label=-1)"),
        ((*IMAGENET, "inference_discount=30"), "30 % is 0.3"),
        ((*IMAGENET, "rounds=0"), "rounds=0"),
        ((*IMAGENET, "worth=0"), "worth=0"),
        ((*IMAGENET, "random=2"), "0 < random <= 1"),
        (("forward=11.5", "pool=1000", "epochs=3"), "not in GFLOP"),
        (("experiment=proxy",), "leave proxy= and experiment=proxy out"),
        (("no_such_option=1",), "no_such_option"),
    ],
)
def test_bad_options_are_named(options, said, capsys):
    assert main(["plan", *options]) == 1
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error


def test_help(capsys):
    assert main(["plan", "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_labels_of_a_run_that_was_begun_are_looked_at(capsys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "begun"
    assert main(["run", f"run_dir={folder}", "labels=60", "round_size.rounds=2", "trainer.max_epochs=16"]) == 0
    capsys.readouterr()
    found = planned(capsys, f"run_dir={folder}")
    signal = found["verdict"]["signal"]
    assert signal["finding"] == "something"
    assert 10 < signal["records"] < 60  # the first round alone: a model has chosen the others
    assert str(folder) not in found["run"]
    still_to_be_made = tmp_path_factory.mktemp("empty")
    assert planned(capsys, f"run_dir={still_to_be_made}")["verdict"]["signal"] is None
    assert main(["plan", f"run_dir={folder}", "data.seed=1"]) == 1  # of other data
    assert "PoolChanged" in capsys.readouterr().err


def test_labels_that_say_nothing_are_warned_about(capsys, monkeypatch):
    whole = parts.digits_pool

    def shuffled(**settings):
        pool = whole(**settings)
        x, y = pool.eval_data.tensors
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
        pool = parts.PoolDataModule(
            TensorDataset(x, y[order]), task="multiclass", val=pool.val_data, features=parts.RawInputs()
        )
        pool.label(pool.draw(300), DatasetOracle())
        return pool

    monkeypatch.setattr(parts, "digits_pool", shuffled)
    assert main(["plan", "labels=600"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "look as if they said nothing about these features (p = " in out
    assert "Cheapest: random labels, one training, whatever a label or an hour costs." in out
