"""Our strategies on arrays, for ``benchmarks/selection.py``: how each is called, and what it must pick.

A reference is written as plainly as can be, in float64. It shows that picks are right; it is nobody's competitor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_lightning.features.cluster import kmeans
from al_lightning.pool.view import PoolView
from al_lightning.query import (
    TypiClust,
    badge_picks,
    bald_score,
    entropy_score,
    k_center_greedy,
    least_confidence_score,
    margin_score,
    mean_cosine,
    nearest_to_centroids,
    perturbed_scores,
    prob_cover_picks,
    random_ids,
)
from al_lightning.query.base import top
from benchmarks.peers.worker import serve

Picks = Callable[[], Any]


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _rest(n: int, labelled: np.ndarray) -> np.ndarray:
    return np.setdiff1d(np.arange(n), labelled)


def _scored(score: Callable[[Tensor], Tensor], probabilities: np.ndarray, size: int) -> Picks:
    return lambda: top(score(torch.from_numpy(probabilities)).numpy(), size, _rng())


def least_confidence(probabilities: np.ndarray, size: int) -> Picks:
    """top(least_confidence_score(probabilities), size)."""
    return _scored(least_confidence_score, probabilities, size)


def margin(probabilities: np.ndarray, size: int) -> Picks:
    """top(margin_score(probabilities), size)."""
    return _scored(margin_score, probabilities, size)


def entropy(probabilities: np.ndarray, size: int) -> Picks:
    """top(entropy_score(probabilities), size)."""
    return _scored(entropy_score, probabilities, size)


def bald(samples: np.ndarray, size: int) -> Picks:
    """top(bald_score(passes one by one, each N x C), size)."""
    return lambda: top(bald_score(torch.from_numpy(answer) for answer in samples).numpy(), size, _rng())


def power(probabilities: np.ndarray, size: int) -> Picks:
    """top(perturbed_scores(entropy_score(probabilities), "power", 1.0), size)."""

    def call() -> Any:
        rng = _rng()
        scores = entropy_score(torch.from_numpy(probabilities)).numpy()
        return top(perturbed_scores(scores, "power", 1.0, rng), size, rng)

    return call


def random(probabilities: np.ndarray, size: int) -> Picks:
    """random_ids(ids, size)."""
    ids = np.arange(len(probabilities))
    return lambda: random_ids(ids, size, _rng())


def information_density(probabilities: np.ndarray, features: np.ndarray, size: int) -> Picks:
    """top(entropy_score(probabilities) * max(mean_cosine(features), 0), size)."""
    ids = np.arange(len(features))

    def call() -> Any:
        scores = entropy_score(torch.from_numpy(probabilities)).numpy()
        return top(scores * np.maximum(mean_cosine(features, ids, ids)[0], 0), size, _rng())

    return call


def k_center(features: np.ndarray, labelled: np.ndarray, size: int) -> Picks:
    """k_center_greedy(features, unlabelled, labelled, size)."""
    ids = _rest(len(features), labelled)
    return lambda: k_center_greedy(features, ids, labelled, size, _rng())


def k_means(features: np.ndarray, size: int) -> Picks:
    """nearest_to_centroids(features, ids, size)[0]."""
    ids = np.arange(len(features))
    return lambda: nearest_to_centroids(features, ids, size, _rng())[0]


def badge(probabilities: np.ndarray, features: np.ndarray, size: int) -> Picks:
    """badge_picks(probabilities - onehot(argmax), features, size)."""

    def call() -> Any:
        errors = probabilities.copy()
        errors[np.arange(len(errors)), probabilities.argmax(axis=1)] -= 1
        return badge_picks(errors, features, size, _rng())

    return call


def typiclust(features: np.ndarray, labelled: np.ndarray, size: int) -> Picks:
    """TypiClust().pick(...), clustering included."""
    ids = _rest(len(features), labelled)
    unscored = np.full(len(features), np.nan, np.float32), np.full(len(features), -1, np.int32)
    view = PoolView(
        size=len(features),
        round=1,
        unlabelled=ids,
        labelled=labelled,
        scores=unscored[0],
        score_rounds=unscored[1],
        load_features=lambda: features,
        load_clusters=lambda n_clusters: kmeans(features, n_clusters, seed=0),
    )
    return lambda: TypiClust().pick(view=view, ids=ids, size=size, rng=_rng())


def prob_cover(features: np.ndarray, labelled: np.ndarray, delta: np.ndarray, size: int) -> Picks:
    """prob_cover_picks(features, unlabelled, labelled, size, delta)."""
    ids = _rest(len(features), labelled)
    return lambda: prob_cover_picks(features, ids, labelled, size, float(delta), _rng())


STRATEGIES: dict[str, Callable[..., Picks]] = {
    f.__name__: f
    for f in (
        least_confidence,
        margin,
        entropy,
        bald,
        power,
        random,
        information_density,
        k_center,
        k_means,
        badge,
        typiclust,
        prob_cover,
    )
}


# ---- what the deterministic ones must pick -------------------------------------------------------------------------


def _entropy64(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=-1)


def _best(scores: np.ndarray, size: int) -> np.ndarray:
    return np.argsort(-scores)[:size]


def _by_least_confidence(probabilities: np.ndarray, size: int) -> np.ndarray:
    return _best(1 - probabilities.astype(float).max(axis=1), size)


def _by_margin(probabilities: np.ndarray, size: int) -> np.ndarray:
    ordered = np.sort(probabilities.astype(float), axis=1)
    return _best(ordered[:, -2] - ordered[:, -1], size)


def _by_entropy(probabilities: np.ndarray, size: int) -> np.ndarray:
    return _best(_entropy64(probabilities.astype(float)), size)


def _by_bald(samples: np.ndarray, size: int) -> np.ndarray:
    mean, entropies = np.zeros(samples.shape[1:]), np.zeros(samples.shape[1])
    for answer in samples:
        mean += answer / len(samples)
        entropies += _entropy64(answer.astype(float)) / len(samples)
    return _best(_entropy64(mean) - entropies, size)


def _by_information_density(probabilities: np.ndarray, features: np.ndarray, size: int) -> np.ndarray:
    unit = features / np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    similar = np.concatenate([(part @ unit.T).mean(axis=1) for part in np.array_split(unit, 1 + len(unit) // 500)])
    return _best(_entropy64(probabilities.astype(float)) * np.maximum(similar, 0), size)


def _by_k_center(features: np.ndarray, labelled: np.ndarray, size: int) -> np.ndarray:
    rows, picked = features.astype(float), list[int]()
    nearest = np.full(len(rows), np.inf)
    for center in [*labelled, *[None] * size]:
        if center is None:
            center = int(nearest.argmax())
            picked.append(center)
        nearest = np.minimum(nearest, ((rows - rows[center]) ** 2).sum(axis=1))
    return np.array(picked)


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "least_confidence": _by_least_confidence,
    "margin": _by_margin,
    "entropy": _by_entropy,
    "bald": _by_bald,
    "information_density": _by_information_density,
    "k_center": _by_k_center,
}
"""By strategy, on the same arrays; quadratic ones are asked on small pools only."""


if __name__ == "__main__":
    serve(STRATEGIES)
