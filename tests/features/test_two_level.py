"""K-means with more clusters than every record can be compared with."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from al_lightning.errors import BadScores
from al_lightning.features import cells, cluster, two_level
from al_lightning.features.cells import Cells, Grouped, Tally
from al_lightning.features.cluster import kmeans

N, K, WIDTH = 6000, 600, 16


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two levels from 300 clusters on, in cells of 8, blocks of 1,000 records."""
    monkeypatch.setattr(cluster, "MOST_FLAT", 300)
    monkeypatch.setattr(two_level, "PER_CELL", 8)
    monkeypatch.setattr(two_level, "_BLOCK", 1000 * WIDTH)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    scale = np.arange(1, WIDTH + 1) ** -0.5
    points = (rng.normal(size=(50, WIDTH))[rng.integers(50, size=N)] + rng.normal(size=(N, WIDTH))) * scale
    return points.astype(np.float32)


def objective(features, clusters):
    return ((features - clusters.centroids[clusters.assignments]) ** 2).sum()


def flat_objective(features, k):
    flat = faiss.Kmeans(WIDTH, k, niter=10, seed=1, min_points_per_centroid=1, max_points_per_centroid=len(features))
    flat.train(features)
    return cdist(features, flat.centroids, "sqeuclidean").min(axis=1).sum()


def test_objective_is_within_four_percent_of_flat_k_means(features):
    found = kmeans(features, K, seed=0)
    assert objective(features, found) < 1.04 * flat_objective(features, K)
    assert found.centroids.shape == (K, WIDTH)
    assert found.centroids.dtype == np.float32
    assert found.assignments.dtype == np.int32
    assert found.assignments.shape == (N,)


@pytest.mark.parametrize("offset", [0, 1000])
def test_nearly_every_record_belongs_to_its_nearest_centroid(features, offset):
    found = kmeans(features + np.float32(offset), K, seed=0)
    nearest = cdist(features + offset, found.centroids).argmin(axis=1)
    assert (found.assignments == nearest).mean() > 0.93


def test_cells_of_cells_find_nearly_as_much(features, monkeypatch):
    monkeypatch.setattr(two_level, "PER_CELL", 4)
    monkeypatch.setattr(two_level, "_BLOCK", N * WIDTH)
    one = objective(features, kmeans(features, 1000, seed=0, iterations=4))
    monkeypatch.setattr(two_level, "MOST_FLAT", 200)  # of 250 cells
    assert objective(features, kmeans(features, 1000, seed=0, iterations=4)) < 1.03 * one


def test_training_on_a_sample_still_clusters(features):
    found = kmeans(features, 310, seed=0, points_per_centroid=10)
    assert objective(features, found) < 1.15 * flat_objective(features, 310)


def test_same_seed_same_clusters_other_seed_others(features):
    first, again, other = (kmeans(features, K, seed=s, iterations=2).assignments for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert (first != other).any()


def test_blocks_float16_and_a_memory_map_do_not_change_the_answer(features, monkeypatch, tmp_path):
    half = features.astype(np.float16)
    expected = kmeans(half.astype(np.float32), K, seed=0, iterations=3).assignments
    np.save(tmp_path / "features.npy", half)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert (kmeans(mapped, K, seed=0, iterations=3).assignments == expected).mean() > 0.99
    monkeypatch.setattr(two_level, "_BLOCK", N * WIDTH)
    assert (kmeans(half, K, seed=0, iterations=3).assignments == expected).mean() > 0.9  # sums round differently


@pytest.mark.parametrize("rows", [100, 1 << 16])
def test_constant_features_and_duplicates(monkeypatch, rows):
    monkeypatch.setattr(cells, "_ROWS", rows)
    same = kmeans(np.full((400, 4), 7.5, np.float16), 310, seed=0, iterations=2)
    assert same.centroids.shape == (310, 4)
    assert np.allclose(same.centroids[same.assignments], 7.5)
    points = np.repeat(np.random.default_rng(0).normal(size=(3, 4)) * 50, 200, axis=0)
    found = kmeans(points, 310, seed=0, iterations=2)
    assert np.allclose(found.centroids[found.assignments], points, atol=0.2)
    assert not set(found.assignments[:200]) & set(found.assignments[200:])


def test_as_many_clusters_as_records():
    points = np.random.default_rng(0).normal(size=(320, 3)).astype(np.float32)
    found = kmeans(points, 320, seed=0)
    assert found.centroids[found.assignments] == pytest.approx(points, abs=1e-2)


def test_nan_is_named(features):
    bad = features.copy()
    bad[4321, 3] = np.nan
    with pytest.raises(BadScores, match="4321"):
        kmeans(bad, K, seed=0)


def test_flops_are_far_below_flat_ones_and_counted(features):
    flops = kmeans(features, K, seed=0).flops
    n_cells, probed = K // 8, 2 * 8 + 16 + 7 * 6 + 16
    cells_trained = min(N, 64 * n_cells, 8 * n_cells) * 10 * n_cells
    expected = 2 * WIDTH * (cells_trained + (N + 11 * K) * n_cells + N * probed * 8)
    assert flops == pytest.approx(expected, rel=0.35)  # records lie where cells are full
    assert flops < 0.5 * 2 * WIDTH * N * K * 11


# ---- looking into cells -----------------------------------------------------------------------------------------


def test_the_nearest_point_of_each_cell_is_found():
    rng = np.random.default_rng(0)
    rows, points, where = rng.normal(size=(50, 3)), rng.normal(size=(40, 3)), rng.integers(5, size=40)
    rows, points = rows.astype(np.float32), points.astype(np.float32)
    probes = np.stack([rng.permutation(5)[:2] for _ in range(50)])
    grouped, tally = Grouped.by(where, points, 5), Tally()
    place, value = grouped.nearest(rows, probes, tally)
    distances = cdist(rows, points, "sqeuclidean")
    for row in range(50):
        for m in range(2):
            inside = np.where(where == probes[row, m], distances[row], np.inf)
            assert grouped.order[place[row, m]] == inside.argmin()
            assert value[row, m] == pytest.approx(inside.min(), abs=1e-5)
    assert tally.flops == 2 * 3 * np.bincount(where, minlength=5)[probes].sum()
    best, _ = grouped.nearest_of_all(rows, probes, tally)
    inside = np.where((where[None] == probes[:, :1]) | (where[None] == probes[:, 1:]), distances, np.inf)
    assert np.array_equal(grouped.order[best], inside.argmin(axis=1))


def test_a_row_whose_cells_are_all_empty_is_compared_with_every_point():
    points = np.array([[0.0], [5.0], [9.0]], np.float32)
    grouped = Grouped.by(np.array([2, 2, 2]), points, 4)
    found, _ = grouped.nearest_of_all(np.array([[6.0], [8.0]], np.float32), np.array([[0, 1], [3, 2]]), Tally())
    assert grouped.order[found].tolist() == [1, 2]


def test_cells_around_a_row_through_cells_of_their_own():
    rng = np.random.default_rng(0)
    centres, rows = (rng.normal(size=(n, 4)).astype(np.float32) for n in (600, 500))
    coarse = Cells(centres[:60].copy(), Tally())
    exact, found = Cells(centres, Tally()).around(rows, 16), Cells(centres, Tally(), coarse).around(rows, 16)
    assert np.mean([len(set(a) & set(b)) / 16 for a, b in zip(exact, found, strict=True)]) > 0.95
    nearest = Cells(centres, Tally(), coarse).around(rows, 1)
    assert (nearest[:, 0] == exact[:, 0]).mean() > 0.95
