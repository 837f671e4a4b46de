"""What is asked of every shape: a run whose first fit is plain Lightning's on the same records, bit for bit."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from al_lightning.learner import ActiveLearner
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from al_lightning.scoring.trainer import score
from tests.compat.shapes import POOL, VAL, Shape
from tests.helpers import quiet

FIRST, SECOND, BATCH = 12, 4, 4


@dataclass
class Fit:
    """What a callback saw of one fit."""

    start: dict[str, Tensor]
    generators: tuple[Any, ...]
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    end: dict[str, Tensor] = field(default_factory=dict)


class Watch(L.Callback):
    """Notes every fit, from the start weights to the end ones; begins one where another began, if it is given.

    Args:
        begin: weights and states of the generators to start with; None: those that there are.
    """

    al_shared = True

    def __init__(self, begin: Fit | None = None) -> None:
        self.begin, self.fits = begin, list[Fit]()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.begin is not None:
            pl_module.load_state_dict(self.begin.start)
            _set_generators(self.begin.generators)
        weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        self.fits.append(Fit(weights, _generators()))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        self.fits[-1].losses.append(math.nan if loss is None else float(loss))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        fit = self.fits[-1]
        fit.end = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        fit.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


class Losses(L.Callback):
    """What people write to plot a curve: nothing in it knows of rounds."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        self.losses.append(math.nan if loss is None else float(loss))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a shape: each flag is a promise."""

    losses_identical: bool
    weights_identical: bool
    metrics_identical: bool
    start_untouched: bool
    records_right: bool
    target_withheld: bool
    collections_whole: bool
    records: tuple[int, int]

    @property
    def broken(self) -> list[str]:
        """Promises that were not kept."""
        return [name for name, value in vars(self).items() if value is False]


def outcome(shape: Shape, folder: Path) -> Outcome:
    """Run a shape through two rounds, and its first fit through plain Lightning."""
    watch, losses = Watch(), Losses()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = shape.module()
    built = {name: value.clone() for name, value in model.state_dict().items()}
    pool = _pool(shape, 0)
    trainer = _trainer(shape, [watch, losses], folder / "ours")
    learner = ActiveLearner(
        trainer,
        query=shape.query,
        round_size=Listed([FIRST, SECOND]),
        run_dir=folder / "run",
    )
    result = learner.fit(model, pool, recipe_epochs=shape.epochs)
    first, *later = watch.fits
    plain = _plain(shape, result.labelled[:FIRST].tolist(), first, folder / "plain")
    trained = sum((shape.trained or (lambda n: shape.epochs * n))(n) for n in (FIRST, FIRST + SECOND))
    return Outcome(
        losses_identical=_same(first.losses, plain.losses),
        weights_identical=_equal(first.end, plain.end),
        metrics_identical=first.metrics.keys() == plain.metrics.keys()
        and all(_same([value], [plain.metrics[name]]) for name, value in first.metrics.items()),
        start_untouched=_equal(
            {name: built[name].to(value.dtype) for name, value in first.start.items() if name in built},
            {name: value for name, value in first.start.items() if name in built},
        ),
        records_right=result.bill.records_trained == trained,
        target_withheld=not shape.query.needs_inference or _same_inputs(shape, model, folder),
        collections_whole=_same(losses.losses, [x for fit in watch.fits for x in fit.losses]) and len(later) == 1,
        records=(result.bill.records_trained, trained),
    )


def _pool(shape: Shape, shift: int) -> PoolDataModule:
    data, val = shape.data(POOL, shift), shape.data(VAL, shift)
    loader = {"collate_fn": shape.collate, **shape.loader} if shape.collate else dict(shape.loader)
    if shape.wrap is not None:
        return PoolDataModule(shape.wrap(data, val, batch_size=BATCH, **loader), task=shape.task, **shape.pool)
    return PoolDataModule(data, val=val, task=shape.task, batch_size=BATCH, loader=loader, **shape.pool)


def _trainer(shape: Shape, watching: list[L.Callback], folder: Path) -> L.Trainer:
    settings = {"max_epochs": shape.epochs, "default_root_dir": folder, **shape.trainer}
    return quiet(**settings, callbacks=[*watching, *shape.callbacks()])


def _plain(shape: Shape, ids: list[int], begin: Fit, folder: Path) -> Fit:
    """The first fit as Lightning does it alone, on the same records, from the same weights and generators."""
    watch = Watch(begin)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = shape.module()
    trainer = _trainer(shape, [watch], folder)
    data, val = Subset(shape.data(POOL, 0), ids), shape.data(VAL, 0)
    loader = {"batch_size": BATCH, "collate_fn": shape.collate, **shape.loader}
    if shape.wrap is not None:
        trainer.fit(model, datamodule=shape.wrap(data, val, **loader))
    else:
        held_out = {name: value for name, value in loader.items() if name != "drop_last"}
        own = _Loaders(DataLoader(data, shuffle=True, **loader), DataLoader(val, **held_out))
        trainer.fit(model, datamodule=own)
    return watch.fits[0]


class _Loaders(L.LightningDataModule):
    def __init__(self, train: DataLoader[Any], val: DataLoader[Any]) -> None:
        super().__init__()
        self._train, self._val = train, val

    def train_dataloader(self) -> DataLoader[Any]:
        return self._train

    def val_dataloader(self) -> DataLoader[Any]:
        return self._val


def _same_inputs(shape: Shape, model: L.LightningModule, folder: Path) -> bool:
    """Whether the model is given the same while scoring, whatever the targets are."""
    seen: list[list[Any]] = []
    for shift in (0, 1):
        calls: list[Any] = []
        name = "infer" if hasattr(model, "infer") else "forward"
        hook = model.register_forward_pre_hook(lambda m, a, k, calls=calls: calls.append((a, k)), with_kwargs=True)
        try:
            score(_trainer(shape, [], folder / name), model, _pool(shape, shift), Margin())
        finally:
            hook.remove()
        seen.append(calls)
    return len(seen[0]) > 0 and _alike(seen[0], seen[1])


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _same(a: list[float], b: list[float]) -> bool:
    return np.array_equal(np.array(a), np.array(b), equal_nan=True)


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _generators() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _set_generators(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
