"""modAL's strategies on arrays; run with its own interpreter: ``python -m benchmarks.peers.modal``.

Its strategies ask a classifier for the whole pool; the classifier here has the answer ready.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from modAL import density
from modAL.uncertainty import (
    classifier_entropy,
    entropy_sampling,
    margin_sampling,
    uncertainty_sampling,
)
from modAL.utils.selection import multi_argmax

from benchmarks.peers.worker import serve


class Answers:
    """A classifier that has been asked already."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self._probabilities = probabilities

    def predict_proba(self, X: Any, **settings: Any) -> np.ndarray:
        return self._probabilities


def _query(strategy: Callable[..., Any], probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    return lambda: strategy(Answers(probabilities), probabilities, n_instances=size)[0]


def least_confidence(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """uncertainty_sampling(classifier with answers, X, n_instances=size)[0]."""
    return _query(uncertainty_sampling, probabilities, size)


def margin(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """margin_sampling(classifier with answers, X, n_instances=size)[0]."""
    return _query(margin_sampling, probabilities, size)


def entropy(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """entropy_sampling(classifier with answers, X, n_instances=size)[0]."""
    return _query(entropy_sampling, probabilities, size)


def information_density(probabilities: np.ndarray, features: np.ndarray, size: int) -> Callable[[], Any]:
    """multi_argmax(classifier_entropy(...) * modAL.density.information_density(features, "euclidean"), size)[0]."""

    def call() -> Any:
        similar = density.information_density(features, "euclidean")
        return multi_argmax(classifier_entropy(Answers(probabilities), probabilities) * similar, size)[0]

    return call


if __name__ == "__main__":
    serve({f.__name__: f for f in (least_confidence, margin, entropy, information_density)})
