"""A rehearsal on one batch leaves everything as it was, is on the bill, and what it refuses is mended where it lies."""

from __future__ import annotations

import copy
import logging
import random
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import RandomSubset
from al_lightning.cli.problems import Classifier, digits
from al_lightning.cost.budget import Budget
from al_lightning.errors import FeaturesMissing, OutputMismatch, PreflightFailed, RunMismatch, UnknownMonitor
from al_lightning.features.source import Layer, RawInputs
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import BADGE, DistanceWeighted, Entropy, Margin, Random
from al_lightning.round_size import Fixed, Listed
from tests.helpers import CLASSES, WIDTH, Net, Records, blobs, learner, net, pool_of, quiet


class Stopped(Exception):
    """The first query has gone out."""


class Stops:
    """An oracle that ends the run as it is asked."""

    def ask(self, request: Any) -> None:
        raise Stopped

    def collect(self) -> dict[int, Any]:
        return {}


class Counts:
    """Answers with the class, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, id: int) -> int:
        self.asked.append(id)
        return id % CLASSES


# ---- nothing has moved --------------------------------------------------------------------------------------------


class Busy(Net):
    """Everything that a step can change: weights, BatchNorm, metrics, lists, its own random generators."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.noise, self.own = torch.Generator().manual_seed(3), np.random.default_rng(3)
        self.losses: list[float] = []
        self.steps, self.fails = 0, fails

    def forward(self, x: Tensor) -> Any:
        hidden = self.drop(self.norm(self.net[0](x)))
        return {} if self.fails else self.net[2](hidden)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.seen += len(x)
        self.steps += 1
        x = x + 0.1 * torch.randn(x.shape, generator=self.noise) + float(self.own.normal()) + random.random()
        logits = self.net[2](self.drop(self.norm(self.net[0](x))))
        self.accuracy(logits, y)
        self.log("acc", self.accuracy)
        loss = nn.functional.cross_entropy(logits, y)
        self.losses.append(loss.item())
        return loss

    validation_step = None  # type: ignore[assignment]


class Collects(L.Callback):
    """A callback of the user's that keeps a curve, and moves the model."""

    def __init__(self) -> None:
        self.curve: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.curve.append(1.0)


class Shuffled(L.LightningDataModule):
    """A DataModule of the user's with a sampler's generator and something that it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.loaded = torch.Generator().manual_seed(5), [0]

    def train_dataloader(self) -> Any:
        self.loaded.append(len(self.loaded))
        return torch.utils.data.DataLoader(blobs(), batch_size=8, shuffle=True, generator=self.generator)


def state_of(model: Any, trainer: L.Trainer, pool: PoolDataModule) -> dict[str, Any]:
    """All that could have moved."""
    tensors = [*model.parameters(), *model.buffers(), *model.accuracy.metric_state.values()]
    return {
        "tensors": [t.detach().clone() for t in tensors],
        "modes": [m.training for m in model.modules()],
        "grads": [p.grad is None for p in model.parameters()],
        "own": (list(model.losses), model.steps, model.noise.get_state(), model.own.bit_generator.state),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[union-attr]
        "python": random.getstate(),
        "pool": (pool.size, pool.train_ids, pool.labelled.tolist(), pool.scoring_batch_size, pool.stand_in),
        "inner": pool.inner.generator.get_state(),  # type: ignore[union-attr]
        "curve": [list(c.curve) for c in trainer.callbacks if isinstance(c, Collects)],  # type: ignore[attr-defined]
        "trainer": (trainer.state.fn, trainer.global_step, trainer.current_epoch, dict(trainer.callback_metrics)),
    }


def same(a: Any, b: Any) -> bool:
    """Whether two states are the same to the bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("fails", [False, True], ids=["passed", "refused"])
@pytest.mark.parametrize("copied", [True, False], ids=["copied", "not copied"])
def test_nothing_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool, copied: bool) -> None:
    class Uncopied(Busy):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies of me")

    torch.manual_seed(0)
    model, trainer = (Busy if copied else Uncopied)(fails), quiet(callbacks=[Collects()])
    pool = PoolDataModule(Shuffled(), task="multiclass")
    run = learner(tmp_path / "run", trainer, oracle=Stops(), query=Margin())
    pool.setup()
    before = state_of(model, trainer, pool)
    with pytest.raises(OutputMismatch if fails else Stopped):
        run.fit(model, datamodule=pool)
    after = state_of(model, trainer, pool)
    for name, value in before.items():
        assert same(value, after[name]), name


