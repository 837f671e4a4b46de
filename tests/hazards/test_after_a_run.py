"""What the user's own Trainer holds after a run, and that a later run with it starts as the first did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.errors import UnsupportedTrainer
from tests.helpers import Net, blobs, learner, net, pool_of, quiet


class WithTest(Net):
    """Has a test step."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())


class OwnCheckpoint(ModelCheckpoint):
    """A class of the user's."""


def _loader(n: int = 30) -> Any:
    return torch.utils.data.DataLoader(blobs(n, seed=5), batch_size=10)


def _accuracy(model: Any, weights: Any = None) -> float:
    fresh = WithTest()
    fresh.load_state_dict(weights or model.state_dict())
    return float((fresh(blobs(30, seed=5).tensors[0]).argmax(-1) == blobs(30, seed=5).tensors[1]).float().mean())


@pytest.mark.parametrize("kind", [ModelCheckpoint, OwnCheckpoint])
def test_the_trainer_has_metrics_and_best_weights_of_the_delivered_fit(tmp_path: Path, kind: Any) -> None:
    checkpoint, model = kind(tmp_path / "mine", monitor="val_loss"), WithTest()
    trainer = quiet(max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    result = learner(tmp_path / "run", trainer).fit(model, datamodule=pool_of())
    assert result.trainer is not None
    for name in ("callback_metrics", "logged_metrics"):
        found, expected = getattr(trainer, name), getattr(result.trainer, name)
        assert found
        assert {k: float(v) for k, v in found.items()} == {k: float(v) for k, v in expected.items()}
    assert trainer.checkpoint_callback is checkpoint
    assert checkpoint.best_model_path == result.best_model_path
    assert float(checkpoint.best_model_score) == pytest.approx(result.history[-1].metrics["val_loss"])
    assert Path(checkpoint.best_model_path).parent.name == "round-003"
    best = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    [tested] = trainer.test(model, ckpt_path="best", dataloaders=_loader(), verbose=False)
    assert tested["test_acc"] == pytest.approx(_accuracy(model, best))


@pytest.mark.filterwarnings("ignore:.*was called without a model")
def test_test_and_validate_know_the_model(tmp_path: Path) -> None:
    model, trainer = WithTest(), quiet(enable_checkpointing=True)
    learner(tmp_path, trainer).fit(model, datamodule=pool_of())
    [tested] = trainer.test(model, dataloaders=_loader(), verbose=False)
    assert tested["test_acc"] == pytest.approx(_accuracy(model))
    [tested] = trainer.test(dataloaders=_loader(), verbose=False)  # the best, which is the last here
    assert tested["test_acc"] == pytest.approx(_accuracy(model))


def test_a_finished_run_that_is_opened_again_knows_its_best_weights(tmp_path: Path) -> None:
    def run() -> Any:
        trainer = quiet(callbacks=[ModelCheckpoint(tmp_path / "mine", monitor="val_loss")], enable_checkpointing=True)
        return trainer, learner(tmp_path / "run", trainer).fit(WithTest(), datamodule=pool_of())

    (_, first), (trainer, second) = run(), run()
    assert second.trainer is None
    assert trainer.checkpoint_callback.best_model_path == first.best_model_path == second.best_model_path
    assert {k: float(v) for k, v in trainer.callback_metrics.items()} == pytest.approx(first.history[-1].metrics)
    trainer.test(second.model, ckpt_path="best", dataloaders=_loader(), verbose=False)


def test_weights_that_were_averaged_after_the_checkpoint_are_not_taken_for_the_best(tmp_path: Path) -> None:
    trainer = quiet(max_epochs=4, enable_checkpointing=True, default_root_dir=tmp_path / "root")
    fit = WarmStart("keep", stable=True, final="previous", final_epochs=2)
    learner(tmp_path / "run", trainer, fit=fit).fit(net(), datamodule=pool_of())
    assert trainer.checkpoint_callback.best_model_path == ""


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_later_run_with_the_trainer_starts_as_the_first(tmp_path: Path) -> None:
    trainer = quiet(
        max_epochs=3,
        callbacks=[ModelCheckpoint(tmp_path / "mine", monitor="val_loss"), EarlyStopping("val_loss")],
        enable_checkpointing=True,
    )
    runs = [learner(tmp_path / name, trainer).fit(net(), datamodule=pool_of()) for name in "ab"]
    assert [r.metrics for r in runs[0].history] == [r.metrics for r in runs[1].history]
    assert [r.epochs for r in runs[0].history] == [r.epochs for r in runs[1].history]
    trainer.validate(net(), datamodule=pool_of(), verbose=False)
    with pytest.raises(UnsupportedTrainer, match=r"already run validate\(\)"):
        learner(tmp_path / "c", trainer)
