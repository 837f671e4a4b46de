from __future__ import annotations

import numpy as np
import pytest
import torch

from al_lightning.errors import BadScores, PoolExhausted
from al_lightning.query import ScoreStrategy, VariationRatio
from tests.contract.conftest import DRAWS

N = 60
LABELLED = [3, 17, 40]
FEATURES = np.random.default_rng(5).normal(size=(N, 4)).astype(np.float32)
COSTS = np.random.default_rng(6).uniform(0.5, 2, size=N)


@pytest.fixture
def pick(make_view, arrays_of):
    def pick(strategy, size, *, seed=0, constant=False, features=FEATURES, labelled=LABELLED, ids=None):
        view = make_view(
            N,
            labelled=labelled,
            features=np.zeros((N, 4)) if constant else features,
            label_costs=np.ones(N) if constant else COSTS,
        )
        ids = view.unlabelled if ids is None else ids
        arrays = arrays_of(strategy, len(ids), constant=constant)
        return strategy.pick(view=view, ids=ids, arrays=arrays, size=size, rng=np.random.default_rng(seed)).tolist()

    return pick


@pytest.mark.parametrize("size", [0, 1, 20, N - len(LABELLED)])
def test_exact_ids_without_duplicates_none_labelled(strategy, pick, size):
    query = pick(strategy, size)
    assert len(query) == len(set(query)) == size
    assert set(query) <= set(range(N)) - set(LABELLED)


def test_only_candidates_are_picked(strategy, pick):
    ids = np.array([50, 2, 9, 31, 8])  # in no order: positions must not leak out as ids
    if strategy.beyond_candidates:
        assert set(pick(strategy, 5, ids=ids)[: 5 - strategy.controls(5)]) < set(ids.tolist())
        return
    assert set(pick(strategy, 5, ids=ids)) == set(ids.tolist())
    assert set(pick(strategy, 2, ids=ids)) < set(ids.tolist())


def test_nothing_labelled_yet(strategy, pick):
    assert len(set(pick(strategy, 10, labelled=[]))) == 10


def test_same_seed_same_query(strategy, pick):
    assert pick(strategy, 10, seed=4) == pick(strategy, 10, seed=4)


def test_only_ties_are_left_to_the_seed(strategy, pick):
    if isinstance(strategy, VariationRatio):
        pytest.skip("counts a few votes, so that ties are the rule")
    same = {tuple(pick(strategy, 10, seed=seed)) for seed in range(4)}
    assert len(same) == (4 if isinstance(strategy, DRAWS) else 1)


def test_ties_are_broken_by_the_seed_not_by_position(strategy, pick):
    queries = [pick(strategy, 20, seed=seed, constant=True) for seed in range(8)]
    assert len({tuple(q) for q in queries}) == 8
    counts = np.bincount(np.concatenate(queries), minlength=N)
    assert counts[: N // 2].sum() == pytest.approx(counts[N // 2 :].sum(), rel=0.5)


def test_the_global_generators_are_left_alone(strategy, pick):
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    pick(strategy, 10)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_more_than_there_are_is_refused_with_both_counts(strategy, pick):
    with pytest.raises(PoolExhausted, match="58 candidates requested, 57 available") as error:
        pick(strategy, 58)
    assert (error.value.requested, error.value.available) == (58, 57)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_by_id(strategy, make_view, arrays_of, value):
    if not strategy.requires:
        pytest.skip("reads nothing that could be bad")
    ids = np.setdiff1d(np.arange(N), LABELLED)
    features, bad = FEATURES.copy(), [5, 9]
    features[ids[bad]] = value
    arrays = {name: values.copy() for name, values in arrays_of(strategy, len(ids)).items()}
    for values in arrays.values():
        values[bad] = value
    view = make_view(N, labelled=LABELLED, features=features)
    with pytest.raises(BadScores) as error:
        strategy.pick(view=view, ids=ids, arrays=arrays, size=3, rng=np.random.default_rng(0))
    assert error.value.ids == tuple(ids[bad].tolist())


def test_duplicate_points(strategy, pick):
    query = pick(strategy, 40, features=np.repeat(FEATURES[:6], 10, axis=0))
    assert len(set(query)) == 40


def test_float16_features(strategy, pick):
    assert len(set(pick(strategy, 10, features=FEATURES.astype(np.float16)))) == 10


def test_payload_is_small_aligned_and_the_same_however_it_is_batched(strategy, payload):
    logits, embedding = torch.randn((9, 4)), torch.randn((9, 3))
    whole = payload(strategy, logits, embedding)
    halves = [payload(strategy, logits[s], embedding[s]) for s in (slice(0, 4), slice(4, 9))]
    for name, values in whole.items():
        assert len(values) == 9
        torch.testing.assert_close(values, torch.cat([half[name] for half in halves]))
    assert bool(whole) == strategy.needs_inference


def test_the_highest_scores_are_picked_best_first(strategy, pick, arrays_of):
    if isinstance(strategy, ScoreStrategy):
        ids = np.setdiff1d(np.arange(N), LABELLED)
        scores = dict(zip(ids.tolist(), arrays_of(strategy, len(ids))["score"].tolist(), strict=True))
        assert pick(strategy, 10) == sorted(scores, key=lambda i: -scores[i])[:10]
