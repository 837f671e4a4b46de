"""BALD: the records about whose class sampled answers are sure, and disagree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from al_lightning.query.base import SampledStrategy
from al_lightning.query.entropy import entropy_of_rows
from al_lightning.query.rows import LARGE, blocks_of


def bald_score(samples: Iterable[Tensor]) -> Tensor:
    """Return the entropy of the mean answer minus the mean entropy of the answers, in nats (Houlsby et al. 2011).

    It is the mutual information of a record's class and the model's weights. Sums are kept as the answers are read:
    memory of one answer, however many there are.

    Args:
        samples: class probabilities ``(..., C)`` of every answer, at least one.

    Returns:
        ``(...,)`` in ``[0, ln C]``, higher is more worth labelling. Never below 0, as the mutual information is: what
        rounding leaves below it would otherwise order records that all have none.
    """
    count, total, entropies = 0, list[Tensor](), list[Tensor]()
    for probabilities in samples:
        shape = probabilities.shape
        blocks = blocks_of(probabilities.reshape(-1, shape[-1]), LARGE)
        if not count:
            # As blocks too: one large array a call is what the heap of a long run has no hole for.
            total, room = [torch.zeros_like(block) for block in blocks], torch.empty_like(blocks[0])
            entropies = [torch.zeros_like(block[:, 0]) for block in blocks]
        for block, mean, entropy in zip(blocks, total, entropies, strict=True):
            mean += block
            entropy += entropy_of_rows(block, room[: len(block)])
        count += 1
    gains = [entropy_of_rows(m.div_(count)) - e.div_(count) for m, e in zip(total, entropies, strict=True)]
    return torch.cat(gains).clamp_(min=0).reshape(shape[:-1])


@dataclass(frozen=True)
class BALD(SampledStrategy):
    """Query the records whose class says most about the weights: answers sure, each of another class.

    Source: N. Houlsby, F. Huszár, Z. Ghahramani and M. Lengyel, "Bayesian active learning for classification and
    preference learning", arXiv:1112.5745, 2011; with dropout, Y. Gal, R. Islam and Z. Ghahramani, "Deep Bayesian active
    learning with image data", ICML 2017.

    Example:
        >>> BALD(passes=10).passes
        10
    """

    score = staticmethod(bald_score)
