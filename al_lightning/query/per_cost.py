"""PerCost: what a record is worth for each unit of what its own label costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.errors import ActiveLearningError
from al_lightning.pool.view import PoolView
from al_lightning.query.wrapper import Wrapper, check_not_negative


def score_per_cost(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Divide the score by the labelling cost (Settles et al. 2008).

    Args:
        scores: ``(n,)``, 0 or more.
        costs: ``(n,)``, above 0.

    Returns:
        ``(n,)`` float64.
    """
    return scores.astype(np.float64) / costs


@dataclass(frozen=True)
class PerCost(Wrapper):
    """Query the records with the highest score for the money.

    Labels differ in price: a long document takes longer to read than a short one. The prices are
    ``PoolDataModule(label_costs=...)``, multiples of ``Prices.label``; the bill prices labels by them, and
    ``Budget(money=...)`` limits what they add up to. The size of a query remains a number of labels.

    Source: B. Settles, M. Craven and L. Friedland, "Active learning with real annotation costs", NIPS workshop on
    cost-sensitive learning, 2008.

    Args:
        strategy: one that gives a score of 0 or more per record.

    Raises:
        ValueError: a strategy without a score.
        ActiveLearningError: when picking, a pool without label costs.
        NegativeScores: when picking, scores below 0; the ids are named.

    Example:
        >>> from al_lightning.query import Margin
        >>> PerCost(Margin()).columns
        ('score',)
    """

    def worth(
        self, *, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """The score per unit of cost."""
        if view.label_costs is None:
            raise ActiveLearningError(
                "PerCost() weighs scores by what each label costs, and the pool was given no costs. Pass "
                "PoolDataModule(label_costs=...): (N,) numbers above 0, multiples of Prices(label=...)."
            )
        scores = super().worth(view=view, ids=ids, arrays=arrays, rng=rng)
        check_not_negative(scores, ids, "PerCost")
        return score_per_cost(scores, view.label_costs[ids])
