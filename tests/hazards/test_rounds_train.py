"""Every round trains as a Trainer of its own would: epochs, schedules, early stopping, checkpoints, data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.round_size import Listed
from tests.helpers import Net, blobs, ids_in, learner, net, pool_of, quiet


class OneCycle(Net):
    """Anneals over exactly the steps Lightning announces, and notes them."""

    def __init__(self) -> None:
        super().__init__()
        self.announced: list[int] = []
        self.rate = 0.0
        self.last_rate: list[float] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        steps = int(self.trainer.estimated_stepping_batches)
        self.announced.append(steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        return super().training_step(batch, batch_idx)

    def on_train_end(self) -> None:
        self.last_rate.append(self.rate)


class Scripted(Net):
    """Logs values written down in advance, fit by fit and epoch by epoch, and stamps its weights with both."""

    def __init__(self, script: list[list[float]]) -> None:
        super().__init__()
        self.script, self.fits = script, 0
        self.register_buffer("stamp", torch.zeros(()))

    def on_fit_start(self) -> None:
        self.fits += 1

    def on_train_epoch_start(self) -> None:
        self.stamp.fill_(10 * self.fits + self.current_epoch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", self.script[max(0, self.fits - 1)][self.current_epoch])


def test_every_round_trains_all_its_epochs_on_all_its_labels(tmp_path: Path) -> None:
    data, model = blobs(), net()
    result = learner(tmp_path, quiet(max_epochs=3)).fit(model, datamodule=pool_of(data))
    assert [r.epochs for r in result.history] == [3, 3, 3]
    assert [r.labelled for r in result.history] == [12, 18, 24]
    seen, labelled = ids_in(model.batches, data), result.labelled.tolist()
    for size in (12, 18, 24):
        for _ in range(3):
            assert sorted(seen[:size]) == sorted(labelled[:size])
            seen = seen[size:]
    assert not seen


def test_a_one_cycle_schedule_anneals_in_every_round(tmp_path: Path) -> None:
    model = OneCycle()
    learner(tmp_path, quiet(max_epochs=3)).fit(model, datamodule=pool_of())
    assert model.announced == [3 * math.ceil(n / 8) for n in (12, 18, 24)]
    # The last step is taken at OneCycleLR's own minimum, max_lr / 25 / 1e4.
    assert model.last_rate == pytest.approx([0.1 / 25 / 1e4] * 3, rel=1e-3)


def test_a_shorter_round_announces_its_own_steps(tmp_path: Path) -> None:
    model = OneCycle()
    fit = WarmStart("keep", epochs=1, first_epochs=4, final="initial", final_epochs=5)
    result = learner(tmp_path, quiet(max_epochs=3), fit=fit).fit(model, datamodule=pool_of())
    assert [r.epochs for r in result.history] == [4, 1, 5]
    assert model.announced == [4 * 2, 1 * 3, 5 * 3]
    assert model.last_rate == pytest.approx([0.1 / 25 / 1e4] * 3, rel=1e-3)


def test_min_epochs_of_the_trainer_does_not_lengthen_a_short_round(tmp_path: Path) -> None:
    fit = WarmStart("keep", epochs=1)
    result = learner(tmp_path, quiet(max_epochs=3, min_epochs=3), fit=fit).fit(net(), datamodule=pool_of())
    assert [r.epochs for r in result.history] == [3, 1, 1]


def test_early_stopping_starts_anew_in_every_round(tmp_path: Path) -> None:
    # Carried over, the first round's 9 would be the best for ever and the others would stop after two epochs.
    model = Scripted([[9, 8, 7, 6, 5], [1, 2, 3, 4, 4], [0, 1, 1, 1, 1]])
    stop = EarlyStopping("score", mode="max", patience=2)
    trainer = quiet(max_epochs=5, callbacks=[stop])
    result = learner(tmp_path, trainer).fit(model, datamodule=pool_of())
    assert [r.epochs for r in result.history] == [3, 5, 4]
    assert stop.stopped_epoch == 0
    assert stop.wait_count == 0


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_the_best_weights_of_this_round_are_delivered(tmp_path: Path, mode: str, sign: int) -> None:
    # The first round's 9 stays unbeaten; the best of rounds two and three are their epochs 2 and 0.
    script = [[1, 9, 1], [2, 3, 5], [4, 3, 2]]
    model = Scripted([[sign * v for v in fit] for fit in script])
    stamps = []
    checkpoint = ModelCheckpoint(tmp_path / "mine", monitor="score", mode=mode)
    trainer = quiet(max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    run = learner(tmp_path / "run", trainer, on_round=lambda record, module: stamps.append(int(module.stamp)))
    result = run.fit(model, datamodule=pool_of())
    assert [r.metrics["score"] for r in result.history] == [sign * v for v in (9, 5, 4)]
    assert stamps == [11, 22, 30]
    assert int(model.stamp) == 30
    assert checkpoint.best_model_path == result.best_model_path  # the user's own object
    state = torch.load(result.best_model_path, weights_only=True)["state_dict"]
    assert int(state["stamp"]) == 30
    assert Path(result.best_model_path).is_relative_to(tmp_path / "mine")
    assert result.trainer is not None
    assert result.trainer.checkpoint_callback.best_model_path == result.best_model_path  # type: ignore[union-attr]
    files = sorted(p.relative_to(tmp_path / "mine").parts[0] for p in (tmp_path / "mine").rglob("*.ckpt"))
    assert files == ["round-001", "round-002", "round-003"]


def test_without_a_monitor_the_last_weights_are_delivered(tmp_path: Path) -> None:
    model = Scripted([[9, 1, 1]] * 3)
    trainer = quiet(max_epochs=3, enable_checkpointing=True, default_root_dir=tmp_path / "root")
    result = learner(tmp_path / "run", trainer).fit(model, datamodule=pool_of())
    assert int(model.stamp) == 32
    assert [r.metrics["score"] for r in result.history] == [1, 1, 1]
    weights = torch.load(result.best_model_path, weights_only=True)
    assert int(weights["stamp"]) == 32


def test_an_abort_ends_a_fit_in_spite_of_min_epochs(tmp_path: Path) -> None:
    model = Scripted([[1.0] * 50] * 9)
    stall = StallDetection("score", mode="max", patience=2, max_restarts=0)
    trainer = quiet(max_epochs=50, min_epochs=50, min_steps=10_000, callbacks=[stall])
    result = learner(tmp_path, trainer).fit(model, datamodule=pool_of())
    assert result.reason.kind == "gave_up"
    assert model.current_epoch < 5
    assert len(model.batches) == 3 * 2  # three epochs of two batches: the first value, and a patience of two


def test_the_pool_that_grows_is_seen_by_a_callback_of_the_user(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import Callback

    class Watcher(Callback):
        al_shared = True

        def __init__(self, pool: Any) -> None:
            self.pool, self.sizes = pool, []

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.sizes.append(len(self.pool.labelled))
            assert trainer.datamodule is self.pool

    class Holder(Callback):
        """Not shared itself: copied each round, with the pool and the model it holds kept as they are."""

        def __init__(self, pool: Any, model: Any) -> None:
            self.pool, self.model = pool, model

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            assert self.pool is pool
            assert self.model is pl_module

    pool, model = pool_of(), net()
    watcher, holder = Watcher(pool), Holder(pool, model)
    learner(tmp_path, quiet(callbacks=[watcher, holder])).fit(model, datamodule=pool)
    assert watcher.sizes == [12, 18, 24]


def test_the_same_seed_gives_the_same_run_whatever_the_global_generators_hold(tmp_path: Path) -> None:
    runs = []
    for i in range(2):
        torch.manual_seed(i)
        before = torch.get_rng_state()
        model = net()
        result = learner(tmp_path / str(i), seed=7).fit(model, datamodule=pool_of())
        assert torch.equal(torch.get_rng_state(), before)
        runs.append((result.labelled.tolist(), model.net[0].weight.detach().clone()))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    other = learner(tmp_path / "other", seed=8).fit(net(), datamodule=pool_of())
    assert other.labelled.tolist() != runs[0][0]


def test_growing_rounds_reload_the_data_without_being_told(tmp_path: Path) -> None:
    data, model = blobs(), net()
    trainer = quiet(max_epochs=1, reload_dataloaders_every_n_epochs=0)
    result = learner(tmp_path, trainer, round_size=Listed([8, 16, 32])).fit(model, datamodule=pool_of(data))
    assert [len(b) for b in model.batches] == [8] * (1 + 3 + 7)
    assert sorted(ids_in(model.batches[-7:], data)) == sorted(result.labelled.tolist())
