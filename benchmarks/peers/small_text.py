"""small-text's strategies on arrays; run with its own interpreter: ``python -m benchmarks.peers.small_text``.

Its strategies ask a classifier for the whole dataset; the classifier here has the answer ready.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from small_text.query_strategies import (
    BALD,
    BreakingTies,
    EmbeddingKMeans,
    LeastConfidence,
    PredictionEntropy,
    RandomSampling,
    greedy_coreset,
)

from benchmarks.peers.worker import serve

NONE = np.zeros(0, dtype=int)


class Answers:
    """A classifier that has been asked already."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self._probabilities = probabilities

    def predict_proba(self, dataset: Any, **settings: Any) -> np.ndarray:
        return self._probabilities


def _query(strategy: Any, probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    everyone = np.arange(len(probabilities))
    return lambda: strategy.query(Answers(probabilities), None, everyone, NONE, NONE, n=size)


def least_confidence(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """LeastConfidence().query(classifier with answers, ..., n=size)."""
    return _query(LeastConfidence(), probabilities, size)


def margin(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """BreakingTies().query(classifier with answers, ..., n=size)."""
    return _query(BreakingTies(), probabilities, size)


def entropy(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """PredictionEntropy().query(classifier with answers, ..., n=size)."""
    return _query(PredictionEntropy(), probabilities, size)


def bald(samples: np.ndarray, size: int) -> Callable[[], Any]:
    """BALD().query(classifier with answers, N x passes x C contiguous, ..., n=size)."""
    return _query(BALD(), np.ascontiguousarray(samples.transpose(1, 0, 2)), size)


def random(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """RandomSampling().query(..., n=size)."""
    return _query(RandomSampling(), probabilities, size)


def k_center(features: np.ndarray, labelled: np.ndarray, size: int) -> Callable[[], Any]:
    """greedy_coreset(features, unlabelled, labelled, size, distance_metric="euclidean", batch_size=1000)."""
    unlabelled = np.setdiff1d(np.arange(len(features)), labelled)
    settings: dict[str, Any] = {"distance_metric": "euclidean", "batch_size": 1000}
    return lambda: unlabelled[greedy_coreset(features, unlabelled, labelled, size, **settings)]


def k_means(features: np.ndarray, size: int) -> Callable[[], Any]:
    """EmbeddingKMeans(normalize=False).sample(..., n=size, embeddings=features)."""
    strategy, everyone = EmbeddingKMeans(normalize=False), np.arange(len(features))
    return lambda: strategy.sample(None, None, everyone, NONE, NONE, size, features)


def badge(probabilities: np.ndarray, features: np.ndarray, size: int) -> Callable[[], Any]:
    """integrations.pytorch BADGE(C).sample(..., n=size, embeddings=features, embeddings_proba=probabilities)."""
    from small_text.integrations.pytorch.query_strategies import BADGE

    strategy, everyone = BADGE(probabilities.shape[1]), np.arange(len(features))
    return lambda: strategy.sample(None, None, everyone, NONE, NONE, size, features, embeddings_proba=probabilities)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve({f.__name__: f for f in (least_confidence, margin, entropy, bald, random, k_center, k_means, badge)})
