"""Entropy: the records for which the predicted classes are most spread out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from al_lightning.query.base import ScoreStrategy


def entropy_score(probabilities: Tensor) -> Tensor:
    """Shannon entropy of the predicted classes, in nats; a class of probability 0 adds 0.

    Args:
        probabilities: ``(n, C)``, rows sum to 1.

    Returns:
        ``(n,)`` in ``[0, ln C]``, higher is more worth labelling.
    """
    return torch.special.entr(probabilities).sum(dim=-1)


@dataclass(frozen=True)
class Entropy(ScoreStrategy):
    """Query the records with the highest predictive entropy.

    Source: C. E. Shannon 1948; as a query, B. Settles, "Active learning literature survey", 2009, section 3.1.
    """

    score = staticmethod(entropy_score)
