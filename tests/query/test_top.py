from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import scipy.stats

from al_lightning.query.base import top


def by_sorting(scores, size, rng):
    return np.lexsort((rng.random(len(scores)), -scores))[:size]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 499, 500])
def test_without_ties_it_is_a_sort(size, dtype):
    scores = np.random.default_rng(size).normal(size=500).astype(dtype)
    scores[3] = -np.inf
    found = top(scores, size, np.random.default_rng(0))
    assert found.tolist() == by_sorting(scores, size, np.random.default_rng(1)).tolist()
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    "scores", [[2, 1, 1, 1, 0], [2, 2, 1, 1, 1], [1, 1, 1, 1, 1], [3, 3, 3, -np.inf, -np.inf]], ids=str
)
def test_ties_fall_as_a_sort_with_random_keys_lets_them(scores):
    scores, rng = np.array(scores, dtype=np.float32), np.random.default_rng(0)
    counts = [Counter(tuple(f(scores, 3, rng).tolist()) for _ in range(4000)) for f in (top, by_sorting)]
    assert counts[0].keys() == counts[1].keys()  # the same orders, also within a tie, are possible
    observed = np.array([[count[order] for order in counts[0]] for count in counts])
    if observed.shape[1] > 1:
        assert scipy.stats.chi2_contingency(observed).pvalue > 1e-3
