"""Least confidence: the records whose most likely class is least likely."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from al_lightning.query.base import ScoreStrategy


def least_confidence_score(probabilities: Tensor) -> Tensor:
    """Return one minus the probability of the most likely class (Lewis & Gale 1994).

    Args:
        probabilities: ``(..., C)``, rows sum to 1.

    Returns:
        ``(...,)`` in ``[0, 1 - 1/C]``, higher is more worth labelling.
    """
    return probabilities.amax(dim=-1).neg_().add_(1)


@dataclass(frozen=True)
class LeastConfidence(ScoreStrategy):
    """Query the records the model is least confident about.

    Source: D. D. Lewis and W. A. Gale, "A sequential algorithm for training text classifiers", SIGIR 1994.

    Example:
        >>> import torch
        >>> LeastConfidence.score(torch.tensor([[0.75, 0.25], [1.0, 0.0]])).tolist()
        [0.25, 0.0]
    """

    score = staticmethod(least_confidence_score)
