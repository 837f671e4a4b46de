"""The whole pool: ordinary active learning, the reference the cheaper selectors are measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State
from al_lightning.pool.view import PoolView


@dataclass(frozen=True)
class WholePool(CandidateSelector):
    """Infer every unlabelled record, every round.

    Example:
        >>> WholePool().count(unlabelled=900, size=10)
        900
    """

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        return view.unlabelled, state
