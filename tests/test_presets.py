from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from al_lightning.cli.build import build, compose_config
from al_lightning.cost.prices import Prices
from al_lightning.errors import BadPart, Interrupted, RhoTooSmall
from al_lightning.features.source import RawInputs
from al_lightning.history import RoundRecord
from al_lightning.learner import ActiveLearner
from al_lightning.planning.project import Project
from al_lightning.presets import frugal, frugal_rho, numbers_of, ordinary_size
from al_lightning.query import Margin
from al_lightning.round_size import EvenRounds
from al_lightning.run.describe import describe
from tests.helpers import Net, blobs, net, pool_of, quiet

PARTS = ("query", "candidates", "policy", "round_size", "initial", "oracle", "prices", "seed", "stop_set", "stop")


def described(learner: ActiveLearner) -> dict[str, Any]:
    return {name: describe(getattr(learner, name)) for name in PARTS}


@pytest.mark.parametrize("labels", [35, 400, 2000])
@pytest.mark.parametrize("rho", [0.5, 0.7, 1.0, 1.5, 2.0, 4.0])
def test_the_command_makes_the_same_learner(rho: float, labels: int, tmp_path: Path) -> None:
    options = [f"rho={rho}", f"labels={labels}", "logger=none", f"run_dir={tmp_path}"]
    command = build(compose_config("run", ["experiment=frugal", *options])).learner
    python = frugal(quiet(max_epochs=24), labels=labels, rho=rho, run_dir=tmp_path)
    assert described(python) == described(command)
    assert described(build(compose_config("run", options)).learner) == described(command)  # what it does by default


def test_measured_values_of_rho_are_the_settings_that_were_measured() -> None:
    measured = {0.7: (5, 0.15, 0.68), 1.0: (7, 0.22, 0.98), 1.5: (10, 0.3, 1.48), 2.0: (14, 0.4, 1.98)}
    for rho, numbers in measured.items():
        found = numbers_of(3200, rho)
        assert (found.rounds, found.spend, found.rho) == numbers
        assert (found.first_epochs, found.epochs, found.final_epochs) == (0.36, 0.12, 0.25)


def test_a_round_is_of_twenty_labels_at_least() -> None:
    assert [numbers_of(labels, 1.0).rounds for labels in (5, 40, 139, 140, 10_000)] == [1, 2, 6, 7, 7]


def test_ordinary_active_learning_has_twenty_rounds_of_any_number_of_labels() -> None:
    assert [ordinary_size(labels) for labels in (10, 100, 400, 900, 3200)] == [10, 25, 25, 45, 160]


@pytest.mark.parametrize("rho", [0.1, 5, -1, True, "cheap", None])
def test_what_is_no_rho_is_refused_in_python_and_by_the_command(rho: Any, tmp_path: Path) -> None:
    with pytest.raises(BadPart, match=r"rho=.*allowed: 0.5 to 4, or"):
        frugal(quiet(), labels=40, rho=rho, run_dir=tmp_path)
    said = "null" if rho is None else rho
    with pytest.raises(BadPart, match=r"rho=.*allowed: 0.5 to 4, or"):
        build(compose_config("run", [f"rho={said}", "logger=none", f"run_dir={tmp_path}"]))


@pytest.mark.parametrize("labels", [0, -3, 2.5, True])
def test_what_is_no_number_of_labels_is_refused(labels: Any, tmp_path: Path) -> None:
    with pytest.raises(BadPart, match="labels="):
        frugal(quiet(), labels=labels, run_dir=tmp_path)


@pytest.mark.parametrize("rho", [0.5, 1.0, 2.0])
def test_rho_is_kept(rho: float, tmp_path: Path) -> None:
    pool = pool_of(blobs(1000), val=blobs(12, seed=1), eval_batch_size=64)
    result = frugal(quiet(max_epochs=24), labels=300, rho=rho, run_dir=tmp_path).fit(net(hidden=256), pool)
    assert result.bill.labels == 300 + 12
    assert 0.8 * rho < result.rho <= rho
    printed = str(result)
    assert f"rho = {result.rho:.2f}" in printed
    assert "ended: " in printed
    assert str(tmp_path) in printed


def test_every_part_can_be_replaced(tmp_path: Path) -> None:
    learner = frugal(quiet(), labels=40, run_dir=tmp_path, query=Margin(), stop_set=7, seed=3, stop=())
    assert learner.query == Margin()
    assert (learner.stop_set, learner.seed, learner.stop) == (7, 3, [])


def test_flat_records_are_their_own_features(tmp_path: Path) -> None:
    pool = pool_of(blobs(300))
    learner = frugal(quiet(max_epochs=24), labels=60, run_dir=tmp_path)
    learner.fit(net(), pool)
    assert isinstance(pool.features, RawInputs)
    assert describe(learner.query)["strategy"]["class"] == "Margin"


