"""Classes of the package pytorch_lightning, which lightning does not take for its own, are refused by name."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping

from al_lightning import WarmStart, fresh_trainer
from al_lightning.errors import UnsupportedTrainer
from al_lightning.pool.datamodule import PoolDataModule
from tests.helpers import Net, learner, net, pool_of, quiet


def _other(kind: type, **more: Any) -> type:
    """A class as the other package has it; the package itself need not be installed."""
    return type(kind.__name__, (kind,), {"__module__": f"pytorch_lightning.{kind.__name__.lower()}", **more})


Trainer = _other(L.Trainer)
QUIET = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
         "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip


class Module(_other(Net)):  # type: ignore[misc]
    """A user's module on the other package's."""


HANDED: dict[str, Any] = {
    "a Trainer": lambda folder: learner(folder, Trainer(**QUIET)),
    "a function that builds one": lambda folder: learner(folder, lambda: Trainer(**QUIET)),
    "a callback": lambda folder: learner(folder, quiet(callbacks=[_other(EarlyStopping)("val_loss")])),
    "a module": lambda folder: learner(folder).fit(Module(), datamodule=pool_of()),
    "a proxy": lambda folder: learner(folder, proxy=Module(), fit=WarmStart("keep", final="initial")).fit(
        net(), datamodule=pool_of()
    ),
    "a DataModule": lambda folder: PoolDataModule(_other(L.LightningDataModule)(), task="multiclass"),
    "a Trainer by hand": lambda folder: fresh_trainer(Trainer(**QUIET)),
    "its Trainer has a callback of ours": lambda folder: Trainer(**QUIET, callbacks=[WarmStart("reset")]).fit(
        net(), pool_of().val_dataloader(), pool_of().val_dataloader()
    ),
    "its Trainer has a pool": lambda folder: Trainer(**QUIET).fit(net(), datamodule=pool_of()),
}


@pytest.mark.parametrize("hand", HANDED.values(), ids=HANDED.keys())
def test_the_other_package_is_refused_in_a_sentence(tmp_path: Path, hand: Any) -> None:
    with pytest.raises(UnsupportedTrainer, match=r"of the package pytorch_lightning.*import lightning\.pytorch as pl"):
        hand(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_that_the_other_package_is_imported_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    assert len(learner(tmp_path).fit(net(), datamodule=pool_of()).history) == 3
