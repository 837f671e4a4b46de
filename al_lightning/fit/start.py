"""The weights a fit starts from: made of the previous round's, the run's first, and freshly drawn ones."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from al_lightning.fit.plan import FitPlan, Weights, load, plain, reinitialise, snapshot

MATRICES = (nn.Linear, _ConvNd)
"""Layers whose weights FIRE and DASH change. Bare parameters, as of ``nn.MultiheadAttention``, and norms are left."""
_STEPS = 10


def apply_start(model: nn.Module, plan: FitPlan, *, initial: Weights, seed: int) -> None:
    """Give the model the weights the plan starts from; ``dash`` needs gradients, and is carried out by the fit.

    Args:
        model: holds the previous round's weights; changed in place.
        plan: the plan.
        initial: the weights of the run's start.
        seed: of fresh weights.
    """
    if plan.start == "initial":
        load(model, initial)
    elif plan.start == "fire":
        source = getattr(model, "_orig_mod", model)
        layers = {plain(f"{name}.weight".lstrip(".")) for name, m in source.named_modules() if isinstance(m, MATRICES)}
        load(model, fire(snapshot(model), layers))
    elif plan.start == "shrink_perturb":
        previous = snapshot(model)
        load(model, initial)
        reinitialise(model, seed)
        trained = {plain(name) for name, _ in getattr(model, "_orig_mod", model).named_parameters()}
        load(model, shrink_perturb(previous, snapshot(model), trained, shrink=plan.shrink, perturb=plan.perturb))


def shrink_perturb(
    previous: Weights, fresh: Weights, trained: Collection[str], *, shrink: float, perturb: float
) -> dict[str, Tensor]:
    """``shrink * previous + perturb * fresh`` on parameters; buffers, such as BatchNorm's statistics, stay.

    Source: Ash & Adams, "On warm-starting neural network training", NeurIPS 2020, arXiv:1910.08475.

    Args:
        previous: weights of the round before.
        fresh: newly drawn ones.
        trained: names of those that are parameters.
        shrink: factor of the previous ones.
        perturb: factor of the fresh ones.
    """
    return {
        name: shrink * value + perturb * fresh[name] if name in trained else value for name, value in previous.items()
    }


def fire(weights: Weights, layers: Collection[str]) -> dict[str, Tensor]:
    """The matrices next to the previous ones among those that keep all lengths, scaled; everything else stays.

    An isometry has no directions in which gradients die out, and the nearest one keeps what the layer has learnt. That
    is the polar factor, found by Newton-Schulz iteration; of a convolution, for each tap of the kernel. Scaled by
    ``sqrt(out / in) / taps``.

    Source: Han et al., "FIRE: Frobenius-isometry reinitialization", ICLR 2026, arXiv:2602.08040.

    Args:
        weights: of the round before.
        layers: names of the weights, ``(out, in)`` or ``(out, in, *kernel)``, to change.
    """
    return {name: _isometric(value) if name in layers else value for name, value in weights.items()}


def _isometric(weight: Tensor) -> Tensor:
    taps = weight.reshape(*weight.shape[:2], -1).permute(2, 0, 1)
    scale = (weight.shape[0] / weight.shape[1]) ** 0.5 / len(taps)
    return (scale * polar(taps)).permute(1, 2, 0).reshape(weight.shape)


def polar(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthonormal rows or columns, whichever are fewer, by ten Newton-Schulz steps.

    Args:
        matrices: ``(..., rows, columns)``; singular values below a fiftieth of the Frobenius norm are not quite there
            after ten steps.
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    x = (matrices.mT if wide else matrices).float()
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(_STEPS):
        x = 1.5 * x - 0.5 * x @ (x.mT @ x)
    return (x.mT if wide else x).to(matrices.dtype)
