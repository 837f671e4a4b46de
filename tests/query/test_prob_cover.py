from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from al_lightning.errors import ActiveLearningError, BadScores
from al_lightning.query import ProbCover, prob_cover, prob_cover_picks, pure_radius


def points(n, seed=0, offset=0.0):
    return (np.random.default_rng(seed).normal(size=(n, 3)) + offset).astype(np.float32)


def check_greedy(features, ids, centers, delta, picked):
    """Every pick covers as many as any could, by the full distance matrix."""
    near = cdist(features.astype(float), features.astype(float)) <= delta
    covered = near[:, centers].any(axis=1) if len(centers) else np.zeros(len(features), bool)
    for i, pick in enumerate(picked):
        gain = (near[np.ix_(ids, ids)] & ~covered[ids]).sum(axis=1)
        gain[np.isin(ids, picked[:i])] = -1
        assert gain[ids.tolist().index(pick)] == gain.max()
        covered |= near[pick]


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("offset", [0, 500])
@pytest.mark.parametrize("delta", [0.0, 0.4, 1.2, 9.0])
def test_every_pick_covers_the_most(monkeypatch, block, offset, delta):
    monkeypatch.setattr(prob_cover, "_BLOCK", block)  # 93 candidates: the last block of 7 is partial
    features = points(100, offset=offset)
    order = np.random.default_rng(1).permutation(100)
    centers, ids = order[:7], order[7:]
    picked = prob_cover_picks(features, ids, centers, 20, delta, np.random.default_rng(0)).tolist()
    assert len(set(picked)) == 20
    check_greedy(features, ids, centers, delta, picked)


def test_the_last_partial_block_counts(monkeypatch):
    monkeypatch.setattr(prob_cover, "_BLOCK", 8)
    features = np.arange(17, dtype=np.float32)[:, None] * 100
    features[12:] = 5000 + np.arange(5)[:, None] * 0.1  # the densest ball begins in one block and ends in the last
    assert prob_cover_picks(features, np.arange(17), np.arange(0), 1, 0.25, np.random.default_rng(0))[0] == 14


def test_ties_and_what_is_left_are_drawn(make_view):
    features = np.zeros((40, 2), np.float32)
    runs = [
        prob_cover_picks(features, np.arange(40), np.arange(0), 5, 1.0, np.random.default_rng(s)) for s in range(40)
    ]
    assert len({int(run[0]) for run in runs}) > 15
    assert len({int(run[1]) for run in runs}) > 15


def test_a_graph_too_dense_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(prob_cover, "_SMALL", 10)
    with pytest.raises(ActiveLearningError, match=r"delta=9 the 300 candidates.*128 neighbours.*smaller delta, or"):
        prob_cover_picks(points(300), np.arange(300), np.arange(0), 5, 9.0, np.random.default_rng(0))


def test_the_radius_is_the_largest_for_which_so_many_balls_are_pure():
    features, classes = points(400), np.random.default_rng(3).integers(3, size=400)
    features[:, 0] += 2 * classes
    radius, flops = pure_radius(features, np.arange(400), classes, 0.95)
    distances = cdist(features.astype(float), features.astype(float))
    pure = [
        (((distances <= r) & (classes[:, None] != classes)).sum(axis=1) == 0).mean()
        for r in (0.999 * radius, 1.01 * radius)
    ]
    assert pure[0] >= 0.95 - 1 / 400
    assert pure[1] <= 0.95
    assert flops == 2 * 400 * 400 * 3


def test_one_class_gives_no_radius():
    assert pure_radius(points(30), np.arange(30), np.zeros(30), 0.95)[0] == 0


def test_distances_are_on_the_bill(make_view):
    spent = []
    view = dataclasses.replace(make_view(50, labelled=range(5), features=points(50)), spend=lambda *c: spent.append(c))
    ProbCover(delta=0.5).pick(view=view, ids=view.unlabelled, size=5, rng=np.random.default_rng(0))
    assert spent[0][0] == 2 * 45 * 5 * 3 + 45 * 45 * 3


def test_a_bad_center_and_a_bad_delta_are_named():
    features = points(20)
    features[3, 1] = np.inf
    with pytest.raises(BadScores, match="ids 3"):
        prob_cover_picks(features, np.arange(10, 20), np.array([3]), 2, 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"delta=-1\): a radius"):
        ProbCover(delta=-1)
