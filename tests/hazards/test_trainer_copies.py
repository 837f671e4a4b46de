"""What Trainers are taken, what their copies share, and that the user's own is left alone."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, OnExceptionCheckpoint
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from al_lightning.errors import UnsupportedTrainer
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.query import Margin
from al_lightning.scoring.trainer import score
from tests.helpers import Net, blobs, learner, net, pool_of, quiet


class Holder(Callback):
    """Holds a thing, and each copy of it a copy of the thing."""

    al_shared = False

    def __init__(self, thing: Any) -> None:
        self.thing = thing


class Weights(Callback):
    """Notes how many steps each fit took, and whether its weights moved."""

    al_shared = True

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.moved: list[bool] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before = pl_module.net[0].weight.detach().clone()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.steps.append(trainer.global_step)
        self.moved.append(not torch.equal(self._before, pl_module.net[0].weight))


# ---- refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "word"),
    [
        (lambda t: t.fit(net(), datamodule=_labelled()), "fit"),
        (lambda t: t.validate(net(), datamodule=_labelled(), verbose=False), "validate"),
    ],
)
def test_a_trainer_that_has_run_is_refused_before_anything_is_spent(tmp_path: Path, use: Any, word: str) -> None:
    trainer = quiet(max_epochs=1)
    use(trainer)
    with pytest.raises(UnsupportedTrainer, match=rf"already run {word}\(\).*0 epochs.*ActiveLearner\(lambda"):
        learner(tmp_path / "run", trainer)
    assert not (tmp_path / "run").exists()


def _labelled() -> Any:
    pool = pool_of()
    pool.label(pool.draw(12), {int(i): int(i) % 3 for i in pool.draw(12)})
    return pool


def test_a_trainer_used_in_between_is_refused_too(tmp_path: Path) -> None:
    trainer = quiet(max_epochs=1)
    run = learner(tmp_path / "run", trainer)
    trainer.fit(net(), datamodule=_labelled())
    with pytest.raises(UnsupportedTrainer, match="already run"):
        run.fit(net(), datamodule=pool_of())


def test_strategies_that_spawn_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTrainer, match=r"DDPStrategy.*'spawn'.*use strategy='ddp'"):
        learner(tmp_path, quiet(strategy="ddp_spawn", devices=2))


def test_strategies_that_shard_weights_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

    for kind in (FSDPStrategy, ModelParallelStrategy):
        trainer = quiet()
        strategy = object.__new__(kind)  # neither can be built without an accelerator
        monkeypatch.setattr(trainer._accelerator_connector, "strategy", strategy)
        with pytest.raises(UnsupportedTrainer, match=f"{kind.__name__} shards weights"):
            learner(tmp_path, trainer)


@pytest.mark.parametrize("make", [threading.Lock, lambda: open(__file__), lambda: (i for i in "ab")])  # noqa: SIM115
def test_an_attribute_that_cannot_be_copied_is_named(tmp_path: Path, make: Any) -> None:
    thing = make()
    with pytest.raises(UnsupportedTrainer, match=r"because of Holder\.thing .*al_shared = True.*lambda: Trainer"):
        learner(tmp_path, quiet(callbacks=[Holder(thing)]))
    if hasattr(thing, "close"):
        thing.close()


def test_a_tensor_with_a_graph_is_named(tmp_path: Path) -> None:
    thing = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(UnsupportedTrainer, match=r"because of Holder\.thing \(Tensor\)"):
        learner(tmp_path, quiet(callbacks=[Holder(thing)]))


def test_al_shared_is_a_way_out(tmp_path: Path) -> None:
    class Shared(Holder):
        al_shared = True
        fits = 0

        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.fits += 1

    callback = Shared(threading.Lock())
    result = learner(tmp_path, quiet(callbacks=[callback])).fit(net(), datamodule=pool_of())
    assert len(result.history) == 3
    assert callback.fits == 3


def test_a_function_that_builds_the_trainer_is_a_way_out(tmp_path: Path) -> None:
    lock = threading.Lock()
    seen: list[Any] = []

    class Uses(Holder):
        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen.append(self.thing)

    run = learner(tmp_path, lambda: quiet(max_epochs=3, callbacks=[Uses(lock)]))
    result = run.fit(net(), datamodule=pool_of())
    assert [r.epochs for r in result.history] == [3, 3, 3]
    assert seen == [lock] * 3


def test_a_function_that_returns_a_used_trainer_is_refused(tmp_path: Path) -> None:
    used = quiet(max_epochs=1)
    used.fit(net(), datamodule=_labelled())
    with pytest.raises(UnsupportedTrainer, match="already run"):
        learner(tmp_path, lambda: used)


# ---- left alone ------------------------------------------------------------------------------------------------


def test_the_trainer_has_not_run_after_a_run(tmp_path: Path) -> None:
    callback = Holder([1])
    trainer = quiet(max_epochs=3, min_epochs=2, callbacks=[callback], limit_predict_batches=7)
    callbacks = list(trainer.callbacks)
    result = learner(tmp_path, trainer).fit(net(), datamodule=pool_of())
    assert trainer.state.fn is None
    assert trainer.callbacks == callbacks
    assert trainer.callbacks[0] is callback
    assert (trainer.max_epochs, trainer.min_epochs, trainer.limit_predict_batches) == (3, 2, 7)
    assert (trainer.current_epoch, trainer.global_step, trainer.should_stop) == (0, 0, False)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 3 * (2 + 3 + 3)  # where its loggers stand
    assert trainer.train_dataloader is None
    assert trainer.model is result.model  # so that trainer.test() knows it


def test_the_same_trainer_serves_two_runs(tmp_path: Path) -> None:
    trainer = quiet()
    first = learner(tmp_path / "a", trainer).fit(net(), datamodule=pool_of())
    second = learner(tmp_path / "b", trainer).fit(net(), datamodule=pool_of())
    assert first.labelled.tolist() == second.labelled.tolist()
    assert [r.metrics for r in first.history] == [r.metrics for r in second.history]


def test_no_copy_clones_the_dataset_or_the_model(tmp_path: Path) -> None:
    class Data(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, n: int, seed: int) -> None:
            self.inner = blobs(n, seed=seed)

        def __len__(self) -> int:
            return len(self.inner)

        def __getitem__(self, i: int) -> Any:
            return self.inner[i]

        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("cloned")

    class Whole(Net):
        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("cloned")

    data, model = Data(60, 0), Whole()
    pool = pool_of(data, val=Data(9, 1), eval_view=Data(60, 0))
    trainer = quiet(callbacks=[Holder(pool), Holder(data), Holder(model), Holder(model.net)])
    # The learner has not met model and data when it looks at the Trainer first, so they are passed by a function.
    assert len(learner(tmp_path, lambda: trainer_like(trainer)).fit(model, datamodule=pool).history) == 3
    copy = fresh_trainer(trainer, model=model, datamodule=pool)
    assert [c.thing for c in copy.callbacks if isinstance(c, Holder)] == [pool, data, model, model.net]


def trainer_like(trainer: L.Trainer) -> L.Trainer:
    """Another Trainer with the same callbacks."""
    return quiet(callbacks=[c for c in trainer.callbacks if isinstance(c, Holder)])


# ---- Lightning's own automatisms -------------------------------------------------------------------------------


def test_a_slurm_checkpoint_is_not_loaded_into_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    stale = net(seed=5)
    writer = quiet(max_epochs=2, default_root_dir=root)
    writer.fit(stale, datamodule=_labelled())
    writer.save_checkpoint(root / "hpc_ckpt_1.ckpt")
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0",
                        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert SLURMEnvironment.detect()

    # The hazard is real here: Lightning alone loads the file, and trains nothing.
    alone, bitten = quiet(max_epochs=2, default_root_dir=root), net(seed=1)
    alone.fit(bitten, datamodule=_labelled())
    assert bitten.batches == []
    assert torch.equal(bitten.net[0].weight, stale.net[0].weight)

    watch, model, pool = Weights(), net(seed=1), pool_of()
    trainer = quiet(max_epochs=2, default_root_dir=root, callbacks=[watch])
    scored = []

    class Spy(Margin):
        def payload(self, outputs: Any) -> Any:
            scored.append((model.net[0].weight.detach().clone(), len(outputs.logits)))
            return super().payload(outputs)

    delivered: list[Any] = []
    run = learner(tmp_path / "run", trainer, query=Spy(),
                  on_round=lambda record, module: delivered.append(module.net[0].weight.detach().clone()))  # fmt: skip
    result = run.fit(model, datamodule=pool)
    assert [r.epochs for r in result.history] == [2, 2, 2]
    assert watch.steps == [4, 6, 6]
    assert watch.moved == [True] * 3
    assert sum(n for _, n in scored) == 48 + 42
    assert all(any(torch.equal(w, d) for d in delivered[:2]) for w, _ in scored)
    assert not any(torch.equal(w, stale.net[0].weight) for w, _ in scored)


def test_an_on_exception_checkpoint_is_not_loaded_into_rounds(tmp_path: Path) -> None:
    folder = tmp_path / "exceptions"
    crashed = quiet(max_epochs=5, callbacks=[OnExceptionCheckpoint(folder), _Crash()], enable_checkpointing=True)
    stale = net(seed=5)
    with pytest.raises(RuntimeError, match="crash"), warnings.catch_warnings(action="ignore"):
        crashed.fit(stale, datamodule=_labelled())
    assert list(folder.glob("*.ckpt"))
    watch = Weights()
    trainer = quiet(max_epochs=2, callbacks=[OnExceptionCheckpoint(folder), watch], enable_checkpointing=True)
    result = learner(tmp_path / "run", trainer).fit(net(seed=1), datamodule=pool_of())
    assert [r.epochs for r in result.history] == [2, 2, 2]
    assert watch.moved == [True] * 3


class _Crash(Callback):
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 3:
            raise RuntimeError("crash")


def test_a_trainer_built_by_the_lightning_cli_runs_all_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's use of jsonargparse
    args = [f"--trainer.{k}={v}" for k, v in {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False,
            "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
            "default_root_dir": tmp_path / "root"}.items()]  # fmt: skip
    cli = LightningCLI(Net, run=False, args=args, seed_everything_default=False)
    assert any(isinstance(c, SaveConfigCallback) for c in cli.trainer.callbacks)
    result = learner(tmp_path / "run", cli.trainer).fit(cli.model, datamodule=pool_of())
    assert [r.epochs for r in result.history] == [2, 2, 2]


def test_checkpoints_hold_no_state_that_a_round_restores(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Stateful(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"x": 1}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            raise AssertionError("callback state was restored")

    class Module(Net):
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            raise AssertionError("a whole checkpoint was restored")

    checkpoint = ModelCheckpoint(tmp_path / "ckpt", monitor="val_acc", mode="max")
    trainer = quiet(max_epochs=2, callbacks=[checkpoint, Stateful()], enable_checkpointing=True)
    pool = pool_of()
    learner(tmp_path / "run", trainer).fit(Module(), datamodule=pool)
    assert len(pool.labelled) == 24


# ---- the user's prediction writers ------------------------------------------------------------------------------


class Writer(BasePredictionWriter):
    """The user's own, which must not hear of scoring."""

    al_shared = True

    def __init__(self) -> None:
        super().__init__("batch_and_epoch")
        self.calls = 0

    def write_on_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1

    def write_on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.calls += 1


def test_prediction_writers_do_not_fire_while_scoring(tmp_path: Path) -> None:
    writer = Writer()
    trainer = quiet(callbacks=[writer])
    result = learner(tmp_path, trainer, stop_set=6).fit(net(), datamodule=pool_of())
    assert writer.calls == 0
    assert trainer.callbacks[0] is writer
    assert result.trainer is not None
    assert any(c is writer for c in result.trainer.callbacks)


def test_prediction_writers_are_back_after_scoring() -> None:
    writer, pool, model = Writer(), _labelled(), net()
    trainer = fresh_trainer(quiet(callbacks=[writer], limit_predict_batches=2))
    trainer.fit(model, datamodule=pool)
    before = list(trainer.callbacks)
    scores = score(trainer, model, pool, Margin())
    assert len(scores.ids) == 48
    assert writer.calls == 0
    assert trainer.callbacks == before
    assert trainer.limit_predict_batches == 2

    class Predicts(Net):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0])

    own = Predicts()
    out = trainer.predict(own, dataloaders=torch.utils.data.DataLoader(blobs(20), batch_size=5))
    assert out is not None
    assert [len(x) for x in out] == [5, 5]  # their limit holds for their own predict
    assert writer.calls == 1 + 2 + 1
