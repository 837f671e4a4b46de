"""DASH: before a fit from warm weights, shrink those that point away from where the data would take them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.utils.data import SequentialSampler
from torchmetrics import Metric

from al_lightning.cost.served import served_by
from al_lightning.errors import UnsupportedModel
from al_lightning.fit.plan import evaluating
from al_lightning.fit.start import MATRICES
from al_lightning.pool.datamodule import PoolDataModule

SMOOTHING = 0.3
"""Share of the newest chunk's gradient in the average; the paper's."""
FLOOR = 0.3
"""The most that a weight shrinks; the paper's."""


def direction_scale(weight: Tensor, descent: Tensor) -> Tensor:
    """Return what to multiply a weight with: the cosine between it and the descent direction, between 0.3 and 1.

    One per row of a matrix ``(out, in)``, per kernel of a convolution ``(out, in, *kernel)``, per entry of a bias
    ``(out,)``; shaped to be multiplied with the weight.

    Source: Shin et al., "DASH: warm-starting neural network training in stationary settings without loss of
    plasticity", NeurIPS 2024, arXiv:2410.23495.

    Args:
        weight: of a layer.
        descent: negative gradient of the loss, of the same shape.
    """
    kept = 2 if weight.ndim > 2 else 1
    cosine = cosine_similarity(weight.reshape(*weight.shape[:kept], -1), descent.reshape(*weight.shape[:kept], -1), -1)
    return cosine.clamp(FLOOR, 1.0).reshape(*weight.shape[:kept], *[1] * (weight.ndim - kept))


def chunks(labelled: Sequence[int], new: int) -> list[Sequence[int]]:
    """Labelled ids in the order they came, cut into as many as are new; the last chunk is the new ones."""
    cuts = sorted({*range(len(labelled), 0, -(new if new > 0 else len(labelled))), 0})
    return [labelled[a:b] for a, b in pairwise(cuts)]


class DirectionAwareShrink(Callback):
    """Shrink the layers' weights by :func:`direction_scale` as training starts.

    The direction is an average over the labelled records, in the order they came, that weighs the newest most. It costs
    one pass forward and backward over all of them, in eval mode, so that dropout and BatchNorm's statistics stay out.

    Args:
        new: how many of the labelled records are new.

    Attributes:
        records: how many went forward and backward for it, for the bill.

    Raises:
        UnsupportedModel: a module that optimises by hand: its training_step would train.
    """

    def __init__(self, new: int) -> None:
        self._new, self.records = new, 0

    def fit_state(self) -> dict[str, Any]:
        """That it has been done."""
        return {"records": self.records}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """Do nothing in a fit that goes on."""
        self.records = state["records"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.records:
            return
        if not pl_module.automatic_optimization:
            raise UnsupportedModel(
                f"Dash() takes gradients of what {type(pl_module).__name__}.training_step returns, and a "
                "module with automatic_optimization=False trains there: use another policy, such as Fire()."
            )
        layers = [m for m in pl_module.modules() if isinstance(m, MATRICES)]
        weights = [p for m in layers for p in m.parameters(recurse=False) if p.requires_grad]
        pool: PoolDataModule = trainer.datamodule  # type: ignore[attr-defined]
        descent = [torch.zeros_like(w) for w in weights]
        with measuring(pl_module), serving(pool):
            for ids in chunks(pool.labelled.tolist(), self._new):
                pool.train_ids, pool.train_sampler = np.asarray(ids), SequentialSampler(ids)
                for mean, gradient in zip(descent, self._gradient(trainer, pl_module, weights), strict=True):
                    mean.mul_(1 - SMOOTHING).sub_(gradient, alpha=SMOOTHING)
        with torch.no_grad():
            for weight, direction in zip(weights, descent, strict=True):
                weight.mul_(direction_scale(weight, direction))

    def _gradient(self, trainer: L.Trainer, module: L.LightningModule, weights: Sequence[Tensor]) -> list[Tensor]:
        """The loss's gradient over what the pool serves, averaged over its records."""
        total, seen = [torch.zeros_like(w) for w in weights], 0
        one_argument = len(inspect.signature(module.training_step).parameters) == 1
        with served_by(trainer.datamodule.train_dataloader()) as batches:  # type: ignore[attr-defined]
            for i, (batch, n) in enumerate(batches):
                batch = trainer.strategy.batch_to_device(batch)
                output: Any
                with trainer.precision_plugin.train_step_context():
                    output = module.training_step(batch) if one_argument else module.training_step(batch, i)
                loss = output["loss"] if isinstance(output, dict) else output
                # Not backward(): under DDP that would wait for the other processes.
                for sum_, gradient in zip(total, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                    if gradient is not None:
                        sum_.add_(gradient, alpha=n)
                seen += n
        self.records += seen
        return [t / max(1, seen) for t in total]


@contextmanager
def measuring(module: L.LightningModule) -> Iterator[None]:
    """Run training_step for its gradient alone: in eval mode, nothing logged, metrics as new afterwards."""

    def silent(*args: Any, **kwargs: Any) -> None:
        """Lightning allows no step to be logged before the first one."""

    module.log = module.log_dict = silent  # type: ignore[method-assign]
    try:
        with evaluating(module):
            yield
    finally:
        del module.log, module.log_dict
        for m in module.modules():
            if isinstance(m, Metric):
                m.reset()


@contextmanager
def serving(pool: PoolDataModule) -> Iterator[None]:
    """Put the pool's plan back after serving other records."""
    planned = pool.train_ids, pool.train_sampler
    try:
        yield
    finally:
        pool.train_ids, pool.train_sampler = planned
