"""Runs after runs: on the same pool, on the same module, on a finished folder, after giving up, with other parts."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from al_lightning import Budget, StallDetection, WarmStart
from al_lightning.contrib import Replay
from al_lightning.errors import RunMismatch
from al_lightning.fit.plan import snapshot
from al_lightning.query import Margin, Random
from al_lightning.round_size import Fixed, Listed
from tests.helpers import Net, learner, net, pool_of, quiet


def test_a_pool_used_again_begins_again(tmp_path: Path) -> None:
    pool = pool_of()
    learner(tmp_path / "a", stop_set=10, seed=1).fit(net(), datamodule=pool)
    second = learner(tmp_path / "b", stop_set=10).fit(net(), datamodule=pool)
    alone = learner(tmp_path / "c", stop_set=10).fit(net(), datamodule=pool_of())
    assert second.labelled.tolist() == alone.labelled.tolist()
    assert len(pool.state.stop_set) == 10


def test_labels_the_user_brought_are_there_in_every_run(tmp_path: Path) -> None:
    pool = pool_of()
    pool.label([3, 4, 5], {3: 0, 4: 1, 5: 2})
    for folder in ("a", "b"):
        result = learner(tmp_path / folder, round_size=Fixed(6), stop=[Budget(labels=9)]).fit(net(), datamodule=pool)
        assert result.labelled[:3].tolist() == [3, 4, 5]
        assert len(result.labelled) == 9


def test_a_module_trained_by_another_run_is_pointed_out(tmp_path: Path) -> None:
    model = net()
    learner(tmp_path / "a").fit(model, datamodule=pool_of())
    with pytest.warns(UserWarning, match="Net was trained by the run in .*a, and those weights are now the initial"):
        learner(tmp_path / "b").fit(model, datamodule=pool_of())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(tmp_path / "b").fit(model, datamodule=pool_of())  # going on is no new run


def test_a_rule_that_changes_nothing_trains_nothing_again(tmp_path: Path) -> None:
    policy = WarmStart("keep", final="previous")
    first = learner(tmp_path, fit=policy, stop=[Budget(labels=18)]).fit(net(), datamodule=pool_of())
    again = learner(tmp_path, fit=policy, stop=[Budget(labels=18, hours=99)]).fit(net(), datamodule=pool_of())
    assert again.bill.flops == first.bill.flops
    more = learner(tmp_path, fit=policy, stop=[Budget(labels=24)]).fit(net(), datamodule=pool_of())
    assert len(more.labelled) == 24


class FallsAsleep(Net):
    """Logs a NaN loss from its second fit on."""

    fits = 0

    def on_fit_start(self) -> None:
        self.fits += 1

    def on_train_epoch_end(self) -> None:
        if self.fits > 1:
            for p in self.parameters():
                p.data.fill_(float("nan"))
        self.log("pulse", float("nan") if self.fits > 1 else 1.0)


def test_a_run_that_gave_up_delivers_the_last_weights_that_were_good(tmp_path: Path) -> None:
    model = FallsAsleep()
    rule = StallDetection("pulse", max_restarts=1)
    result = learner(tmp_path, stop=[rule], fit=WarmStart("keep")).fit(model, datamodule=pool_of())
    assert result.reason.kind == "gave_up"
    assert all(torch.isfinite(value).all() for value in snapshot(result.model).values())
    kept = torch.load(result.best_model_path, weights_only=True)
    assert all(torch.equal(value, kept[name]) for name, value in snapshot(result.model).items())


def test_a_restarted_round_is_planned_as_a_first_one(tmp_path: Path) -> None:
    class SecondFitStalls(Net):
        fits = 0

        def on_fit_start(self) -> None:
            self.fits += 1

        def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
            self.log("pulse", float("nan") if self.fits == 2 else 1.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    model = SecondFitStalls()
    policy = Replay(epochs=1, replay=0, freeze=("net.0",))
    rule = StallDetection("pulse", reference=0.0, mode="max")
    trainer = quiet(max_epochs=3)
    result = learner(tmp_path, trainer, stop=[rule], fit=policy).fit(model, datamodule=pool_of())
    second = result.history[1]
    assert (second.attempts, second.restarted, second.start, second.epochs) == (2, True, "initial", 3)
    assert [r.epochs for r in result.history] == [3, 3, 1]
    assert result.bill.lines["train"].records == 3 * 12 + 3 * 18 + 6  # all 18 in the restart, the 6 new ones after it


def test_metrics_are_of_the_best_weights_also_under_a_fixed_file_name(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(monitor="val_loss", filename="best", dirpath=tmp_path / "kept")
    trainer = quiet(max_epochs=6, enable_checkpointing=True, callbacks=[checkpoint])
    pool = pool_of()
    result = learner(tmp_path / "run", trainer, round_size=Listed([30])).fit(net(), datamodule=pool)
    with torch.inference_mode():
        x, y = pool.val_dataloader().dataset.tensors
        true = torch.nn.functional.cross_entropy(result.model(x), y)
    assert result.history[0].metrics["val_loss"] == pytest.approx(float(true), rel=0.2)
    assert result.history[0].metrics["val_loss"] == pytest.approx(_lowest(tmp_path / "run"), rel=1e-6)


def _lowest(folder: Path) -> float:
    (path,) = folder.parent.glob("kept/**/best*.ckpt")
    saved = torch.load(path, weights_only=True)["callbacks"]
    return float(next(state["best_model_score"] for name, state in saved.items() if "ModelCheckpoint" in name))


def test_settings_of_parts_that_are_no_dataclasses_belong_to_the_run(tmp_path: Path) -> None:
    class Offset(Margin):
        def __init__(self, offset: int) -> None:
            self.offset = offset

    class Sizes:
        def __init__(self, size: int) -> None:
            self.size = size

        def __call__(self, history: object) -> int:
            return self.size

    stop = [Budget(labels=10)]
    learner(tmp_path / "a", query=Random(), round_size=Sizes(5), stop=stop).fit(net(), datamodule=pool_of())
    with pytest.raises(RunMismatch, match=r"round_size.size: the folder has 5, this run has 6"):
        learner(tmp_path / "a", query=Random(), round_size=Sizes(6), stop=stop).fit(net(), datamodule=pool_of())


def test_an_interrupted_fit_by_hand_leaves_nothing_frozen() -> None:
    class Breaks(Net):
        def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
            if not self.net[0].weight.requires_grad:
                raise RuntimeError("interrupted")
            return super().training_step(batch, batch_idx)

    pool, model = pool_of(), Breaks()
    callback = Replay(epochs=1, replay=0, freeze=("net.0",))
    from al_lightning import DatasetOracle, fresh_trainer

    trainer = quiet(callbacks=[callback])
    pool.label(range(12), DatasetOracle())
    fresh_trainer(trainer).fit(model, datamodule=pool)
    pool.label(range(12, 18), DatasetOracle())
    with pytest.raises(RuntimeError, match="interrupted"):
        fresh_trainer(trainer).fit(model, datamodule=pool)
    assert all(p.requires_grad for p in model.parameters())
    assert len(pool.train_dataloader().dataset) == 18


def test_what_a_fit_is_told_is_of_that_fit_alone(tmp_path: Path) -> None:
    rounds: list[int] = []
    run = learner(tmp_path / "a")
    run.fit(net(), datamodule=pool_of(), on_round=lambda record, model: rounds.append(record.round), preflight=False)
    told = len(rounds)
    run.run_dir = tmp_path / "b"
    result = run.fit(net(), datamodule=pool_of())
    assert told == len(rounds) > 0
    assert result.bill.lines["preflight"].records > 0
