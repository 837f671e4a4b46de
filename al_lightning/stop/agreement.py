"""StabilizingPredictions and ClassificationChange: stop when rounds no longer change what is predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from al_lightning.history import History, Reason
from al_lightning.stop.base import last_agreements


def is_stable(agreement: Sequence[float], threshold: float) -> bool:
    """Return whether the mean agreement has reached the threshold; never where a value is NaN or there is none."""
    return bool(agreement) and math.fsum(agreement) / len(agreement) >= threshold


@dataclass(frozen=True)
class StabilizingPredictions:
    """Stop when the last models agree on the stop set: mean Cohen's kappa of consecutive ones.

    The stop set is a random sample of the pool that is never queried, so it is unbiased (Kurlandski & Bloodgood, 2022,
    arXiv:2201.05460), and unlabelled: no label is spent on the decision.

    Source: M. Bloodgood and K. Vijay-Shanker, "A method for stopping active learning based on stabilizing predictions
    and the need for user-adjustable stopping", CoNLL 2009, arXiv:1409.5165; thresholds: "Analysis of stopping active
    learning based on stabilizing predictions", CoNLL 2013, arXiv:1504.06329.

    Args:
        threshold: mean kappa to reach; lower stops earlier.
        models: how many of the last models are compared, each with the one before it. Where a round adds a quarter of
            the labels or more, 2 is enough.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> StabilizingPredictions(0.99)(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    threshold: float = 0.99
    models: int = 3

    needs: ClassVar[frozenset[str]] = frozenset({"agreement"})

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"StabilizingPredictions(threshold={self.threshold}): allowed: 0 < threshold <= 1.")
        if self.models < 2:
            raise ValueError(f"StabilizingPredictions(models={self.models}): allowed: 2 or more.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the agreement of the last rounds."""
        kappa = last_agreements(history, self.models - 1)
        if kappa is None or not is_stable(kappa, self.threshold):
            return None
        mean = math.fsum(kappa) / len(kappa)
        sentence = f"the last {self.models} models agree on the stop set: kappa {mean:.4g} of {self.threshold:g}"
        return Reason("stable", sentence, {"agreement": kappa, "mean": mean, "threshold": self.threshold})


@dataclass(frozen=True)
class ClassificationChange:
    """Stop when a round has changed no prediction on the stop set.

    Source: J. Zhu, H. Wang and E. Hovy, "Multi-criteria-based strategy to stop active learning for data annotation",
    COLING 2008; there on the whole pool, here on an unbiased sample of it.

    Args:
        rounds: rounds in a row that must have changed nothing.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> ClassificationChange()(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    rounds: int = 1

    needs: ClassVar[frozenset[str]] = frozenset({"agreement"})

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"ClassificationChange(rounds={self.rounds}): allowed: 1 or more.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the agreement of the last rounds, which is 1 only where no prediction has changed."""
        kappa = last_agreements(history, self.rounds)
        if kappa is None or not is_stable(kappa, 1.0):
            return None
        sentence = f"no prediction on the stop set has changed in {self.rounds} round{'s' * (self.rounds > 1)}"
        return Reason("unchanged", sentence, {"agreement": kappa})
