"""DistanceWeighted: a score, mixed with how far a record lies from everything that is labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.ranks import ranks
from al_lightning.pool.view import PoolView
from al_lightning.query.wrapper import Wrapper


@dataclass(frozen=True)
class DistanceWeighted(Wrapper):
    """Query what scores well and lies far from the labelled records.

    A model that was trained for an epoch or two is unsure of much that is labelled already, and of all that lies beside
    it: by its score alone it buys labels next to labels. The distance to the nearest labelled record takes that back,
    at the price of a neighbour search in a few dimensions. Ranks are mixed, so neither needs a scale.

    Source: a convex mix of uncertainty and distance is that of K. Brinker, "Incorporating diversity in active learning
    with support vector machines", ICML 2003; there within a query, here towards what is labelled.

    Args:
        strategy: one that gives a score per record.
        weight: of the distance, ``0 < weight < 1``; the score has the rest.
        dims: width of the random projection in which distances are taken; narrower features are used as they are.

    Raises:
        ValueError: a strategy without a score, or a setting out of range.

    Example:
        >>> from al_lightning.query import Margin
        >>> sorted(DistanceWeighted(Margin()).requires)
        ['features', 'logits']
    """

    weight: float = 0.3
    dims: int = 8

    adds = frozenset({"features"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.weight < 1:
            raise ValueError(f"DistanceWeighted(weight={self.weight}): of the distance, allowed: 0 < weight < 1.")
        if self.dims < 1:
            raise ValueError(f"DistanceWeighted(dims={self.dims}): a number of dimensions, allowed: 1 or more.")

    def worth(
        self, *, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """The mix of ranks."""
        scores = super().worth(view=view, ids=ids, arrays=arrays, rng=rng)
        distance = ranks(view.distance_to_labelled(ids, self.dims))
        return (1 - self.weight) * ranks(scores) + self.weight * distance
