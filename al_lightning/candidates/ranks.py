"""Ranks: how scores of unlike scale are compared and mixed."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of every value as a fraction of how many there are, ties at their mean.

    Args:
        values: ``(n,)``, finite.

    Returns:
        ``(n,)`` float64 in ``(0, 1]``, 1 for the highest.
    """
    _, value, ties = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(ties) - (ties - 1) / 2)[value] / len(values))
