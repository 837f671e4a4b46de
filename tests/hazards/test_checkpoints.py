"""The best weights are read back from a checkpoint whatever else it holds, and nothing in it is executed."""

from __future__ import annotations

import collections
import enum
import functools
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from omegaconf import OmegaConf
from torch import nn

from al_lightning.errors import UnsupportedModel
from al_lightning.fit import resume as fit_resume
from al_lightning.fit.checkpoints import read_weights
from tests.helpers import Net, learner, net, pool_of, quiet

executed: list[str] = []


class Colour(enum.Enum):
    RED = 1


class Executes:
    """Code that runs where it is unpickled."""

    def __reduce__(self) -> Any:
        return executed.append, ("unpickled",)

    def __deepcopy__(self, memo: Any) -> Executes:
        return self


class OwnList(list[int]):
    """A list with a class of its own, which pickle fills item by item."""


class Marked(torch.Tensor):
    """A tensor of a class of the user's."""


class Settings:
    """A class of the user's."""

    def __init__(self) -> None:
        self.rate = 0.1


OBJECTS = {
    "a Hydra config": lambda: OmegaConf.create({"net": {"hidden": [8, 4]}}),
    "a path": lambda: Path("somewhere"),
    "a NumPy number": lambda: np.float64(0.1),
    "an array": lambda: np.zeros(3),
    "a module": lambda: nn.CrossEntropyLoss(weight=torch.ones(3)),
    "an optimiser as a partial": lambda: functools.partial(torch.optim.Adam, lr=0.1),
    "a class": lambda: torch.optim.Adam,
    "an enum, as value and key": lambda: {Colour.RED: Colour.RED},
    "a method": lambda: nn.Linear(2, 2).forward,
    "a class of the user's": Settings,
    "collections": lambda: [OwnList([1, 2]), collections.deque([1]), collections.defaultdict(list, a=[1]), {1, 2}],
    "a namespace": lambda: types.SimpleNamespace(a=slice(1, 2)),
    "what executes when it is unpickled": Executes,
}


class Holds(Net):
    """Has a hyperparameter, and checkpoints hold it."""

    def __init__(self, thing: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()


def _with_best(folder: Path, **settings: Any) -> Any:
    plugins = {"plugins": settings.pop("plugins")} if "plugins" in settings else {}
    checkpoint = ModelCheckpoint(**{"dirpath": folder / "best", "monitor": "val_loss", **settings})
    return quiet(callbacks=[checkpoint], enable_checkpointing=True, **plugins)


def _checked(model: Net) -> Any:
    """Whether the weights that a round delivers are those of its best epoch."""

    def on_round(record: Any, module: Any) -> None:
        loss = nn.functional.cross_entropy(module(VAL.tensors[0]), VAL.tensors[1])
        assert float(loss.detach()) == pytest.approx(record.metrics["val_loss"], rel=1e-5)

    return on_round


VAL = pool_of().val_data


@pytest.mark.filterwarnings("ignore:Attribute 'thing' is an instance of `nn.Module`")
@pytest.mark.parametrize("thing", OBJECTS.values(), ids=OBJECTS.keys())
def test_objects_among_the_hyperparameters_do_no_harm(
    tmp_path: Path, thing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", 0.0)  # the fit is kept too, and says so where it cannot be
    monkeypatch.setattr(fit_resume, "SHARE", 1e9)
    model = Holds(thing())
    learner(tmp_path / "run", _with_best(tmp_path), on_round=_checked(model)).fit(model, datamodule=pool_of())
    assert not executed


@pytest.mark.parametrize(
    "settings",
    [
        {"save_weights_only": True},
        {"filename": "always-the-same", "enable_version_counter": False},
        {"dirpath": "memory://checkpoints"},
        {"plugins": [AsyncCheckpointIO()]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_however_a_checkpoint_is_written_it_is_read(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = Holds(Settings())
    run = learner(tmp_path / "run", _with_best(tmp_path, **settings), on_round=_checked(model))
    assert len(run.fit(model, datamodule=pool_of()).history) == 3


def test_a_plugin_of_the_users_reads_what_it_has_written(tmp_path: Path) -> None:
    class Backwards(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint({"turned": checkpoint}, path)

        def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
            return super().load_checkpoint(path, weights_only=True)["turned"]

    model = net()
    trainer = _with_best(tmp_path, plugins=[Backwards()])
    learner(tmp_path / "run", trainer, on_round=_checked(model)).fit(model, datamodule=pool_of())


def test_state_of_the_users_own_in_a_checkpoint_does_no_harm(tmp_path: Path) -> None:
    class Adds(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"settings": Settings()}

    class Module(Net):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = Executes()

    model, trainer = Module(), _with_best(tmp_path)
    trainer.callbacks.append(Adds())
    learner(tmp_path / "run", trainer, on_round=_checked(model)).fit(model, datamodule=pool_of())
    assert not executed


class Frozen(Net):
    """A first layer that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].requires_grad_(False)


class LeavesOutInTheHook(Frozen):
    """Keeps it out of checkpoints."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("net.0")}


class LeavesOutEverywhere(Frozen):
    """Keeps it out of every state, as Lightning's own manual does."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if not k.startswith("net.0")}


@pytest.mark.parametrize("kind", [LeavesOutInTheHook, LeavesOutEverywhere])
def test_what_does_not_train_may_be_left_out_of_checkpoints(tmp_path: Path, kind: type[Net]) -> None:
    model = kind()
    learner(tmp_path / "run", _with_best(tmp_path), on_round=_checked(model)).fit(model, datamodule=pool_of())


def test_what_trains_may_not(tmp_path: Path) -> None:
    class Forgets(Net):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            del checkpoint["state_dict"]["net.0.weight"]

    with pytest.raises(UnsupportedModel, match=r"best weights.*net\.0\.weight.*may only add"):
        learner(tmp_path / "run", _with_best(tmp_path)).fit(Forgets(), datamodule=pool_of())


def test_tensors_of_every_kind_are_read_bit_for_bit(tmp_path: Path) -> None:
    weights = {
        "half": torch.randn(3).to(torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(2)),
        "marked": torch.randn(3).as_subclass(Marked),
        "number": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "shared": torch.arange(6.0)[::2],
    }
    torch.save({"state_dict": weights, "hyper_parameters": [thing() for thing in OBJECTS.values()]}, tmp_path / "x")
    found = read_weights(tmp_path / "x")
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(found[name], value.as_subclass(torch.Tensor))
        assert found[name].dtype == value.dtype
    assert not executed


def test_an_object_among_the_weights_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1), "odd": Settings()}}, tmp_path / "x")
    with pytest.raises(ValueError, match="'odd' is no tensor"):
        read_weights(tmp_path / "x")
    torch.save([1], tmp_path / "x")
    with pytest.raises(ValueError, match="no state_dict"):
        read_weights(tmp_path / "x")
