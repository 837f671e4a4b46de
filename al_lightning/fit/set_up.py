"""What a module does in ``setup`` and ``configure_model``, which Lightning calls as every fit begins."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from al_lightning.errors import UnsupportedModel
from al_lightning.fit.plan import Weights, load, plain, snapshot

_compiled_by_the_user: weakref.WeakKeyDictionary[nn.Module, frozenset[str]] = weakref.WeakKeyDictionary()


def materialise(model: L.LightningModule, trainer: L.Trainer, datamodule: L.LightningDataModule) -> None:
    """Build what the model builds late, so that its initial weights exist before the first fit.

    A model that has all its weights is left alone: its ``setup`` runs once per fit, as in Lightning. Which it is, is
    tried on a copy of its structure that holds the same weights.
    """
    # Lightning's own order: data first, prepared on one process per node.
    trainer._data_connector.attach_datamodule(model, datamodule=datamodule)
    model.trainer = trainer
    trainer._data_connector.prepare_data()
    datamodule.setup("fit")
    _compiled_by_the_user.setdefault(model, frozenset(name for name, _, _ in _compiled(model)))
    uncompile(model)
    if _sets_up(model) and _builds_late(model, trainer, datamodule):
        model.setup("fit")
        model.configure_model()


def _sets_up(model: L.LightningModule) -> bool:
    inner: Any = getattr(model, "_orig_mod", model)
    return any(is_overridden(hook, inner, L.LightningModule) for hook in ("setup", "configure_model"))


def _builds_late(model: L.LightningModule, trainer: L.Trainer, datamodule: L.LightningDataModule) -> bool:
    weights = _tensors(model)
    try:
        trial = copy.deepcopy(model, {id(thing): thing for thing in (trainer, datamodule, *weights.values())})
        trial.trainer = trainer  # a copy of a module has none
        with isolate_rng():
            trial.setup("fit")
            trial.configure_model()
    except Exception:  # it looks at labels that are not there yet, or cannot be copied
        return not weights
    found = _tensors(trial)
    return found.keys() != weights.keys() or any(found[name] is not value for name, value in weights.items())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {plain(name): value for name, value in (*model.named_parameters(), *model.named_buffers())}


def uncompile(model: nn.Module) -> dict[str, nn.Module]:
    """Take submodules out of ``torch.compile`` that ``setup`` has put in, since it will do so again.

    Returns:
        The compiled ones, by where they were.
    """
    own = _compiled_by_the_user.get(model, frozenset())
    found = {name: (owner, child) for name, owner, child in _compiled(model) if name not in own}
    for name, (owner, child) in found.items():
        owner._modules[name.rpartition(".")[2]] = child._orig_mod  # type: ignore[assignment]
    return {name: child for name, (_, child) in found.items()}


def _compiled(model: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
    return [
        (f"{path}.{name}".lstrip("."), owner, child)
        for path, owner in model.named_modules()
        for name, child in owner._modules.items()
        if child is not None and hasattr(child, "_orig_mod")
    ]


class _StartWeights(Callback):
    """Has a fit start from its weights, whatever ``setup`` has made of them."""

    def __init__(self, model: nn.Module, compiled: dict[str, nn.Module]) -> None:
        self._model, self._compiled = model, compiled
        self._start: Weights = snapshot(model)
        self._before, self._versions = _tensors(model), self._marks()
        self._trains = {name: value.requires_grad for name, value in self._before.items()}

    def _marks(self) -> dict[str, tuple[int, int]]:
        return {name: (id(value), value._version) for name, value in _tensors(self._model).items()}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, child in self._compiled.items():
            owner, _, last = name.rpartition(".")
            parent = self._model.get_submodule(owner)
            if parent._modules.get(last) is child._orig_mod:  # it compiles once, and looks whether it has
                parent._modules[last] = child
        if self._marks() != self._versions:
            try:
                load(self._model, self._start)
            except RuntimeError as error:
                raise UnsupportedModel(
                    f"{type(pl_module).__name__}.setup or .configure_model builds other weights for this fit than for "
                    f"the one before, and rounds go on from trained weights: {' '.join(str(error).split())} Build the "
                    "same layers each time, for all classes there are."
                ) from error
            for name, value in _tensors(self._model).items():
                if value is not self._before.get(name):
                    value.requires_grad_(self._trains.get(name, value.requires_grad))


def keep_start(model: L.LightningModule) -> list[Callback]:
    """Have the next fit start from the weights the model has now, though its ``setup`` builds, loads or compiles anew.

    Returns:
        The callbacks that see to it, to come before all others.
    """
    compiled = uncompile(model)
    return [_StartWeights(model, compiled)] if _sets_up(model) else []
