"""How a fit moves when its weights are warm: at the peak of the learning rate, to the average of the weights.

What a plan asks of the fit itself is a callback each, put together here.
"""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor

from al_lightning.contrib.dash import DirectionAwareShrink
from al_lightning.contrib.distill import Distill
from al_lightning.errors import UnsupportedTrainer
from al_lightning.fit.plan import FitPlan, Served
from al_lightning.fit.trainer import take_schedulers
from al_lightning.pool.sampler import ReplaySampler

Moments = list[dict[str, Any]]
"""What a fit's optimisers leave for the next fit: see :class:`KeepMoments`."""
_MOVED = ("lr", "momentum", "betas")
"""What PyTorch's schedulers change in an optimiser's groups; OneCycleLR cycles the momentum too."""


def shaping(plan: FitPlan, served: Served, *, new: int, moments: Moments | None = None) -> list[Callback]:
    """The callbacks that carry out what a plan asks of the fit: ``dash``, ``distill``, its rate, average and moments.

    Args:
        plan: of the fit.
        served: the records of the fit.
        new: how many of the labelled records are new.
        moments: what the fit before left, if it did.
    """
    parts: list[Callback] = []
    if plan.start == "dash":
        parts.append(DirectionAwareShrink(new))
    if plan.distill is not None and isinstance(served.sampler, ReplaySampler):
        parts.append(Distill(plan.distill, served.sampler))
    if plan.moments:
        parts.append(KeepMoments(moments if plan.start == "previous" else None))
    if plan.rate == "peak":
        parts.append(PeakRate())
    if plan.rate_scale != 1:
        parts.append(ScaleRate(plan.rate_scale))
    if plan.average:
        parts.append(AverageWeights(plan.average))
    return parts


def peak_of(config: LRSchedulerConfig, count: int) -> list[dict[str, Any]]:
    """The settings of every group of the optimiser where a schedule's rate is highest, the first time.

    Args:
        config: of the scheduler, which is run through on its own and used up.
        count: how often Lightning would step it.
    """
    groups = config.scheduler.optimizer.param_groups
    peak: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        # No optimiser step comes in between, on purpose.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
        for i in range(count):
            if not peak or groups[0]["lr"] > peak[0]["lr"]:
                peak = [{name: group[name] for name in _MOVED if name in group} for group in groups]
            if i + 1 < count:
                config.scheduler.step()  # type: ignore[call-arg]
    return peak


def _steps(trainer: L.Trainer) -> int:
    """Optimiser steps of the fit, of one optimiser where there are several."""
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UnsupportedTrainer(
            "stable=True averages over the last part of a fit, and this Trainer has no end: give it max_epochs."
        )
    return max(1, int(steps))


class KeepMoments(Callback):
    """Go on with the state of the optimisers that an earlier fit left, and keep this fit's.

    An adaptive optimiser that starts anew knows the gradient's size from a step or two: at the peak of a schedule its
    first steps throw warm weights about. State is taken over where the optimisers hold parameters of the same shapes,
    and left where they do not, as after thawing what was frozen. Settings, such as the rate, are the new fit's.

    Args:
        moments: what :attr:`kept` was after the fit before; None: nothing to go on with.

    Attributes:
        kept: per optimiser, the shapes of its parameters and its state, on the CPU; None before a fit has ended.
    """

    def __init__(self, moments: Moments | None = None) -> None:
        self._before = moments
        self.kept: Moments | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer, before in zip(trainer.optimizers, self._before or [], strict=False):
            if before["shapes"] == _shapes(optimizer):
                now = optimizer.state_dict()
                optimizer.load_state_dict({**now, "state": before["state"]})
        self._before = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.kept = [
            {"shapes": _shapes(optimizer), "state": _on_cpu(optimizer.state_dict()["state"])}
            for optimizer in trainer.optimizers
        ]


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [list(p.shape) for group in optimizer.param_groups for p in group["params"]]


def _on_cpu(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return state.detach().cpu().clone() if isinstance(state, Tensor) else state


class PeakRate(Callback):
    """Hold the learning rate at the peak of the user's schedule.

    The user's schedulers are run through once as training starts, which tells what any of them does, and are not
    stepped by Lightning then. A module without schedulers, or with ``ReduceLROnPlateau``, is left alone.

    Source: A. Hägele et al., "Scaling laws and compute-optimal training beyond fixed training durations", NeurIPS 2024:
    a constant rate serves trainings of every length, and an average of the weights comes close to a cooldown.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps = _steps(trainer)
        for config in take_schedulers(trainer):
            each = steps if config.interval == "step" else max(1, trainer.max_epochs or 1)
            peak = peak_of(config, max(1, each // config.frequency))
            for group, settings in zip(config.scheduler.optimizer.param_groups, peak, strict=True):
                group.update(settings)


class ScaleRate(Callback):
    """Multiply the learning rate by a factor, all along the user's schedule.

    Args:
        factor: above 0.
    """

    _RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # OneCycleLR keeps its turning points in the groups

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.update({name: group[name] * self._factor for name in self._RATES if name in group})
        for config in trainer.strategy.lr_scheduler_configs:
            self._scale(config.scheduler)

    def _scale(self, scheduler: Any) -> None:
        for name in ("base_lrs", "max_lrs", "min_lrs"):
            if hasattr(scheduler, name):
                setattr(scheduler, name, [rate * self._factor for rate in getattr(scheduler, name)])
        if hasattr(scheduler, "eta_min"):
            scheduler.eta_min *= self._factor
        for part in getattr(scheduler, "_schedulers", []):
            self._scale(part)


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
        self._share, self._mean, self._count, self._batches = share, list[Tensor](), 0, 0

    @staticmethod
    def _weights(module: L.LightningModule) -> list[Tensor]:
        floats = (b for b in module.buffers() if b.is_floating_point())
        return [*(p.detach() for p in module.parameters() if p.requires_grad), *floats]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steps, self._step = _steps(trainer), 0
        self._mean, self._count, self._batches = [], 0, 0

    def fit_state(self) -> dict[str, Any]:
        """The average so far."""
        return {"mean": self._mean, "count": self._count, "batches": self._batches, "step": self._step}

    def load_fit_state(self, state: dict[str, Any]) -> None:
        """Average on from there."""
        self._mean, self._count = state["mean"], state["count"]
        self._batches, self._step = state["batches"], state["step"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1
        # Lightning steps after so many batches, and after an epoch's last one.
        if self._batches % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        self._batches, self._step = 0, self._step + 1
        if self._step <= (1 - self._share) * self._steps:
            return
        weights = self._weights(pl_module)
        self._count += 1
        if self._mean:
            torch._foreach_lerp_(self._mean, weights, 1 / self._count)
        else:
            self._mean = [w.clone() for w in weights]
        if self._step >= self._steps:
            self._keep(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._keep(pl_module)

    def _keep(self, module: L.LightningModule) -> None:
        if self._mean:
            torch._foreach_copy_(self._weights(module), self._mean)
            self._mean = []
