from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from al_lightning.errors import BadScores, PoolExhausted
from al_lightning.query import KCenterGreedy, kcenter, nearest
from al_lightning.query.kcenter import k_center_greedy


def brute_force(features, ids, centers, size):
    """Gonzalez' greedy from float64 distances to everything; needs at least one center and no ties."""
    points = features.astype(np.float64)
    nearest, picked = cdist(points, points[centers]).min(axis=1), []
    for _ in range(size):
        picked.append(int(ids[nearest[ids].argmax()]))
        nearest = np.minimum(nearest, cdist(points, points[picked[-1:]])[:, 0])
    return picked


@pytest.mark.parametrize(
    ("dtype", "offset"), [(np.float64, 0), (np.float32, 0), (np.float16, 0), (np.float64, 100), (np.float32, 3000)]
)
def test_picks_what_brute_force_picks(dtype, offset):
    rng = np.random.default_rng(1)
    features = (rng.normal(size=(150, 6)) + offset).astype(dtype)
    order = rng.permutation(150)
    centers, ids = order[:20], order[20:120]
    picked = k_center_greedy(features, ids, centers, 30, np.random.default_rng(0))
    assert picked.tolist() == brute_force(features, ids, centers, 30)


def test_blocks_do_not_change_the_answer(monkeypatch):
    features = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32)
    ids, centers = np.arange(100, 300), np.arange(100)
    expected = k_center_greedy(features, ids, centers, 20, np.random.default_rng(0))
    monkeypatch.setattr(nearest, "_BLOCK", 7)
    monkeypatch.setattr(nearest, "_LINES", 3)
    monkeypatch.setattr(kcenter, "_HOT", 5)
    monkeypatch.setattr(kcenter, "_FIRST", 2)
    assert k_center_greedy(features, ids, centers, 20, np.random.default_rng(0)).tolist() == expected.tolist()


def test_reads_a_memory_map(tmp_path):
    features = np.random.default_rng(3).normal(size=(80, 4)).astype(np.float16)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    args = (np.arange(10, 80), np.arange(10), 12)
    expected = k_center_greedy(features, *args, np.random.default_rng(0))
    assert k_center_greedy(mapped, *args, np.random.default_rng(0)).tolist() == expected.tolist()


def test_first_pick_is_random_when_nothing_is_labelled_and_the_second_is_far():
    features = np.array([[0.0], [1.0], [10.0]])
    runs = [k_center_greedy(features, np.arange(3), np.arange(0), 2, np.random.default_rng(s)) for s in range(40)]
    assert {int(run[0]) for run in runs} == {0, 1, 2}
    assert {tuple(run.tolist()) for run in runs} == {(0, 2), (1, 2), (2, 0)}


def test_duplicates_of_centers_and_picks_come_last():
    corners = np.array([[0, 0], [0, 9], [9, 0], [9, 9]], dtype=np.float32) + 0.1
    features = np.repeat(corners, 5, axis=0)
    for seed in range(5):
        picked = k_center_greedy(features, np.arange(1, 20), np.array([0]), 19, np.random.default_rng(seed))
        assert set(picked[:3] // 5) == {1, 2, 3}
        assert len(set(picked.tolist())) == 19


def test_a_bad_center_is_named():
    features = np.ones((6, 2))
    features[4, 1] = np.nan
    features[1, 0] = np.inf
    with pytest.raises(BadScores, match=r"features is NaN or infinite for ids 1, 4") as error:
        k_center_greedy(features, np.arange(4), np.array([4]), 2, np.random.default_rng(0))
    assert error.value.ids == (1, 4)


def test_more_than_there_are_is_refused():
    with pytest.raises(PoolExhausted, match="3 candidates requested, 2 available"):
        k_center_greedy(np.ones((4, 1)), np.arange(2), np.arange(2, 4), 3, np.random.default_rng(0))


@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("labelled", [0, 1, 200])
def test_picks_what_brute_force_picks_of_many(monkeypatch, spread, labelled):
    monkeypatch.setattr(kcenter, "_HOT", 20)
    rng = np.random.default_rng(4)
    features = (spread * rng.normal(size=(12, 24))[rng.integers(12, size=1500)] + rng.normal(size=(1500, 24))) + 5
    ids, centers = np.arange(labelled, 1500), np.arange(labelled)
    picked = k_center_greedy(features.astype(np.float32), ids, centers, 300, np.random.default_rng(0)).tolist()
    if not labelled:
        centers, picked = np.array(picked[:1]), picked[1:]
    assert picked == brute_force(features, ids, centers, len(picked))


def test_ties_of_a_lattice_are_drawn_not_taken_by_position():
    lattice = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(25, 2) + 1000.0
    first = [k_center_greedy(lattice, np.arange(25), np.array([12]), 4, np.random.default_rng(s)) for s in range(60)]
    assert {tuple(sorted(run.tolist())) for run in first} == {(0, 4, 20, 24)}
    assert {int(run[0]) for run in first} == {0, 4, 20, 24}


def test_only_the_farthest_are_compared_with_every_center_and_that_is_on_the_bill(make_view):
    features = np.random.default_rng(5).normal(size=(20000, 16)).astype(np.float32)
    spent = []
    view = dataclasses.replace(
        make_view(20000, labelled=range(500), features=features), spend=lambda *cost: spent.append(cost)
    )
    KCenterGreedy().pick(view=view, ids=view.unlabelled, size=500, rng=np.random.default_rng(0))
    [(flops, seconds)] = spent
    assert 2 * 19500 * 64 * 16 < flops < 0.6 * 2 * 19500 * 1000 * 16
    assert seconds > 0
