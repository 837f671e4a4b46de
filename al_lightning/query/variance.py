"""Variance: for regression, the records for which sampled answers lie furthest apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from al_lightning.query.base import SampledStrategy
from al_lightning.scoring.outputs import Outputs


def variance_score(samples: Iterable[Tensor]) -> Tensor:
    """Return the sample variance of every output over the answers, around their mean, by Welford's update.

    Memory of two answers, however many there are, and no cancellation for outputs far from zero.

    Args:
        samples: predictions ``(n, d)`` of every answer, at least two.

    Returns:
        ``(n, d)``, 0 or more, higher is more worth labelling.
    """
    answers, count = iter(samples), 1
    mean = next(answers).clone()
    squares = torch.zeros_like(mean)
    for predictions in answers:
        count += 1
        step = predictions - mean
        mean += step / count
        squares += step.mul_(predictions - mean)
    return squares.div_(count - 1)


@dataclass(frozen=True)
class Variance(SampledStrategy):
    """Query the records whose sampled predictions differ most. For ``task="regression"``.

    A record's ``d`` outputs are parts of it, and ``reduction`` makes one score of their variances: ``mean`` or ``sum``
    of them, or ``max``. Outputs in different units weigh by their units: standardise the targets.

    Source: R. Burbidge, J. J. Rowland and R. D. King, "Active learning for regression based on query by committee",
    IDEAL 2007; with dropout, Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.

    Example:
        >>> Variance(passes=10).tasks
        ('regression',)
    """

    tasks: ClassVar[tuple[str, ...]] = ("regression",)

    score = staticmethod(variance_score)

    def sampled(self, outputs: Outputs) -> Tensor:
        """Predictions, ``(n, d)``."""
        return outputs.logits.float().reshape(len(outputs.logits), -1)
