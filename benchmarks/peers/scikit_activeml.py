"""scikit-activeml's strategies on arrays; run with its own interpreter: ``python -m benchmarks.peers.scikit_activeml``.

Functions on arrays where it has them. Its classes get a classifier that has the answer ready.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import (
    Badge,
    ProbCover,
    RandomSampling,
    TypiClust,
    batch_bald,
    k_greedy_center,
    uncertainty_scores,
)
from skactiveml.utils import simple_batch
from sklearn.cluster import MiniBatchKMeans

from benchmarks.peers.worker import serve


class Answers(SkactivemlClassifier):
    """A classifier that has been asked already."""

    def __init__(self, probabilities: Any = None) -> None:
        super().__init__(classes=list(range(probabilities.shape[1])))
        self.probabilities = probabilities

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Answers:
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.probabilities


def _labels(n: int, labelled: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Labels as it takes them: NaN where there is none."""
    labels = np.full(n, np.nan)
    labels[labelled] = classes[labelled]
    return labels


def _scores(probabilities: np.ndarray, size: int, method: str) -> Callable[[], Any]:
    return lambda: simple_batch(uncertainty_scores(probabilities, method=method), random_state=0, batch_size=size)


def least_confidence(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """simple_batch(uncertainty_scores(probabilities, method="least_confident"), batch_size=size)."""
    return _scores(probabilities, size, "least_confident")


def margin(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """simple_batch(uncertainty_scores(probabilities, method="margin_sampling"), batch_size=size)."""
    return _scores(probabilities, size, "margin_sampling")


def entropy(probabilities: np.ndarray, size: int) -> Callable[[], Any]:
    """simple_batch(uncertainty_scores(probabilities, method="entropy"), batch_size=size)."""
    return _scores(probabilities, size, "entropy")


def bald(samples: np.ndarray, size: int) -> Callable[[], Any]:
    """simple_batch(batch_bald(passes x N x C, batch_size=1)[0], batch_size=size), as GreedyBALD does."""
    return lambda: simple_batch(batch_bald(samples, batch_size=1, random_state=0)[0], random_state=0, batch_size=size)


def random(features: np.ndarray, size: int) -> Callable[[], Any]:
    """RandomSampling().query(X=features, y=no labels, batch_size=size)."""
    labels = np.full(len(features), np.nan)
    return lambda: RandomSampling(random_state=0).query(features, labels, batch_size=size)


def k_center(features: np.ndarray, labelled: np.ndarray, classes: np.ndarray, size: int) -> Callable[[], Any]:
    """k_greedy_center(features, labels, batch_size=size)[0]."""
    labels = _labels(len(features), labelled, classes)
    return lambda: k_greedy_center(features, labels, batch_size=size, random_state=0)[0]


def badge(probabilities: np.ndarray, features: np.ndarray, size: int) -> Callable[[], Any]:
    """Badge().query(features, no labels, clf=classifier with answers, fit_clf=False, batch_size=size)."""
    answers, labels = Answers(probabilities), np.full(len(features), np.nan)
    return lambda: Badge(random_state=0).query(features, labels, clf=answers, fit_clf=False, batch_size=size)


def typiclust(features: np.ndarray, labelled: np.ndarray, classes: np.ndarray, size: int) -> Callable[[], Any]:
    """TypiClust(cluster_algo=MiniBatchKMeans, k=20).query(features, labels, batch_size=size); its KMeans is slower."""
    labels = _labels(len(features), labelled, classes)
    strategy = TypiClust(cluster_algo=MiniBatchKMeans, k=20, random_state=0)
    return lambda: strategy.query(features, labels, batch_size=size)


def prob_cover(
    features: np.ndarray, labelled: np.ndarray, classes: np.ndarray, delta: np.ndarray, size: int
) -> Callable[[], Any]:
    """ProbCover(deltas=[delta]).query(features, labels, batch_size=size, update=True)."""
    labels = _labels(len(features), labelled, classes)
    strategy = ProbCover(deltas=[float(delta)], random_state=0)
    return lambda: strategy.query(features, labels, batch_size=size, update=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    functions = (least_confidence, margin, entropy, bald, random, k_center, badge, typiclust, prob_cover)
    serve({f.__name__: f for f in functions})