def test_features_that_were_given_are_kept(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    pool = pool_of(blobs(300), features=features)
    frugal(quiet(max_epochs=24), labels=60, run_dir=tmp_path).fit(net(), pool)
    assert pool.features is features or np.array_equal(pool.features, features)


class TokenNet(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.float() / 8)


def test_records_that_are_no_numbers_to_compare_are_queried_by_margin(tmp_path: Path) -> None:
    whole = TensorDataset((blobs(300).tensors[0] * 8).round().long(), blobs(300).tensors[1])
    pool = pool_of(whole, val=TensorDataset(whole.tensors[0][:9], whole.tensors[1][:9]))
    learner = frugal(quiet(max_epochs=24), labels=60, run_dir=tmp_path)
    result = learner.fit(TokenNet(), pool)
    assert learner.query == Margin()
    assert pool.features is None
    assert result.bill.labels == 60 + 9


def test_dear_labels_and_cheap_compute_make_a_larger_rho() -> None:
    def at(**prices: float) -> float:
        project = Project(pool=20_000, labels=2000, epochs=20, forward=1e9, prices=Prices(**prices))
        return frugal_rho(project)

    assert at(label=1.0, hour=0.01) == 2.0
    assert at(label=0.0001, hour=50.0) == 0.7
    assert 0.7 < at(label=0.0005, hour=10.0) < 2.0


def test_auto_chooses_by_the_prices_and_goes_on_with_what_it_chose(tmp_path: Path) -> None:
    def run(folder: str, **prices: float) -> Any:
        pool = pool_of(blobs(900))
        learner = frugal(
            quiet(max_epochs=24), labels=60, rho="auto", run_dir=tmp_path / folder, prices=Prices(**prices)
        )
        return learner.fit(net(hidden=128), pool)

    dear = run("dear", label=1.0, hour=0.001)
    assert 1.2 < dear.rho <= 2.0
    assert run("cheap", label=0.0, hour=100.0).rho <= 0.7
    assert run("dear", label=0.0, hour=100.0).labelled.tolist() == dear.labelled.tolist()


def test_auto_of_the_command(tmp_path: Path) -> None:
    prices = ["+prices.label=0", "+prices.hour=100"]
    parts = build(compose_config("run", ["rho=auto", "labels=60", "logger=none", *prices, f"run_dir={tmp_path}"]))
    assert parts.learner.policy.rho == 0.68  # type: ignore[attr-defined]


def small_model_of_wide_records() -> dict[str, Any]:
    """A pool and a module of which comparing records costs about as much as training on them."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(1500) % 3
    x = torch.randn(1500, 40, generator=generator) + 2 * torch.nn.functional.one_hot(y, 40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Net(hidden=4)
        module.net = torch.nn.Sequential(torch.nn.Linear(40, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    data, val = TensorDataset(x[:1492], y[:1492]), TensorDataset(x[1492:], y[1492:])
    return {"model": module, "datamodule": pool_of(data, val=val, batch_size=32, eval_batch_size=8)}


def test_fewer_rounds_are_taken_where_so_many_are_not_within_rho(tmp_path: Path) -> None:
    given = small_model_of_wide_records()
    learner = frugal(quiet(max_epochs=24), labels=400, run_dir=tmp_path)
    result = learner.fit(**given)
    assert len(result.history) < learner.round_size.rounds == 7
    assert len(result.labelled) == 400
    assert result.rho <= 1.0
    again = frugal(quiet(max_epochs=24), labels=400, run_dir=tmp_path).fit(**small_model_of_wide_records())
    assert again.labelled.tolist() == result.labelled.tolist()


def test_a_run_that_is_interrupted_keeps_the_rounds_it_took(tmp_path: Path) -> None:
    def stop(record: RoundRecord, model: Net) -> None:
        raise KeyboardInterrupt

    whole = frugal(quiet(max_epochs=24), labels=400, run_dir=tmp_path / "a").fit(**small_model_of_wide_records())
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        frugal(quiet(max_epochs=24), labels=400, run_dir=tmp_path / "b").fit(
            **small_model_of_wide_records(), on_round=stop
        )
    gone_on = frugal(quiet(max_epochs=24), labels=400, run_dir=tmp_path / "b").fit(**small_model_of_wide_records())
    assert gone_on.labelled.tolist() == whole.labelled.tolist()


def test_rounds_of_ones_own_are_not_made_fewer(tmp_path: Path) -> None:
    sizes = EvenRounds(labels=400, rounds=7)
    with pytest.raises(RhoTooSmall, match="Fewer rounds"):
        frugal(quiet(max_epochs=24), labels=400, run_dir=tmp_path, round_size=sizes).fit(
            **small_model_of_wide_records()
        )
