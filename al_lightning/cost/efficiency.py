"""What labels are worth that are bought in larger rounds: the price, in labels, of saving compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from al_lightning.errors import ActiveLearningError

REFERENCE_ROUNDS = 20
"""Rounds of the ordinary active learning that a project's ``labels`` are counted in."""
FRUGAL_WORTH = 0.87
"""What a label is worth under ``experiment=frugal``'s other levers, beside ordinary active learning in the same rounds:
the mean of five protocols, 0.74 to 0.97 (``fitted`` in benchmarks/results/planner.json)."""


def even(rounds: int) -> list[float]:
    """Labels after each of so many equal rounds, as shares of all."""
    return [(i + 1) / rounds for i in range(rounds)]


def growing(rounds: int, growth: float) -> list[float]:
    """Labels after each round, as shares of all, where every round is ``growth`` times the one before.

    Args:
        rounds: how many.
        growth: 1 for equal rounds.
    """
    sizes = growth ** np.arange(rounds, dtype=float)
    shares: list[float] = (np.cumsum(sizes) / sizes.sum()).tolist()
    return shares


class Observation(NamedTuple):
    """What runs have shown of a schedule.

    Args:
        shares: labels after each of its rounds, as shares of all.
        beside: those of the schedule it was compared with.
        worth: labels of that one that its labels were as good as / its labels.
    """

    shares: Sequence[float]
    beside: Sequence[float]
    worth: float


@dataclass(frozen=True)
class Efficiency:
    """How much a label is worth, by how old the model was that picked it.

    A label that is bought as the n-th, picked by a model trained on m of them, is worth ``random + (1 - random) * (m /
    n) ** staleness`` of one that a model of all earlier labels had picked. The first round is picked by nobody. So one
    round is random sampling, and ever smaller rounds approach 1; larger rounds are paid for in labels, and least where
    they grow with what is labelled.

    The defaults are fitted to the savings benchmarks (``fitted`` in benchmarks/results/planner.json).

    Args:
        random: worth of a label drawn at random, 0 to 1; 1: there is nothing to gain by selecting.
        staleness: exponent, 0 or more; 0: only the first round is paid for.
    """

    random: float = 0.51
    staleness: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.random <= 1:
            raise ActiveLearningError(f"random={self.random}: what random labels are worth, allowed: 0 < random <= 1.")
        if not 0 <= self.staleness < float("inf"):
            raise ActiveLearningError(f"staleness={self.staleness}: an exponent, allowed: 0 or more.")

    def worth(self, shares: Sequence[float]) -> float:
        """Mean worth of the labels of a schedule.

        Args:
            shares: labels after each round, ascending; in any unit.
        """
        to = np.asarray(shares, dtype=float)
        after = np.concatenate([[0.0], to[:-1]])[1:], to[1:]
        return float((self.random * to[-1] + (1 - self.random) * self._fresh(*after)) / to[-1])

    def _fresh(self, a: np.ndarray, n: np.ndarray) -> float:
        # The integral of (a / x) ** staleness over a round from a to n labels.
        if self.staleness == 1:
            return float(np.sum(a * np.log(n / a)))
        power = 1 - self.staleness
        return float(np.sum(a**self.staleness * (n**power - a**power) / power))

    def needed(self, labels: int, shares: Sequence[float], worth: float = 1.0) -> int:
        """Labels a schedule takes to be as good as ordinary active learning in :data:`REFERENCE_ROUNDS`.

        Args:
            labels: of ordinary active learning.
            shares: labels after each round of the schedule, as shares of all.
            worth: of its labels for other reasons than its rounds.
        """
        reference = self.worth(even(REFERENCE_ROUNDS))
        return int(np.ceil(labels * reference / (self.worth(shares) * worth) - 1e-9))

    @classmethod
    def fit(cls, observations: Iterable[Observation]) -> Efficiency:
        """The one that observations fit best, by least squares on a grid."""
        seen = list(observations)

        def misfit(candidate: Efficiency) -> float:
            return sum((candidate.worth(o.shares) / candidate.worth(o.beside) - o.worth) ** 2 for o in seen)

        grid = [cls(r / 100, s / 20) for r in range(30, 101) for s in range(61)]
        return min(grid, key=misfit)
