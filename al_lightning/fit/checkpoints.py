"""Weights of a Lightning checkpoint, read without unpickling anything else in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.io import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from torch import Tensor, nn
from torch._weights_only_unpickler import _get_allowed_globals, _get_user_allowed_globals

from al_lightning.errors import UnsupportedModel
from al_lightning.fit.plan import load, plain, snapshot


class _Everything(type):
    """A class that takes what pickle does to an object, and does nothing."""

    def __setitem__(cls, key: Any, value: Any) -> None: ...

    def __getitem__(cls, key: Any) -> Any:
        return cls


class _Inert(metaclass=_Everything):
    """Stands in for every class and function of a pickle that rebuilds no tensor: calling it gives itself."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    @classmethod
    def __setstate__(cls, state: Any) -> None: ...

    @classmethod
    def append(cls, item: Any) -> None: ...

    @classmethod
    def extend(cls, items: Any) -> None: ...

    @classmethod
    def add(cls, item: Any) -> None: ...


def _plain(rebuild: Any, kind: Any, args: Any, state: Any) -> Any:
    return rebuild(*args)  # a tensor's subclass is the module's business, which keeps its own


class _OnlyTensors(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return _plain
        full = f"{module}.{name}"
        return {**_get_allowed_globals(), **_get_user_allowed_globals()}.get(full, _Inert)


class _Pickle:
    """Hold what ``torch.load`` asks of a pickle module."""

    __name__ = "pickle"
    Unpickler = _OnlyTensors

    @staticmethod
    def load(file: Any, **settings: Any) -> Any:
        return _OnlyTensors(file, **settings).load()


def read_weights(path: str | Path, io: CheckpointIO | None = None) -> Mapping[str, Tensor]:
    """Read the ``state_dict`` of a checkpoint, on the CPU; hyperparameters and other objects are not unpickled.

    Args:
        path: of the checkpoint, or its address on a remote file system.
        io: the Trainer's; one that is not PyTorch's own reads the file itself.

    Raises:
        OSError: there is no such file.
        ValueError: it holds no weights, or weights that are not tensors.
    """
    io = getattr(io, "checkpoint_io", io)  # AsyncCheckpointIO goes around another
    if io is not None and type(io) is not TorchCheckpointIO:
        checkpoint = io.load_checkpoint(path, map_location="cpu")
    else:
        with get_filesystem(path).open(str(path), "rb") as file:
            checkpoint = torch.load(file, map_location="cpu", weights_only=False, pickle_module=_Pickle())
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ValueError("it has no state_dict")
    objects = [name for name, value in weights.items() if value is _Inert]
    if objects:
        raise ValueError(f"{objects[0]!r} is no tensor")
    return weights


def load_best(model: nn.Module, path: str, trainer: L.Trainer) -> None:
    """Load the weights of a checkpoint that this fit has written, and nothing else of it.

    A module may keep weights that do not train out of its checkpoints (``on_save_checkpoint``): they stay as they are.

    Args:
        model: changed in place.
        path: of the checkpoint.
        trainer: that has written it.

    Raises:
        UnsupportedModel: the file cannot be read, or holds other weights than the model's.
    """
    # Restoring a whole checkpoint would bring back DataModule and callback state of an earlier moment.
    try:
        weights = {plain(name): value for name, value in read_weights(path, trainer.strategy.checkpoint_io).items()}
        load(model, {**_not_trained(model), **weights})
    except Exception as error:
        why = " ".join(str(error).split())
        raise UnsupportedModel(
            f"the best weights of this round cannot be read from {path}: {why} A checkpoint has to hold all weights "
            "that train, under the names that the module gives them: on_save_checkpoint may only add to it."
        ) from error


def _not_trained(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of all modules without a parameter that trains; of every one, if missing ones are allowed."""
    kept = snapshot(model)
    if not getattr(getattr(model, "_orig_mod", model), "strict_loading", True):
        return kept
    trained = {
        plain(name + ".").lstrip(".")
        for name, m in model.named_modules()
        if any(p.requires_grad for p in m.parameters(recurse=False))
    }
    return {name: value for name, value in kept.items() if name[: name.rfind(".") + 1] not in trained}
