"""BALD: the records about whose class sampled answers are sure, and disagree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from al_lightning.query.base import SampledStrategy
from al_lightning.query.entropy import entropy_of_rows
from al_lightning.query.rows import LARGE, by_rows


def bald_score(samples: Iterable[Tensor]) -> Tensor:
    """Entropy of the mean answer minus the mean entropy of the answers, in nats (Houlsby et al. 2011).

    It is the mutual information of a record's class and the model's weights. Sums are kept as the answers are read:
    memory of one answer, however many there are.

    Args:
        samples: class probabilities ``(..., C)`` of every answer, at least one.

    Returns:
        ``(...,)`` in ``[0, ln C]``, higher is more worth labelling. Never below 0, as the mutual information is: what
        rounding leaves below it would otherwise order records that all have none.
    """
    answers, count = iter(samples), 1
    total = next(answers).clone()
    entropies = _entropies(total)
    for probabilities in answers:
        total += probabilities
        entropies += _entropies(probabilities)
        count += 1
    return (_entropies(total.div_(count)) - entropies.div_(count)).clamp_(min=0)


def _entropies(probabilities: Tensor) -> Tensor:
    return by_rows(entropy_of_rows, probabilities, LARGE)  # one answer is in memory anyway


@dataclass(frozen=True)
class BALD(SampledStrategy):
    """Query the records whose class says most about the weights: answers sure, each of another class.

    Source: N. Houlsby, F. Huszár, Z. Ghahramani and M. Lengyel, "Bayesian active learning for classification and
    preference learning", arXiv:1112.5745, 2011; with dropout, Y. Gal, R. Islam and Z. Ghahramani, "Deep Bayesian active
    learning with image data", ICML 2017.
    """

    score = staticmethod(bald_score)
