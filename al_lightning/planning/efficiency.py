"""What labels are worth that are bought in larger rounds: the price, in labels, of saving compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from al_lightning.errors import ActiveLearningError

REFERENCE_ROUNDS = 20
"""Rounds of the ordinary active learning that a project's ``labels`` are counted in."""
FRUGAL_WORTH = 0.86
"""What a label is worth under ``experiment=frugal``'s other levers, beside ordinary active learning in the same rounds:
the mean of six protocols, 0.74 to 0.96 (``fitted`` in benchmarks/results/planner.json, with a ResNet-18 at 0.66 since).
"""


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


def whole_sizes(labels: int, shares: Sequence[float]) -> list[int]:
    """Shares as labels per round, each one or more, in whole numbers that add up.

    Args:
        labels: all of them, one per round at least.
        shares: after each round, ascending to 1.
    """
    after, sizes = 0, []
    for left, share in zip(range(len(shares) - 1, -1, -1), shares, strict=True):
        to = min(max(after + 1, round(share * labels)), labels - left)
        sizes.append(to - after)
        after = to
    return sizes


class Observation(NamedTuple):
    """Hold what runs have shown of a schedule.

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
    """Hold how much a label is worth, by how far the model had come that picked it.

    A label picked by a model trained on m of B labels is worth ``random + (1 - random) * (m / B) ** maturity`` of one
    that a model of all of them had picked. The first round is picked by nobody. So one round is random sampling; larger
    rounds are paid for in labels, and so are small first ones, whose models know little.

    The defaults are fitted to the savings benchmarks and to rounds that grow (``fitted`` in
    benchmarks/results/planner.json).

    Args:
        random: worth of a label drawn at random, 0 to 1; 1: there is nothing to gain by selecting.
        maturity: exponent, 0 or more; 0: only the first round is paid for.
    """

    random: float = 0.33
    maturity: float = 1.8

    def __post_init__(self) -> None:
        if not 0 < self.random <= 1:
            raise ActiveLearningError(f"random={self.random}: what random labels are worth, allowed: 0 < random <= 1.")
        if not 0 <= self.maturity < float("inf"):
            raise ActiveLearningError(f"maturity={self.maturity}: an exponent, allowed: 0 or more.")

    def worth(self, shares: Sequence[float]) -> float:
        """Mean worth of the labels of a schedule.

        Args:
            shares: labels after each round, ascending; in any unit.
        """
        after = np.asarray(shares, dtype=float) / shares[-1]
        picked = np.sum(np.diff(after) * after[:-1] ** self.maturity)
        return float(self.random + (1 - self.random) * picked)

    def needed(self, labels: int, shares: Sequence[float], worth: float = 1.0, taken: float = 0.0) -> int:
        """Labels a schedule takes to be as good as ordinary active learning in :data:`REFERENCE_ROUNDS`.

        Where that would label a share of the pool, any other way picks as large a share of the same records, by chance
        alone, and those are worth as much: of a pool that is labelled almost whole, little is gained by choosing.

        Args:
            labels: of ordinary active learning.
            shares: labels after each round of the schedule, as shares of all.
            worth: of its labels for other reasons than its rounds.
            taken: share of the pool that ``labels`` are.
        """
        beside = self.worth(shares) * worth / self.worth(even(REFERENCE_ROUNDS))
        return int(np.ceil(labels / (taken + (1 - taken) * beside) - 1e-9))

    @classmethod
    def fit(cls, observations: Iterable[Observation]) -> Efficiency:
        """The one that observations fit best, by least squares on a grid."""
        seen = list(observations)

        def misfit(candidate: Efficiency) -> float:
            return sum((candidate.worth(o.shares) / candidate.worth(o.beside) - o.worth) ** 2 for o in seen)

        grid = [cls(r / 100, m / 20) for r in range(20, 101) for m in range(61)]
        return min(grid, key=misfit)
