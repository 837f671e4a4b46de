"""A fit of a round validates as the Trainer says, and at its end where it is too short for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.warm_start import WarmStart
from tests.helpers import Net, learner, pool_of, quiet


class Looks(Net):
    """Notes, fit by fit, after how many batches it validated."""

    def __init__(self) -> None:
        super().__init__()
        self.validated: list[list[int]] = []

    def on_train_start(self) -> None:
        self.validated.append([])

    def on_validation_epoch_end(self) -> None:
        if self.validated and not self.trainer.sanity_checking:
            self.validated[-1].append(self.global_step)


class Plateau(Looks):
    """Lowers its rate where the validation loss does not fall."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


# Rounds of 12, 18 and 24 labels in batches of 8: epochs of 2, 3 and 3 steps. The first fit has the Trainer's 6 epochs,
# the others 2.
CADENCES: dict[str, tuple[dict[str, Any], list[list[int]]]] = {
    "every epoch": ({}, [[2, 4, 6, 8, 10, 12], [3, 6], [3, 6]]),
    "every third epoch": ({"check_val_every_n_epoch": 3}, [[6, 12], [6], [6]]),
    "every fourth epoch": ({"check_val_every_n_epoch": 4}, [[8], [6], [6]]),
    "less often than there are epochs": ({"check_val_every_n_epoch": 9}, [[12], [6], [6]]),
    "every batch": ({"val_check_interval": 1}, [[*range(1, 13)], [*range(1, 7)], [*range(1, 7)]]),
    "every second batch": ({"val_check_interval": 2}, [[2, 4, 6, 8, 10, 12], [2, 5, 6], [2, 5, 6]]),
    "more batches than an epoch has": ({"val_check_interval": 10}, [[2, 4, 6, 8, 10, 12], [3, 6], [3, 6]]),
    "batches over epochs": ({"val_check_interval": 5, "check_val_every_n_epoch": None}, [[5, 10], [5, 6], [5, 6]]),
    "more batches than a fit has": ({"val_check_interval": 99, "check_val_every_n_epoch": None}, [[12], [6], [6]]),
    "half an epoch": ({"val_check_interval": 0.5}, [[*range(1, 13)], [*range(1, 7)], [*range(1, 7)]]),
    "steps that end a fit": ({"check_val_every_n_epoch": 9, "max_steps": 5}, [[5], [5], [5]]),
    "no sanity check": ({"num_sanity_val_steps": 0, "check_val_every_n_epoch": 3}, [[6, 12], [6], [6]]),
    "never": ({"limit_val_batches": 0, "val_check_interval": 10}, [[], [], []]),
}


@pytest.mark.parametrize("model", [Looks, Plateau])
@pytest.mark.parametrize(("settings", "expected"), CADENCES.values(), ids=CADENCES.keys())
def test_a_fit_validates_as_the_trainer_says_and_a_short_one_at_its_end(
    tmp_path: Path, settings: dict[str, Any], expected: list[list[int]], model: Any
) -> None:
    if model is Plateau and settings.get("limit_val_batches") == 0:
        pytest.skip("Lightning alone refuses it too")
    module, trainer = model(), quiet(max_epochs=6, **settings)
    result = learner(tmp_path, trainer, fit=WarmStart("keep", epochs=2)).fit(module, datamodule=pool_of())
    assert module.validated == expected
    assert all(("val_acc" in record.metrics) == bool(expected[0]) for record in result.history)
    assert trainer.check_val_every_n_epoch == settings.get("check_val_every_n_epoch", 1)
    assert trainer.val_check_interval == settings.get("val_check_interval", 1.0)


@pytest.mark.parametrize("part", ["plateau", "checkpoint", "early stopping"])
def test_what_monitors_a_validation_metric_finds_it_in_a_short_fit(tmp_path: Path, part: str) -> None:
    callbacks: dict[str, Any] = {
        "checkpoint": ModelCheckpoint(tmp_path / "best", monitor="val_acc", mode="max"),
        "early stopping": EarlyStopping("val_loss"),
    }
    used = [callbacks[part]] if part in callbacks else []
    trainer = quiet(max_epochs=6, check_val_every_n_epoch=5, callbacks=used, enable_checkpointing=part == "checkpoint")
    stop = [RoundPlateau("val_acc", mode="max", min_delta=0.5, patience=9)] if part == "plateau" else []
    run = learner(tmp_path / "run", trainer, fit=WarmStart("keep", epochs=2), stop=stop)
    result = run.fit(Net(), datamodule=pool_of())
    assert [r.epochs for r in result.history] == [6, 2, 2]
    if part == "checkpoint":
        assert Path(result.best_model_path).parent.name == "round-003"


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_fit_without_validation_data_is_a_fit(tmp_path: Path) -> None:
    result = learner(tmp_path, quiet(val_check_interval=10)).fit(Net(), datamodule=pool_of(val=None))
    assert all(set(r.metrics) == {"train_loss"} for r in result.history)


def test_a_misspelt_monitor_of_a_scheduler_is_still_an_error(tmp_path: Path) -> None:
    class Misspelt(Plateau):
        def configure_optimizers(self) -> Any:
            found = super().configure_optimizers()
            found["lr_scheduler"]["monitor"] = "val_los"
            return found

    with pytest.raises(Exception, match="val_los"):
        learner(tmp_path, quiet()).fit(Misspelt(), datamodule=pool_of())
