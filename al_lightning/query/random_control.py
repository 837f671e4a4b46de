"""RandomControl: part of every query drawn at random, so that it can be seen what the rest is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from al_lightning.pool.view import PoolView
from al_lightning.query.random import random_ids
from al_lightning.query.wrapper import Around


@dataclass(frozen=True)
class RandomControl(Around):
    """Draw a share of every query at random, and leave the rest to a strategy.

    The control records are a uniform sample of all unlabelled records, candidates or not, whatever they score: what the
    model gets right among them before it is trained on them is its accuracy on what is still unlabelled, and no
    strategy that goes wrong can keep the labelled set away from a part of the pool.

    They stand at the end of the query, :meth:`controls` of them, and the run's record of the query holds no score for
    them (NULL in ``run.sqlite``), also where they have one: they were not picked by it.

    Source: a lower bound on every record's chance is that of A. Beygelzimer, S. Dasgupta and J. Langford, "Importance
    weighted active learning", ICML 2009; as a part of each batch it is common practice.

    Args:
        strategy: any.
        share: of the query, ``0 < share < 1``, rounded to whole records: none of a query of 4 at the default.

    Raises:
        ValueError: a share out of range, or control around control.

    Example:
        >>> from al_lightning.query import Margin
        >>> RandomControl(Margin()).needs_inference
        True
    """

    share: float = 0.1

    beyond_candidates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"RandomControl(share={self.share}): a share of the query, allowed: 0 < share < 1.")
        if self.strategy.beyond_candidates:
            raise ValueError("RandomControl(RandomControl(...)): one control share is enough; raise its share.")

    def controls(self, size: int) -> int:
        """Return how many at the end of a query of this size are control records."""
        return int(self.share * size + 0.5)

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        # Drawn first: from what a strategy has left over, they would be no sample of the pool.
        control = random_ids(view.unlabelled, self.controls(size), rng)
        left = ~np.isin(ids, control)
        rest = {name: values[left] for name, values in arrays.items()}
        picked = self.strategy.pick(view=view, ids=ids[left], arrays=rest, size=size - len(control), rng=rng)
        return np.concatenate([picked, control])
