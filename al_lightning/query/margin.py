"""Margin: the records for which the two most likely classes are nearly tied."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from al_lightning.query.base import ScoreStrategy


def margin_score(probabilities: Tensor) -> Tensor:
    """One minus the gap between the two most likely classes, ``1 - (p1 - p2)`` (Scheffer et al. 2001).

    Args:
        probabilities: ``(n, C)`` with ``C >= 2``, rows sum to 1.

    Returns:
        ``(n,)`` in ``[0, 1]``, higher is more worth labelling; 1 where the two are tied.
    """
    best = probabilities.topk(2, dim=-1).values
    return 1 - (best[..., 0] - best[..., 1])


@dataclass(frozen=True)
class Margin(ScoreStrategy):
    """Query the records with the smallest margin between the two most likely classes.

    Source: T. Scheffer, C. Decomain and S. Wrobel, "Active hidden Markov models for information extraction",
    IDA 2001.
    """

    score = staticmethod(margin_score)
