"""How a fit moves when its weights are warm: the learning rate of every step, and the average of the weights."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from al_lightning.fit_plan import FitPlan, Rate
from al_lightning.rounds import take_schedulers

_MOVED = ("lr", "momentum", "betas")
"""What PyTorch's schedulers change in an optimiser's groups; OneCycleLR cycles the momentum too."""


def shaping(plan: FitPlan) -> list[Callback]:
    """The callbacks that carry out a plan's ``rate`` and ``average``."""
    parts: list[Callback] = []
    if plan.rate != "schedule":
        parts.append(ShapedRate(plan.rate))
    if plan.average:
        parts.append(AverageWeights(plan.average))
    return parts


class Curve(NamedTuple):
    """What a scheduler would do: per step or epoch, the settings of every group of its optimiser."""

    optimizer: Optimizer
    points: list[list[dict[str, Any]]]

    @classmethod
    def of(cls, config: LRSchedulerConfig, count: int) -> Curve:
        """Run a scheduler through on its own, and put it back."""
        scheduler, optimizer = config.scheduler, config.scheduler.optimizer
        points = []
        with warnings.catch_warnings():
            # No optimiser step comes in between, on purpose.
            warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
            for i in range(count):
                points.append([{k: group[k] for k in _MOVED if k in group} for group in optimizer.param_groups])
                if i + 1 < count:
                    scheduler.step()  # type: ignore[call-arg]
        return cls(optimizer, points)

    @property
    def peak(self) -> int:
        """Where the first group's rate is highest, the first time."""
        rates = [float(groups[0]["lr"]) for groups in self.points]
        return rates.index(max(rates))

    def set(self, point: int) -> None:
        """Give the optimiser the settings of one point."""
        for group, values in zip(self.optimizer.param_groups, self.points[point], strict=True):
            group.update(values)


class ShapedRate(Callback):
    """Hold the learning rate at the peak of the user's schedule, or make its descent over the whole fit.

    The user's schedulers are run through once as training starts, which tells what they do for any of them, and are
    not stepped by Lightning then. A module without schedulers, or with ``ReduceLROnPlateau``, is left alone.

    Sources of the shape: S. Hu et al., "MiniCPM", COLM 2024; A. Hägele et al., "Scaling laws and compute-optimal
    training beyond fixed training durations", NeurIPS 2024 (constant rate, then a cooldown).

    Args:
        rate: ``peak`` or ``descent``.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate, self._curves, self._steps = rate, list[Curve](), 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steps = max(1, int(trainer.estimated_stepping_batches))
        self._curves = []
        for config in take_schedulers(trainer):
            each = self._steps if config.interval == "step" else trainer.max_epochs or 1
            self._curves.append(Curve.of(config, max(1, each // config.frequency)))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        done = min(1.0, trainer.global_step / self._steps) if self._rate == "descent" else 0.0
        for curve in self._curves:
            peak = curve.peak
            curve.set(peak + int(done * (len(curve.points) - peak)))


class AverageWeights(Callback):
    """Average the weights over the last steps of a fit, and keep the average.

    The average stands before the last validation, so that what is logged there is of the weights that are kept. A fit
    that is ended early keeps the average so far. Floating-point buffers, such as BatchNorm's statistics, are averaged
    with the weights.

    Source: P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.

    Args:
        share: of the fit's steps, its last, in ``(0, 1]``.
    """

    def __init__(self, share: float) -> None:
        self._share, self._mean, self._count, self._seen = share, list[Tensor](), 0, 0

    @staticmethod
    def _weights(module: L.LightningModule) -> list[Tensor]:
        floats = (b for b in module.buffers() if b.is_floating_point())
        return [*(p.detach() for p in module.parameters() if p.requires_grad), *floats]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steps = int(trainer.estimated_stepping_batches)
        self._mean, self._count, self._seen = [], 0, trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._seen or step <= (1 - self._share) * self._steps:
            return
        self._seen = step
        weights = self._weights(pl_module)
        self._count += 1
        if self._mean:
            torch._foreach_lerp_(self._mean, weights, 1 / self._count)
        else:
            self._mean = [w.clone() for w in weights]
        if step >= self._steps:
            self._keep(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._keep(pl_module)

    def _keep(self, module: L.LightningModule) -> None:
        if self._mean:
            torch._foreach_copy_(self._weights(module), self._mean)
            self._mean = []
