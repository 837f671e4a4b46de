from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from al_lightning.errors import PoolExhausted
from al_lightning.query import random_ids


def test_every_id_is_as_likely():
    ids, rng = np.arange(100, 120), np.random.default_rng(0)
    drawn = np.concatenate([random_ids(ids, 5, rng) for _ in range(800)])
    assert scipy.stats.chisquare(np.bincount(drawn - 100, minlength=20)).pvalue > 1e-3


def test_more_than_there_are_is_refused():
    with pytest.raises(PoolExhausted, match="3 candidates requested, 2 available"):
        random_ids(np.arange(2), 3, np.random.default_rng(0))
