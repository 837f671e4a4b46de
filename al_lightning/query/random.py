"""Random: the query every other strategy has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.errors import PoolExhausted
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy


def random_ids(ids: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``size`` of the ids ``(n,)`` uniformly, without replacement.

    Raises:
        PoolExhausted: fewer ids than ``size``.
    """
    if size > len(ids):
        raise PoolExhausted(size, len(ids), "candidates")
    return rng.choice(ids, size=size, replace=False)


@dataclass(frozen=True)
class Random(Strategy):
    """Query at random. Nothing is required of the model, so nothing is inferred and selection costs nothing.

    Example:
        >>> Random().needs_inference
        False
    """

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return random_ids(ids, size, rng)