@pytest.mark.parametrize("fit", [WarmStart("reset"), WarmStart("keep", epochs=1, stable=True, final="previous")])
def test_a_run_goes_as_it_goes_without(tmp_path: Path, fit: WarmStart) -> None:
    def go(preflight: bool) -> Any:
        torch.manual_seed(0)
        model, callback = Busy(), Collects()
        trainer = quiet(callbacks=[callback])
        settings = {"fit": copy.deepcopy(fit), "preflight": preflight}
        result = learner(tmp_path / str(preflight), trainer, **settings).fit(
            model, datamodule=PoolDataModule(Shuffled(), task="multiclass")
        )
        return (
            result.labelled.tolist(),
            model.losses,
            [r.metrics for r in result.history],
            callback.curve,
            torch.rand(1),
        )

    assert same(go(True), go(False))


LOSSES: list[Tensor] = []
STEPS = 0


def test_what_code_collects_around_itself_is_of_the_run_alone(tmp_path: Path) -> None:
    inner: list[int] = []
    count = 0

    class Notes(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            global STEPS
            nonlocal count
            STEPS, count = STEPS + 1, count + 1
            loss = super().training_step(batch, batch_idx)
            inner.append(len(batch[0]))
            LOSSES.append(loss.detach())
            return loss

    class Spy(Margin):
        def payload(self, outputs: Any) -> Any:
            inner.append(-len(outputs.logits))
            return super().payload(outputs)

    learner(tmp_path, query=Spy(), round_size=Listed([12, 6])).fit(Notes(), datamodule=pool_of())
    assert len(LOSSES) == STEPS == count == 2 * (2 + 3)
    assert sum(n for n in inner if n > 0) == 2 * (12 + 18)
    assert -sum(n for n in inner if n < 0) == 48


def test_files_and_loggers_of_the_user_see_nothing(tmp_path: Path) -> None:
    written = tmp_path / "checkpoints"
    trainer = quiet(
        logger=CSVLogger(tmp_path / "logs"),
        default_root_dir=tmp_path,
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(written, monitor="val_acc", mode="max"), EarlyStopping("val_loss")],
    )
    with pytest.raises(Stopped):
        learner(tmp_path / "run", trainer, oracle=Stops()).fit(net(), datamodule=pool_of())
    assert not written.exists()
    assert not list(tmp_path.rglob("*.csv"))
    assert not list((tmp_path / "run").rglob("preflight"))


# ---- what it costs ------------------------------------------------------------------------------------------------


def test_it_is_on_the_bill_as_a_phase_of_its_own(tmp_path: Path) -> None:
    result = learner(tmp_path / "with").fit(net(), datamodule=pool_of())
    line = result.bill.lines["preflight"]
    assert line.records == 8 + 8 + 24  # a batch of each kind: training, validation, scoring
    forward = 2 * (WIDTH * 8 + 8 * CLASSES)
    assert line.flops == 8 * (3 * forward - 2 * WIDTH * 8) + (8 + 24) * forward
    without = learner(tmp_path / "without", preflight=False).fit(net(), datamodule=pool_of())
    assert "preflight" not in without.bill.lines
    assert without.bill.flops == result.bill.flops - line.flops
    assert "preflight" in str(result.bill)


def test_it_takes_less_than_a_second_on_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    train, val, _ = digits()
    pool = PoolDataModule(train, val=val, task="multiclass", batch_size=16, features=RawInputs())
    fit = WarmStart("keep", first_epochs=0.1, epochs=0.05, final="previous", final_epochs=0.05, stable=True)
    parts = {
        "query": DistanceWeighted(Margin()),
        "fit": fit,
        "candidates": RandomSubset(0.1),
        "round_size": Listed([90, 9]),
    }

    def seconds(name: str) -> float:
        run = learner(tmp_path / name, quiet(max_epochs=24), **parts)
        return run.fit(Classifier(in_features=64, classes=10), datamodule=pool).bill.lines["preflight"].seconds

    assert min(map(seconds, "abc")) < 1  # other work may be under way on the machine


# ---- what it goes through -----------------------------------------------------------------------------------------


