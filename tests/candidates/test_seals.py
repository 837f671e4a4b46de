from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from al_lightning import ActiveLearner
from al_lightning.candidates import SEALS, neighbours_of
from al_lightning.errors import BadScores
from al_lightning.features import RawInputs, blocks
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from tests.helpers import blobs, net, pool_of, quiet


def features_of(n=200, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


@pytest.mark.parametrize("block", [5 * 17, 1 << 22])
@pytest.mark.parametrize("offset", [0, 300])
def test_neighbours_are_those_of_the_full_matrix(monkeypatch, block, offset):
    monkeypatch.setattr(blocks, "_BLOCK", block)
    features, ids = features_of() + offset, np.array([3, 199, 77])
    found, flops = neighbours_of(features, ids, 9, np.random.default_rng(0))
    expected = np.argsort(cdist(features.astype(float), features.astype(float))[ids], axis=1)[:, 1:10]
    assert [set(row) for row in found.tolist()] == [set(row) for row in expected.tolist()]
    assert flops == 2 * 3 * 200 * 5


def test_ties_at_the_edge_are_drawn():
    drawn = [
        neighbours_of(np.zeros((50, 2), np.float32), np.array([7]), 5, np.random.default_rng(s))[0] for s in range(40)
    ]
    assert len(np.unique(np.concatenate(drawn))) > 40
    assert 7 not in np.concatenate(drawn)


def test_each_labelled_record_is_searched_for_once(make_view):
    features, spent, state = features_of(), [], {}
    for labelled in ([4, 9], [4, 9, 150], [4, 9, 150], [4, 9, 150, 20, 30]):
        view = dataclasses.replace(
            make_view(200, labelled=labelled, features=features), spend=lambda *cost: spent.append(cost[0])
        )
        ids, state = SEALS(6).propose(view=view, size=1, rng=np.random.default_rng(0), state=state)
        nearest = np.argsort(cdist(features, features)[labelled], axis=1)[:, 1:7]
        assert set(ids.tolist()) == set(nearest.ravel().tolist()) - set(labelled)
    assert spent == [2 * n * 200 * 5 for n in (2, 1, 2)]


def test_labels_that_were_withdrawn_start_it_over(make_view):
    features, state = features_of(), {}
    for labelled in ([4, 9, 150], [9]):
        view = make_view(200, labelled=labelled, features=features)
        ids, state = SEALS(6).propose(view=view, size=1, rng=np.random.default_rng(0), state=state)
    assert set(ids.tolist()) == set(np.argsort(cdist(features, features)[9])[1:7].tolist())


def test_others_are_drawn_where_the_query_needs_more(make_view):
    view = make_view(200, labelled=[4], features=features_of())
    near = set(SEALS(6).propose(view=view, size=1, rng=np.random.default_rng(0), state={})[0].tolist())
    runs = [SEALS(6).propose(view=view, size=20, rng=np.random.default_rng(s), state={}) for s in range(2)]
    assert [len(ids) for ids, _ in runs] == [20, 20]
    assert near < set(runs[0][0].tolist())
    assert runs[0][0].tolist() != runs[1][0].tolist()
    assert set(runs[0][1]["near"]) == near  # what was drawn is no neighbour


def test_bad_features_are_named(make_view):
    features = features_of()
    features[[8, 190]] = np.nan
    with pytest.raises(BadScores, match="ids 8, 190"):
        SEALS(6).propose(
            view=make_view(200, labelled=[4], features=features), size=1, rng=np.random.default_rng(0), state={}
        )


def test_a_setting_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"SEALS\(neighbours=0\)"):
        SEALS(0)


def test_little_is_inferred_through_the_learner(tmp_path):
    learner = ActiveLearner(
        quiet(),
        query=Margin(),
        candidates=SEALS(4),
        round_size=Listed([10, 5, 5]),
        run_dir=tmp_path,
    )
    result = learner.fit(net(), datamodule=pool_of(blobs(600), features=RawInputs()))
    assert 10 <= result.bill.lines["score"].records <= 4 * 10 + 4 * 15
    assert result.bill.lines["neighbours"].flops == 2 * 15 * 600 * 4  # ten first labels, then five: each searched once


def test_a_rare_class_is_found_with_less_inference_than_in_a_random_share(make_view):
    # One percent of the pool, in one place; the score knows the direction, as a model that saw a few of them would.
    rng = np.random.default_rng(2)
    rare = np.zeros(4000, bool)
    rare[rng.choice(4000, 40, replace=False)] = True
    features = rng.normal(size=(4000, 8)).astype(np.float32)
    features[rare] = 3 + 0.5 * rng.normal(size=(40, 8))
    labelled, state, inferred = np.flatnonzero(rare)[:2].tolist(), {}, 0
    for round in range(4):
        view = make_view(4000, labelled=labelled, features=features)
        ids, state = SEALS(20).propose(view=view, size=5, rng=np.random.default_rng(round), state=state)
        inferred += len(ids)
        labelled += ids[np.argsort(-features[ids].sum(axis=1))[:5]].tolist()
    found = rare[labelled].sum() - 2
    assert found >= 15
    assert inferred < 600  # of 16,000 that the whole pool would take
    assert found / inferred > 2 * 0.01  # a random share holds one in a hundred, and finds at most those
