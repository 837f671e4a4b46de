from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from al_lightning.errors import BadScores, PoolError
from al_lightning.features import blocks
from al_lightning.features.cluster import kmeans


@pytest.fixture(scope="module")
def digits():
    return load_digits().data.astype(np.float32)


def inertia(features, clusters):
    return ((features - clusters.centroids[clusters.assignments]) ** 2).sum()


@pytest.mark.parametrize("n_clusters", [1, 10, 100])
def test_objective_is_about_sklearns(digits, n_clusters):
    reference = KMeans(n_clusters, n_init=1, max_iter=10, init="random", random_state=0).fit(digits).inertia_
    assert inertia(digits, kmeans(digits, n_clusters, seed=0)) < 1.05 * reference


@pytest.mark.parametrize("offset", [0, 1000])
def test_every_record_belongs_to_its_nearest_centroid_however_far_from_zero(offset):
    features = (np.random.default_rng(0).normal(size=(3000, 64)) + offset).astype(np.float32)
    found = kmeans(features, 30, seed=0)
    distances = cdist(features.astype(np.float64), found.centroids.astype(np.float64))
    assert (found.assignments == distances.argmin(axis=1)).mean() > 0.98  # FAISS alone: 0.42 at 1000
    assert found.assignments.dtype == np.int32
    assert found.centroids.dtype == np.float32
    assert found.centroids.shape == (30, 64)


@pytest.mark.parametrize("n", [30, 1000], ids=["sampled", "all"])
def test_same_seed_same_clusters_other_seed_others(digits, n):
    first, again, other = (kmeans(digits, 20, seed=s, points_per_centroid=n).assignments for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_blocks_float16_and_memory_map_do_not_change_the_answer(digits, monkeypatch, tmp_path):
    expected = kmeans(digits, 20, seed=0).assignments  # pixel values are exact in float16
    np.save(tmp_path / "features.npy", digits.astype(np.float16))
    monkeypatch.setattr(blocks, "_BLOCK", 64 * 100)
    found = kmeans(np.load(tmp_path / "features.npy", mmap_mode="r"), 20, seed=0).assignments
    assert (found == expected).mean() > 0.99  # a tie between two centroids may fall either way


def test_flops_are_passes_over_records_times_centroids(digits):
    n = len(digits)
    assert kmeans(digits, 50, seed=0, iterations=3).flops == 2 * 50 * 64 * (3 * n + n)
    sampled = kmeans(digits, 5, seed=0, iterations=3, points_per_centroid=20)
    assert sampled.flops == 2 * 5 * 64 * (3 * 100 + n)
    assert kmeans(digits, n, seed=0).flops == 2 * n * 64 * n


def test_training_on_a_sample_still_clusters(digits):
    reference = KMeans(10, n_init=1, random_state=0).fit(digits).inertia_
    assert inertia(digits, kmeans(digits, 10, seed=0, points_per_centroid=30)) < 1.2 * reference


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_constant_features_and_duplicates_fall_into_one_cluster_each(value):
    assert len(np.unique(kmeans(np.full((40, 3), value), 1, seed=0).assignments)) == 1
    kmeans(np.full((40, 3), value), 8, seed=0)
    two = np.repeat([[0.0, value], [50.0, value]], 20, axis=0)
    found = kmeans(two, 5, seed=0).assignments
    assert not set(found[:20]) & set(found[20:])


def test_as_many_clusters_as_records():
    features = np.arange(12, dtype=np.float32).reshape(12, 1) * 10
    found = kmeans(features, 12, seed=0)
    assert sorted(found.assignments.tolist()) == list(range(12))
    assert found.centroids[found.assignments] == pytest.approx(features)


def test_nothing_is_printed_when_clusters_are_small(capfd):
    kmeans(np.random.default_rng(0).normal(size=(60, 2)), 30, seed=0)
    assert capfd.readouterr() == ("", "")


def test_nan_and_infinity_are_named():
    features = np.ones((50, 2), np.float32)
    features[[3, 41], [0, 1]] = np.nan, np.inf
    with pytest.raises(BadScores, match="features is NaN or infinite for ids 3, 41"):
        kmeans(features, 2, seed=0)


@pytest.mark.parametrize(("shape", "n_clusters"), [((5, 2), 6), ((5, 2), 0), ((0, 2), 1), ((5,), 1), ((5, 0), 1)])
def test_impossible_requests_are_refused(shape, n_clusters):
    with pytest.raises(PoolError, match="allowed"):
        kmeans(np.zeros(shape), n_clusters, seed=0)
