"""baal's heuristics on arrays; run with baal's own interpreter: ``python -m benchmarks.peers.baal``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from baal.active.heuristics import BALD, Certainty, Entropy, Margin, Random
from baal.active.heuristics.stochastics import PowerSampling

from benchmarks.peers.worker import serve


def least_confidence(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """Certainty()(probabilities)[:size]."""
    return lambda: Certainty()(probabilities)[:size]


def margin(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """Margin()(probabilities)[:size]."""
    return lambda: Margin()(probabilities)[:size]


def entropy(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """Entropy()(probabilities)[:size]."""
    return lambda: Entropy()(probabilities)[:size]


def bald(samples: np.ndarray, size: int) -> Callable[[], Any]:
    """BALD()(N x C x passes, contiguous)[:size]."""
    passes_last = np.ascontiguousarray(samples.transpose(1, 2, 0))
    return lambda: BALD()(passes_last)[:size]


def power(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """PowerSampling(Entropy(), size).get_ranks(probabilities)[0]."""
    return lambda: PowerSampling(Entropy(), size).get_ranks(probabilities)[0]


def random(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """Random()(probabilities)[:size]."""
    return lambda: Random()(probabilities)[:size]


if __name__ == "__main__":
    serve({f.__name__: f for f in (least_confidence, margin, entropy, bald, power, random)})
