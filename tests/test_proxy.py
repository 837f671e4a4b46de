"""A proxy selects for the model that is delivered."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from al_lightning import Budget, WarmStart
from al_lightning.errors import RunMismatch
from al_lightning.fit import resume as fit_resume
from al_lightning.report.page import write_report
from al_lightning.result import Result
from al_lightning.round_size import Fixed, Planned
from tests.helpers import CLASSES, WIDTH, Net, ids_in, learner, net, pool_of, quiet

SMALL, LARGE = 4, 32


def run(folder: Path, model: Net, trainer: L.Trainer | None = None, **kwargs: Any) -> Result:
    settings: dict[str, Any] = {"fit": WarmStart("reset", final="initial")}
    return learner(folder, trainer, **{**settings, **kwargs}).fit(model, pool_of())


def weights(model: Net) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def training_flops(hidden: int) -> int:
    """Of a record: a forward pass, the gradients of all weights, and of the hidden layer."""
    first, second = 2 * WIDTH * hidden, 2 * hidden * CLASSES
    return 2 * first + 3 * second


def test_the_proxy_selects_as_it_would_alone_and_the_model_is_trained_once_on_what_it_chose(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", net(hidden=SMALL), fit=WarmStart("reset"))
    model, proxy = net(1, hidden=LARGE), net(hidden=SMALL)
    result = run(tmp_path / "both", model, proxy=proxy)

    assert result.labelled.tolist() == alone.labelled.tolist()
    assert result.model is model
    pool = pool_of()
    tried = set(ids_in(model.batches[:2], pool.eval_data))
    assert tried <= set(result.labelled[:12].tolist())  # for what a record costs it
    assert sorted(ids_in(model.batches[2:], pool.eval_data)) == sorted(2 * result.labelled.tolist())  # two epochs


def test_the_model_starts_from_its_own_weights(tmp_path: Path) -> None:
    seen: list[list[Tensor]] = []

    class Watch(Callback):
        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            assert isinstance(pl_module, Net)
            if pl_module.net[0].out_features == LARGE:
                seen.append(weights(pl_module))

    model = net(1, hidden=LARGE)
    before = weights(model)
    run(tmp_path, model, quiet(callbacks=[Watch()]), proxy=net(hidden=SMALL))
    assert len(seen) == 1  # callbacks do not see the trial
    assert all(torch.equal(a, b) for a, b in zip(before, seen[0], strict=True))


def test_the_bill_holds_the_proxy_against_a_training_of_the_model(tmp_path: Path) -> None:
    result = run(tmp_path, net(1, hidden=LARGE), proxy=net(hidden=SMALL))
    labels, small, large = len(result.labelled), training_flops(SMALL), training_flops(LARGE)

    reference = result.bill.reference
    assert reference is not None
    assert reference.flops == 2 * labels * large
    forward = 2 * (WIDTH * SMALL + SMALL * CLASSES)
    phases = {name: line.flops for name, line in result.bill.lines.items()}
    assert phases["train"] == 2 * (12 + 18) * small + 12 * large + 2 * labels * large
    assert phases["score"] == forward * (60 - 12 + 60 - 18)
    assert result.rho == pytest.approx(result.bill.flops / reference.flops)


def test_the_last_fit_gets_what_the_proxy_has_left_of_rho(tmp_path: Path) -> None:
    fit = WarmStart("keep", final="initial", final_epochs=0.1, rho=0.9)
    trainer = quiet(max_epochs=20, limit_val_batches=0)
    result = run(tmp_path, net(1, hidden=LARGE), trainer, fit=fit, proxy=net(hidden=2))
    assert result.rho == pytest.approx(0.9, abs=0.05)
    assert sum(record.final for record in result.history) == 1


@pytest.mark.parametrize("budget", [1.2, 1.4])
def test_a_budget_foresees_the_last_fit_of_the_model(tmp_path: Path, budget: float) -> None:
    trainer = quiet(limit_val_batches=0)
    parts = {"proxy": net(hidden=SMALL), "stop": [Budget(rho=budget)]}
    parts["preflight"] = False  # a batch of each module is more than a fit on four labels
    result = run(tmp_path, net(1, hidden=LARGE), trainer, round_size=Fixed(4), **parts)
    assert result.history[-1].final
    assert result.reason is not None
    assert result.reason.kind == "budget"
    assert 0.8 * budget < result.rho <= budget


@pytest.mark.parametrize("dies_in", ["proxy", "model"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_resume, "SHARE", math.inf)

    class Kill(Callback):
        def __init__(self, where: str) -> None:
            self.where = where

        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            assert isinstance(pl_module, Net)
            module = "model" if pl_module.net[0].out_features == LARGE else "proxy"
            if module == self.where and len(pl_module.batches) > 4:
                raise KeyError("killed")

    whole, cut = net(1, hidden=LARGE), net(1, hidden=LARGE)
    expected = run(tmp_path / "whole", whole, proxy=net(hidden=SMALL))
    with pytest.raises(KeyError, match="killed"):
        run(tmp_path / "cut", cut, quiet(callbacks=[Kill(dies_in)]), proxy=net(hidden=SMALL))
    gone_on = net(7, hidden=LARGE)  # its weights come from the folder
    result = run(tmp_path / "cut", gone_on, quiet(callbacks=[Kill("nowhere")]), proxy=net(8, hidden=SMALL))
    assert result.labelled.tolist() == expected.labelled.tolist()
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(gone_on), strict=True))
    assert result.bill.flops == expected.bill.flops  # each fit went on after its first epoch


def test_a_finished_run_hands_the_model_back_and_goes_on_with_the_proxy(tmp_path: Path) -> None:
    expected = run(tmp_path / "straight", net(1, hidden=LARGE), proxy=net(hidden=SMALL), stop=[Budget(labels=24)])
    first = net(1, hidden=LARGE)
    run(tmp_path / "run", first, proxy=net(hidden=SMALL), stop=[Budget(labels=18)])
    again = net(5, hidden=LARGE)
    run(tmp_path / "run", again, proxy=net(6, hidden=SMALL), stop=[Budget(labels=18)])
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    further = net(5, hidden=LARGE)
    more = run(tmp_path / "run", further, proxy=net(6, hidden=SMALL), stop=[Budget(labels=24)])
    assert more.labelled.tolist() == expected.labelled.tolist()
    assert sum(record.final for record in more.history) == 1


def test_activations_are_the_proxys(tmp_path: Path) -> None:
    found = []
    for kept in (False, True):
        fit = WarmStart("keep", freeze=("net.0",), cached=kept, final="initial")
        model = net(1, hidden=LARGE)
        result = run(tmp_path / str(kept), model, fit=fit, proxy=net(hidden=SMALL), stop_set=9)
        found.append((result.labelled.tolist(), result.history[-1].agreement))
    assert found[0] == found[1]


def test_the_report_says_whose_the_points_are(tmp_path: Path) -> None:
    run(tmp_path / "run", net(1, hidden=LARGE), proxy=net(hidden=SMALL))
    page = write_report([tmp_path / "run"], tmp_path / "page").page
    assert "Rounds are of the proxy, the star is the model it selected for." in page.read_text()


def test_what_does_not_go_with_a_proxy_is_refused(tmp_path: Path) -> None:
    proxy = net(hidden=SMALL)
    with pytest.raises(ValueError, match=r"WarmStart\(final=None\) with proxy=.*allowed: final=\"initial\""):
        learner(tmp_path, proxy=proxy)
    with pytest.raises(ValueError, match="final='previous'"):
        learner(tmp_path, proxy=proxy, fit=WarmStart("keep", final="previous"))
    fit = WarmStart("reset", final="initial")
    planned = Planned(labels=30, first=10, epochs=2, fit=fit)
    with pytest.raises(ValueError, match="Planned"):
        learner(tmp_path, proxy=proxy, fit=fit, round_size=planned)
    run(tmp_path, net(1, hidden=LARGE), proxy=proxy)
    with pytest.raises(RunMismatch, match="proxy"):
        run(tmp_path, net(1, hidden=LARGE), proxy=net(hidden=SMALL + 1))
