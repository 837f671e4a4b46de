"""Models that build layers late, are compiled, or lose weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torchmetrics import MeanMetric

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.errors import UnsupportedModel
from tests.helpers import CLASSES, WIDTH, Net, blobs, learner, net, pool_of, quiet


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


@pytest.mark.parametrize("mode", ["reset", "keep"])
@pytest.mark.parametrize("where", ["configure_model", "setup"])
def test_a_model_that_rebuilds_each_time_keeps_its_weights(tmp_path: Path, where: str, mode: Any) -> None:
    model, plain = Late(where, again=True), net(seed=3)
    result = learner(tmp_path / "late", fit=WarmStart(mode)).fit(model, datamodule=pool_of())
    other = learner(tmp_path / "early", fit=WarmStart(mode)).fit(plain, datamodule=pool_of())
    assert result.labelled.tolist() == other.labelled.tolist()
    assert torch.equal(model.net[0].weight, plain.net[0].weight)


def test_a_model_that_builds_other_layers_each_time_is_refused(tmp_path: Path) -> None:
    class Grows(Late):
        def setup(self, stage: str) -> None:
            self.net = net(hidden=4 + len(self.trainer.datamodule.labelled)).net

    with pytest.raises(
        UnsupportedModel, match=r"Grows\.setup or \.configure_model builds other weights.*Build the same"
    ):
        learner(tmp_path / "run").fit(Grows("setup"), datamodule=pool_of())


class SetsUp(Net):
    """Does in ``setup`` what models do there, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def setup(self, stage: str) -> None:
        self.stages.append(stage)


class Compiles(SetsUp):
    """Compiles its net, as the best-known template does."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self.net = torch.compile(self.net, backend="eager", dynamic=True)


class CompilesOnce(SetsUp):
    """Looks whether it has."""

    def setup(self, stage: str) -> None:
        if not self.stages:
            self.net = torch.compile(self.net, backend="eager", dynamic=True)
        super().setup(stage)


class ReadsItsTrainer(SetsUp):
    """Asks for the number of steps, and builds data and a metric."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.trainer.estimated_stepping_batches > 0
        self.data, self.metric = blobs(9), MeanMetric()


class LoadsWeights(SetsUp):
    """Loads pretrained weights into the layers it has."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.net.load_state_dict(net(seed=7).net.state_dict())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:Using `torch.compile")  # measuring FLOPs has hooks on all modules
@pytest.mark.parametrize("mode", ["reset", "shrink_perturb"])
@pytest.mark.parametrize("kind", [SetsUp, Compiles, CompilesOnce, ReadsItsTrainer, LoadsWeights])
def test_setup_runs_once_per_fit_and_start_weights_outlive_it(tmp_path: Path, kind: type[SetsUp], mode: Any) -> None:
    model, plain = kind(), net(seed=7)
    if kind is not LoadsWeights:
        model.net.load_state_dict(plain.net.state_dict())

    def run(folder: str, model: Any) -> Any:
        best = ModelCheckpoint(tmp_path / folder / "best", monitor="val_loss")
        trainer = quiet(callbacks=[best], enable_checkpointing=True)
        return learner(tmp_path / folder, trainer, fit=WarmStart(mode, freeze=("net.0",))).fit(
            model, datamodule=pool_of()
        )

    result, other = run("sets up", model), run("plain", plain)
    assert model.stages == ["fit"] * 3
    assert result.labelled.tolist() == other.labelled.tolist()
    assert [r.metrics for r in result.history] == [r.metrics for r in other.history]
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    # It goes on with a model that is compiled or not, and the best weights are read by the one that trained.
    again = run("sets up", kind())
    torch.testing.assert_close(again.model.get_parameter("net.0.weight"), plain.net[0].weight)
    if kind is Compiles:
        quiet(enable_checkpointing=False).validate(
            model, ckpt_path=result.best_model_path, datamodule=pool_of(), verbose=False
        )


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
