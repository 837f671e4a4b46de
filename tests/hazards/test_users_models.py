"""Models that build layers late, are compiled, or lose weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.errors import UnsupportedModel
from tests.helpers import CLASSES, WIDTH, Net, learner, net, pool_of, quiet


class Late(Net):
    """Builds its layers in ``configure_model`` or ``setup``, once, from what the pool knows."""

    def __init__(self, where: str, again: bool = False) -> None:
        super().__init__()
        del self.net
        self.where, self.again, self.started = where, again, []

    def _build(self, where: str) -> None:
        if where != self.where or (hasattr(self, "net") and not self.again):
            return
        assert self.trainer.datamodule.size == 60  # the usual reason to build late
        self.net = net(seed=3).net

    def configure_model(self) -> None:
        self._build("configure_model")

    def setup(self, stage: str) -> None:
        self._build("setup")

    def on_train_start(self) -> None:
        self.started.append(self.net[0].weight.detach().clone())


@pytest.mark.parametrize("where", ["configure_model", "setup"])
def test_layers_built_late_are_part_of_the_initial_weights(tmp_path: Path, where: str) -> None:
    model = Late(where)
    late = learner(tmp_path / "late").fit(model, datamodule=pool_of())
    early = learner(tmp_path / "early").fit(net(seed=3), datamodule=pool_of())
    assert all(torch.equal(w, net(seed=3).net[0].weight) for w in model.started)  # reset, every round
    assert len(model.started) == 3
    assert late.labelled.tolist() == early.labelled.tolist()
    assert torch.equal(late.model.net[0].weight, early.model.net[0].weight)


@pytest.mark.parametrize("where", ["configure_model", "setup"])
def test_a_model_that_rebuilds_each_time_is_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(
        UnsupportedModel, match=r"Late\.setup or \.configure_model rebuilds 'net\.0\.weight'.*Return early"
    ):
        learner(tmp_path / "run", quiet()).fit(Late(where, again=True), datamodule=pool_of())
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_are_the_initial_ones(tmp_path: Path) -> None:
    model = net(seed=9)
    started: list[Any] = []
    model.on_train_start = lambda: started.append(model.net[0].weight.detach().clone())  # type: ignore[method-assign]
    result = learner(tmp_path).fit(model, datamodule=pool_of())
    assert len(started) == 3
    assert all(torch.equal(w, net(seed=9).net[0].weight) for w in started)
    assert not torch.equal(result.model.net[0].weight, started[0])


@pytest.mark.parametrize("mode", ["reset", "keep"])
def test_a_compiled_model_round_trips_its_weights(tmp_path: Path, mode: Any) -> None:
    plain = net()
    compiled = torch.compile(net(), backend="eager", dynamic=True)
    checkpoint = {"callbacks": [ModelCheckpoint(tmp_path / "c", monitor="val_loss")], "enable_checkpointing": True}
    a = learner(tmp_path / "plain", fit=WarmStart(mode)).fit(plain, datamodule=pool_of())
    b = learner(tmp_path / "compiled", quiet(**checkpoint), fit=WarmStart(mode)).fit(compiled, datamodule=pool_of())
    assert a.labelled.tolist() == b.labelled.tolist()
    assert {p: line.flops for p, line in a.bill.lines.items()} == {p: line.flops for p, line in b.bill.lines.items()}
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(compiled._orig_mod.state_dict()[name], weight)
    # A run of the compiled model goes on with the plain one, and the other way round.
    again = learner(tmp_path / "compiled", quiet(**checkpoint), fit=WarmStart(mode)).fit(
        net(seed=4), datamodule=pool_of()
    )
    torch.testing.assert_close(again.model.net[0].weight, plain.net[0].weight)


def test_weights_tied_or_not_saved_do_no_harm(tmp_path: Path) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__(hidden=WIDTH)
            self.net = nn.Sequential(
                nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
            )
            self.net[2].weight = self.net[0].weight
            self.register_buffer("scratch", torch.zeros(1), persistent=False)

    model = Tied()
    result = learner(tmp_path, fit=WarmStart("shrink_perturb")).fit(model, datamodule=pool_of())
    assert len(result.history) == 3
    assert model.net[2].weight is model.net[0].weight


def test_a_learning_rate_scheduler_on_a_metric_and_gradient_accumulation_work(tmp_path: Path) -> None:
    class Plateau(Net):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters())
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    trainer = quiet(max_epochs=2, accumulate_grad_batches=2, gradient_clip_val=1.0)
    result = learner(tmp_path, trainer).fit(Plateau(), datamodule=pool_of())
    assert [r.epochs for r in result.history] == [2, 2, 2]
    assert result.bill.lines["train"].records == 2 * (12 + 18 + 24)


class Watched(Net):
    """Notes, as a fit starts, whether all of it is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.started = nn.Dropout(0.5), list[bool]()

    def on_train_start(self) -> None:
        self.started.append(all(module.training for module in self.modules()))


def test_a_model_that_is_evaluated_after_a_round_trains_on_in_training_mode(tmp_path: Path) -> None:
    model = Watched()
    learner(tmp_path, fit=WarmStart("reset", final="initial"), on_round=lambda record, module: module.eval()).fit(
        model, datamodule=pool_of()
    )
    assert model.started == [True] * 3  # the last round's labels are the final fit's
