"""Variation ratio: the records on whose class sampled answers agree least."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from al_lightning.query.base import SampledStrategy


def variation_ratio_score(samples: Iterable[Tensor]) -> Tensor:
    """Return the share of answers that do not vote for the most frequent class (Freeman 1965; Gal et al. 2017).

    Votes are counted as the answers are read: memory of one answer, however many there are.

    Args:
        samples: class probabilities ``(..., C)`` of every answer, at least one; each votes for its most likely class,
            the first of those that tie.

    Returns:
        ``(...,)`` in ``[0, 1 - 1/C]``, higher is more worth labelling; NaN where an answer holds one.
    """
    answers, count = iter(samples), 1
    first = next(answers)
    votes = torch.zeros_like(first)
    highest = _vote(first, votes)
    for probabilities in answers:
        highest += _vote(probabilities, votes)
        count += 1
    return torch.where(highest.isnan(), torch.nan, 1 - votes.amax(dim=-1) / count)


def _vote(probabilities: Tensor, votes: Tensor) -> Tensor:
    highest, best = probabilities.max(dim=-1, keepdim=True)
    votes.scatter_add_(-1, best, torch.ones_like(highest))
    return highest.squeeze(-1)


@dataclass(frozen=True)
class VariationRatio(SampledStrategy):
    """Query the records whose sampled answers vote for different classes.

    Source: L. C. Freeman, "Elementary applied statistics", 1965; as a query, Y. Gal, R. Islam and Z. Ghahramani, "Deep
    Bayesian active learning with image data", ICML 2017.

    Example:
        >>> VariationRatio(passes=10).passes
        10
    """

    score = staticmethod(variation_ratio_score)