class Mixing(L.Callback):
    """A callback of the user's without which no step works."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.weight = torch.ones(CLASSES)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.weight = torch.ones(CLASSES)


def test_a_step_may_need_what_a_callback_sets_up(tmp_path: Path) -> None:
    class Weighted(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1], weight=self.weight)

        def on_train_epoch_end(self) -> None:
            del self.weight

    result = learner(tmp_path, quiet(callbacks=[Mixing()])).fit(Weighted(), datamodule=pool_of())
    assert len(result.labelled) == 24


def test_where_no_label_can_be_made_up_no_step_is_rehearsed_and_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Tags(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1].float())

    pool = PoolDataModule(Records([(x, None) for x in blobs().tensors[0]]), task="multilabel", batch_size=8)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"), pytest.raises(Stopped):
        learner(tmp_path, oracle=Stops()).fit(Tags(), datamodule=pool)
    assert "no training step is rehearsed" in caplog.text


def test_a_pool_without_labels_is_rehearsed_with_classes_that_are_allowed(tmp_path: Path) -> None:
    pool = PoolDataModule(Records([(x, -1) for x in blobs().tensors[0]]), task="multiclass", batch_size=8)

    class Fails(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError(f"classes {sorted(set(batch[1].tolist()))}")

    with pytest.raises(PreflightFailed, match=r"Fails.*training_step.*classes \[0, 1\]") as error:
        learner(tmp_path, oracle=Stops()).fit(Fails(), datamodule=pool)
    assert isinstance(error.value.__cause__, RuntimeError)


def test_both_modules_are_rehearsed_where_one_selects_for_the_other(tmp_path: Path) -> None:
    class Fails(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("the large one")

    proxied = {"proxy": net(hidden=2), "fit": WarmStart("reset", final="initial")}
    with pytest.raises(PreflightFailed, match="the large one"):
        learner(tmp_path, oracle=Stops(), **proxied).fit(Fails(), datamodule=pool_of())
    proxied["proxy"] = Fails()
    with pytest.raises(PreflightFailed, match="the large one"):
        learner(tmp_path, oracle=Stops(), **proxied).fit(net(), datamodule=pool_of())


@pytest.mark.parametrize("scheduler", ["OneCycleLR", "CosineAnnealingLR"])
def test_a_schedule_is_as_long_as_it_will_be(tmp_path: Path, scheduler: str) -> None:
    class Scheduled(Net):
        def configure_optimizers(self) -> Any:
            steps = self.trainer.estimated_stepping_batches
            assert steps == self.trainer.max_epochs * -(-len(self.trainer.train_dataloader.dataset) // 8)
            assert steps in (6 * 2, 6 * 3)
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            options = {"total_steps": steps, "max_lr": 0.1} if scheduler == "OneCycleLR" else {"T_max": steps - 5}
            made = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": made, "interval": "step"}}

    result = learner(tmp_path, quiet(max_epochs=6), round_size=Listed([12, 6])).fit(Scheduled(), datamodule=pool_of())
    assert len(result.labelled) == 18


# ---- mended where it lies -----------------------------------------------------------------------------------------


def test_what_was_refused_is_mended_in_the_same_folder(tmp_path: Path) -> None:
    asked = Counts()
    with pytest.raises(FeaturesMissing):
        learner(tmp_path, query=DistanceWeighted(Margin()), oracle=FunctionOracle(asked)).fit(
            net(), datamodule=pool_of()
        )
    with pytest.raises(FeaturesMissing, match="nowhere"):
        learner(tmp_path, query=DistanceWeighted(Margin()), oracle=FunctionOracle(asked)).fit(
            net(), datamodule=pool_of(features=Layer("nowhere"))
        )
    with pytest.raises(UnknownMonitor):
        learner(tmp_path, stop=RoundPlateau("accuracy", "max"), oracle=FunctionOracle(asked)).fit(
            net(), datamodule=pool_of()
        )
    assert asked.asked == []
    changed = {
        "query": DistanceWeighted(Margin()),
        "candidates": RandomSubset(0.5),
        "seed": 3,
        "round_size": 9,
        "stop_set": 4,
    }
    result = learner(tmp_path, **changed, stop=Budget(labels=18), oracle=FunctionOracle(asked)).fit(
        net(hidden=9), datamodule=pool_of(features=RawInputs())
    )
    assert result.labelled.tolist() == asked.asked
    assert len(asked.asked) == 18


CHANGES: list[dict[str, Any]] = [
    {"query": Entropy()},
    {"candidates": RandomSubset(0.5)},
    {"query": DistanceWeighted(Margin()), "features": RawInputs()},
    {"fit": WarmStart("keep")},
    {"hidden": 5},
    {"epochs": 3},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_labels_that_people_gave_stay_when_settings_change_before_a_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    class Fails(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("never trained")

    asked = Counts()
    with pytest.raises(RuntimeError, match="never trained"):
        learner(tmp_path, oracle=FunctionOracle(asked), preflight=False).fit(Fails(), datamodule=pool_of())
    assert len(asked.asked) == 12
    change = dict(change)
    pool, model = pool_of(features=change.pop("features", None)), net(hidden=change.pop("hidden", 8))
    trainer = quiet(max_epochs=change.pop("epochs", 2))
    result = learner(tmp_path, trainer, oracle=FunctionOracle(asked), **change).fit(model, datamodule=pool)
    assert result.labelled.tolist() == asked.asked
    assert len(asked.asked) == 24
    again = learner(tmp_path, trainer, oracle=FunctionOracle(asked), **change).fit(model, datamodule=pool)
    assert again.labelled.tolist() == asked.asked  # the folder holds the new settings
    assert len(asked.asked) == 24


def test_after_a_fit_what_no_work_depends_on_may_still_change(tmp_path: Path) -> None:
    asked = Counts()
    with pytest.raises(OutputMismatch):
        learner(tmp_path, query=BADGE(), oracle=FunctionOracle(asked), preflight=False).fit(net(), datamodule=pool_of())
    assert len(asked.asked) == 12  # a fit was paid
    model = net()
    result = learner(tmp_path, query=DistanceWeighted(Margin()), oracle=FunctionOracle(asked)).fit(
        model, datamodule=pool_of(features=RawInputs())
    )
    assert result.labelled.tolist() == asked.asked
    assert len(model.batches) == 2 * (3 + 3)  # that fit is not made again


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"query": Random()}, r"query\.class.*records were queried by it"),
        ({"candidates": RandomSubset(0.5)}, r"candidates\.class.*records were queried by it"),
        ({"fit": WarmStart("keep")}, r"fit\.mode.*a fit was trained by it"),
        ({"seed": 9}, r"seed: the folder has 0, this run has 9; records were drawn by it"),
        ({"round_size": 4}, r"round_size\.class.*records were drawn by it"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_what_work_depends_on_may_not_change_and_it_says_why(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    result = learner(tmp_path).fit(net(), datamodule=pool_of())
    with pytest.raises(RunMismatch, match=why):
        learner(tmp_path, **change).fit(net(), datamodule=pool_of())
    again = learner(tmp_path).fit(net(), datamodule=pool_of(features=RawInputs()))  # nothing has asked for features
    assert again.labelled.tolist() == result.labelled.tolist()


def test_features_that_records_were_compared_by_may_not_change(tmp_path: Path) -> None:
    learner(tmp_path, query=DistanceWeighted(Margin())).fit(net(), datamodule=pool_of(features=RawInputs()))
    with pytest.raises(RunMismatch, match="records were compared by them"):
        learner(tmp_path, query=DistanceWeighted(Margin())).fit(net(), datamodule=pool_of(features=Layer("net.0")))


# ---- what is plainly meant simply works ---------------------------------------------------------------------------


def test_a_number_is_a_round_size_and_one_rule_need_not_be_in_a_list(tmp_path: Path) -> None:
    run = learner(tmp_path, round_size=9, stop=Budget(labels=18))
    assert run.round_size == Fixed(9)
    assert len(run.fit(net(), datamodule=pool_of()).labelled) == 18


def test_without_a_seed_a_run_draws_one_and_keeps_it(tmp_path: Path) -> None:
    def go(name: str, **more: Any) -> list[int]:
        state = random.getstate(), torch.get_rng_state()
        result = learner(tmp_path / name, seed=None, **more).fit(net(), datamodule=pool_of())
        assert same(state, (random.getstate(), torch.get_rng_state()))
        return result.labelled.tolist()

    first = go("a", stop=Budget(labels=12))
    whole = go("a")
    assert whole[:12] == first
    assert len(whole) == 24
    assert go("b")[:12] != first


class Counted(Net):
    """Counts in its class, as people do who build a module more than once."""

    seen, sizes = 0, set[int]()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        Counted.seen += len(batch[0])
        Counted.sizes.add(len(batch[0]))
        return super().training_step(batch, batch_idx)


def test_what_classes_count_is_what_the_run_trained_on(tmp_path: Path) -> None:
    Counted.seen, Counted.sizes = 0, set()
    sizes = Counted.sizes
    result = learner(tmp_path).fit(Counted(), datamodule=pool_of())
    assert Counted.seen == result.bill.records_trained == 2 * (12 + 18 + 24)
    assert Counted.sizes is sizes
    assert sizes == {8, 4, 2}


def test_a_rho_that_is_kept_pays_for_a_few_records(tmp_path: Path) -> None:
    kept = WarmStart("keep", final="previous", final_epochs=0.25, rho=4.0)
    few = learner(tmp_path / "few", fit=kept).fit(net(), datamodule=pool_of()).bill.lines["preflight"]
    whole = learner(tmp_path / "whole").fit(net(), datamodule=pool_of()).bill.lines["preflight"]
    assert few.records < whole.records / 2


class NeedsFour(Net):
    """Compares records of a batch with each other."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if len(batch[0]) < 4:
            raise ValueError("a batch of four, at least")
        return super().training_step(batch, batch_idx)


def test_a_loss_that_needs_more_records_is_tried_on_a_whole_batch(tmp_path: Path) -> None:
    kept = WarmStart("keep", final="previous", final_epochs=0.25, rho=6.0)
    sizes = Listed([16, 8, 8])
    result = learner(tmp_path, fit=kept, round_size=sizes).fit(NeedsFour(), datamodule=pool_of())
    assert len(result.labelled) == 32
