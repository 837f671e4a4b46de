from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from al_lightning.candidates import RandomSubset, Representatives, WholePool


def propose(selector, view, size=1, seed=0, state=None):
    return selector.propose(view=view, size=size, rng=np.random.default_rng(seed), state=state or {})


def test_whole_pool_is_everything_unlabelled(make_view):
    ids, state = propose(WholePool(), make_view(6, labelled=[4, 1]))
    assert ids.tolist() == [0, 2, 3, 5]
    assert state == {}


@pytest.mark.parametrize(("share", "size", "count"), [(0.25, 1, 20), (0.251, 1, 21), (1.0, 1, 80), (0.1, 30, 30)])
def test_share_is_of_the_unlabelled_and_leaves_room_for_the_query(make_view, share, size, count):
    view = make_view(100, labelled=range(20), features=np.random.default_rng(0).normal(size=(100, 2)))
    assert len(propose(RandomSubset(share), view, size)[0]) == count
    assert len(propose(Representatives(share), view, size)[0]) == count


def test_every_record_is_as_likely_in_a_random_share(make_view):
    view = make_view(20)
    drawn = np.concatenate([propose(RandomSubset(0.25), view, seed=seed)[0] for seed in range(800)])
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=20)).pvalue > 1e-3


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
@pytest.mark.parametrize("selector", [RandomSubset, Representatives])
def test_a_share_is_a_fraction(selector, share):
    name = "fraction" if selector is RandomSubset else "share"
    with pytest.raises(ValueError, match=rf"{selector.__name__}\({name}={share}\).*0 < {name} <= 1"):
        selector(share)
