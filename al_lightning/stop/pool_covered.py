"""Coverage: stop when what is left in the pool has labelled records close by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from al_lightning.features.neighbours import distance_to_nearest
from al_lightning.history import History, Reason

DIMS = 32
"""Width the features are projected to before distances are taken."""
SAMPLE = 500
"""Unlabelled records that are looked at."""


def covered_share(left: np.ndarray, labelled: np.ndarray) -> tuple[float, float]:
    """Share of unlabelled records with a labelled one no farther off than records like them are from each other.

    Coverage as ProbCover defines it (Yehuda et al., 2022, arXiv:2205.11320). Its radius is here the median distance of
    the records in ``left`` to the nearest other one of them, which needs no classes; a random labelled set as large as
    ``left`` covers about half.

    Args:
        left: features of a random sample of the unlabelled records, ``(n, d)`` float32, at least two.
        labelled: features of all labelled records, ``(m, d)`` float32, at least one.

    Returns:
        The share, 0 to 1, and the floating-point operations it took, ``2 n (n + m) d``.
    """
    distance, flops = distance_to_nearest(left, labelled)
    product = left @ left.T
    norms = np.diagonal(product)
    squared = norms[:, None] + norms[None] - 2 * product
    np.fill_diagonal(squared, np.inf)
    radius = np.median(np.sqrt(np.maximum(squared.min(axis=1), 0)))
    return float(np.mean(distance <= radius)), flops + 2.0 * len(left) ** 2 * left.shape[1]


def coverage_flops(unlabelled: int, labelled: int, width: int) -> float:
    """Floating-point operations of measuring coverage after a fit, of features of this width."""
    looked_at = min(SAMPLE, unlabelled)
    return 2.0 * looked_at * (looked_at + labelled) * min(DIMS, width)


@dataclass(frozen=True)
class Coverage:
    """Stop when a share of the unlabelled records is covered by labelled ones, in the pool's features.

    It knows nothing of the model or of classes: what it finds is that the labels have been everywhere, not that they
    have taught enough.

    Args:
        share: of a random sample of unlabelled records that must be covered (see :func:`covered_share`).

    Raises:
        ValueError: a value out of range.

    Example:
        >>> Coverage(0.9)(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    share: float = 0.9

    needs: ClassVar[frozenset[str]] = frozenset({"coverage"})

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"Coverage(share={self.share}): allowed: 0 < share <= 1.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the last round's coverage."""
        found = history.rounds[-1].coverage if history.rounds else None
        if found is None or not found >= self.share:
            return None
        sentence = f"{found:.0%} of what is left in the pool is covered by labelled records, {self.share:.0%} is enough"
        return Reason("covered", sentence, {"coverage": found, "share": self.share})
