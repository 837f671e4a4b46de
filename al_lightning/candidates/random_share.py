"""A random share of the pool: the cheaper selector every other one has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State, check_share, share_to_count
from al_lightning.moved import renamed_setting
from al_lightning.pool.view import PoolView


@renamed_setting(share="fraction")
@dataclass(frozen=True)
class RandomSubset(CandidateSelector):
    """Infer a fresh random share of the unlabelled records each round.

    Source: S. Ertekin et al., "Learning on the border: active learning in imbalanced data classification", CIKM 2007;
    D. Yoo and I. S. Kweon, "Learning loss for active learning", CVPR 2019.

    Args:
        fraction: of the unlabelled records, ``0 < fraction <= 1``. Never fewer records than the query needs.

    Example:
        >>> RandomSubset(0.1).count(unlabelled=900, size=10)
        90
    """

    fraction: float

    def __post_init__(self) -> None:
        check_share(self.fraction, type(self).__name__, "fraction")

    def count(self, *, unlabelled: int, size: int, price: float | None = None, turn: int = 0) -> int:
        return share_to_count(self.fraction, unlabelled, size)

    def _propose(
        self, *, view: PoolView, size: int, rng: np.random.Generator, state: State
    ) -> tuple[np.ndarray, State]:
        count = self.count(unlabelled=len(view.unlabelled), size=size)
        return rng.choice(view.unlabelled, size=count, replace=False), state
