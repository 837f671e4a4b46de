from __future__ import annotations

import json

import numpy as np
import pytest

from al_lightning.candidates import SEALS, WholePool
from al_lightning.errors import FeaturesMissing

N = 80
LABELLED = [3, 17, 40]
FEATURES = np.random.default_rng(5).normal(size=(N, 4)).astype(np.float32)
SCORES = np.where(np.arange(N) % 2, np.nan, np.linspace(0, 1, N))


@pytest.fixture
def propose(make_view):
    def propose(selector, *, size=5, seed=0, state=None, labelled=LABELLED, features=FEATURES, scores=None):
        view = make_view(N, labelled=labelled, features=features, scores=scores)
        ids, state = selector.propose(view=view, size=size, rng=np.random.default_rng(seed), state=state or {})
        return ids.tolist(), state

    return propose


@pytest.mark.parametrize("size", [1, 30, N - len(LABELLED)])
@pytest.mark.parametrize("scores", [None, SCORES], ids=["first round", "later"])
def test_enough_ids_ascending_without_duplicates_none_labelled(selector, propose, size, scores):
    ids, _ = propose(selector, size=size, scores=scores)
    assert size <= len(ids) <= N - len(LABELLED)
    assert ids == sorted(set(ids))
    assert set(ids) <= set(range(N)) - set(LABELLED)


def test_more_than_there_are_gives_all_there_are(selector, propose):
    assert propose(selector, size=N + 1)[0] == sorted(set(range(N)) - set(LABELLED))


def test_nothing_left_gives_nothing(selector, propose):
    assert propose(selector, labelled=range(N))[0] == []


def test_same_seed_same_candidates(selector, propose):
    assert propose(selector, seed=4) == propose(selector, seed=4)


def test_other_seeds_other_candidates_unless_nothing_is_drawn(selector, propose):
    distinct = {tuple(propose(selector, seed=seed)[0]) for seed in range(4)}
    draws_nothing = isinstance(getattr(selector, "selector", selector), WholePool | SEALS)
    assert len(distinct) == (1 if draws_nothing else 4)


def test_ties_are_broken_by_the_seed_not_by_position(selector, propose):
    drawn = [propose(selector, seed=s, features=np.zeros((N, 4)), scores=np.zeros(N))[0] for s in range(12)]
    counts = np.bincount(np.concatenate(drawn), minlength=N)
    assert counts[: N // 2].sum() == pytest.approx(counts[N // 2 :].sum(), rel=0.3)


@pytest.mark.parametrize(
    "features",
    [np.zeros((N, 4)), np.full((N, 4), 7.5), np.repeat(FEATURES[:8], 10, axis=0), FEATURES.astype(np.float16)],
    ids=["zero", "constant", "duplicates", "float16"],
)
def test_awkward_features(selector, propose, features):
    ids, _ = propose(selector, features=features)
    assert 5 <= len(ids) == len(set(ids))


@pytest.mark.parametrize("low", [-1e30, -1.0, 0.0])
def test_any_finite_scores(selector, propose, low):
    ids, _ = propose(selector, scores=np.linspace(low, 1e30, N), size=10)
    assert len(ids) >= 10


def test_state_is_plain_data_and_carries_on_after_a_reload(selector, propose):
    state = reloaded = {}
    for seed in range(4):
        ids, state = propose(selector, seed=seed, state=state, scores=SCORES)
        again, reloaded = propose(selector, seed=seed, state=json.loads(json.dumps(reloaded)), scores=SCORES)
        assert (ids, state) == (again, reloaded)


def test_state_handed_in_is_not_written_to(selector, propose):
    _, state = propose(selector, scores=SCORES)
    before = json.dumps(state)
    propose(selector, state=state, scores=SCORES)
    assert json.dumps(state) == before


def test_no_ids_only_from_those_that_reuse_scores(selector, propose):
    state = {}
    counts = []
    for seed in range(4):
        ids, state = propose(selector, seed=seed, state=state, scores=SCORES)
        counts.append(len(ids))
    assert selector.reuses_scores or 0 not in counts


def test_features_are_read_only_by_those_that_say_so(selector, make_view):
    view = make_view(N)
    if selector.uses_features:
        with pytest.raises(FeaturesMissing, match="PoolDataModule"):
            selector.propose(view=view, size=5, rng=np.random.default_rng(0), state={})
    else:
        selector.propose(view=view, size=5, rng=np.random.default_rng(0), state={})
