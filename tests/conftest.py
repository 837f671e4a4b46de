from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from al_lightning.features.cluster import Clusters, kmeans
from al_lightning.pool.view import PoolView


def view_of(
    size: int,
    *,
    labelled: Any = (),
    features: np.ndarray | None = None,
    clusters: Any = None,
    scores: Any = None,
    score_rounds: Any = None,
    label_costs: Any = None,
) -> PoolView:
    """A pool view by hand: what the pool would show a selector or a strategy."""
    by_kmeans = None if features is None else lambda k: kmeans(features, k, seed=0)
    by_hand = None if clusters is None else lambda k: Clusters(np.asarray(clusters, np.int32), np.zeros((k, 1)), 0.0)
    labelled = np.asarray(labelled, dtype=np.int64)
    scores = np.full(size, np.nan, np.float32) if scores is None else np.asarray(scores, np.float32)
    if score_rounds is None:
        score_rounds = np.where(np.isnan(scores), -1, 0)
    return PoolView(
        size=size,
        round=0,
        unlabelled=np.setdiff1d(np.arange(size), labelled),
        labelled=labelled,
        scores=scores,
        score_rounds=np.asarray(score_rounds, np.int32),
        label_costs=None if label_costs is None else np.asarray(label_costs, np.float64),
        load_features=None if features is None else lambda: features,
        load_clusters=by_hand or by_kmeans,
        load_shard_of=lambda: np.arange(size) // 4,
    )


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_tests() -> None:
    """A shell starts what it puts in the background deaf to Ctrl-C, and that is inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def make_view() -> Callable[..., PoolView]:
    return view_of
