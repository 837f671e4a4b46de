"""Strategies on clusters of the features: KMeans, Stratified, ClusterMargin, TypiClust."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from al_lightning.errors import BadScores
from al_lightning.query import (
    ClusterMargin,
    KCenterGreedy,
    KMeans,
    Margin,
    Stratified,
    TypiClust,
    cluster_turns,
    typical,
)
from al_lightning.query.clusters import usual_clusters


def pick(strategy, view, size, *, seed=0, scores=None, ids=None):
    ids = view.unlabelled if ids is None else ids
    arrays = {} if scores is None else {"score": np.asarray(scores, np.float32)}
    return strategy.pick(view=view, ids=ids, arrays=arrays, size=size, rng=np.random.default_rng(seed)).tolist()


def groups(n, members, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    return (
        np.repeat(10 * rng.normal(size=(n, 4)), members, axis=0) + spread * rng.normal(size=(n * members, 4))
    ).astype(np.float32)


# ---- KMeans --------------------------------------------------------------------------------------------------------


def test_kmeans_picks_one_of_every_group_and_the_one_nearest_to_its_mean(make_view):
    features = groups(8, 15)
    picked = sorted(pick(KMeans(), make_view(120, features=features), 8, seed=3))
    if len({i // 15 for i in picked}) == 8:
        for i in picked:
            mine = np.arange(i // 15 * 15, i // 15 * 15 + 15)
            assert i == mine[np.linalg.norm(features[mine] - features[mine].mean(axis=0), axis=1).argmin()]
    hit = [len({i // 15 for i in pick(KMeans(), make_view(120, features=features), 8, seed=s)}) for s in range(10)]
    assert np.mean(hit) > 6  # at random: 5.3; k-means may share a centroid between two groups


def test_kmeans_reads_candidates_only_and_bills_what_it_did(make_view):
    features = groups(8, 15)
    features[7] = np.nan
    spent = []
    view = dataclasses.replace(make_view(120, labelled=[7], features=features), spend=lambda *cost: spent.append(cost))
    assert len(set(pick(KMeans(), view, 119))) == 119
    assert spent[0][0] > 2 * 119 * 119 * 4
    with pytest.raises(BadScores, match="ids 7"):
        pick(KMeans(), dataclasses.replace(view, labelled=view.labelled[:0]), 3, ids=np.arange(50))


def test_kmeans_of_duplicates_takes_every_point_before_any_twice(make_view):
    view = make_view(60, features=np.repeat(np.eye(6) * 9, 10, axis=0))
    picked = pick(KMeans(), view, 20)
    assert len(set(picked)) == 20
    assert {i // 10 for i in picked} == set(range(6))


# ---- Stratified ----------------------------------------------------------------------------------------------------


def test_stratified_shares_the_query_in_proportion(make_view):
    clusters = np.repeat([0, 1, 2], [60, 30, 10])
    drawn = [pick(Stratified(3), make_view(100, clusters=clusters), 10, seed=s) for s in range(200)]
    counts = np.array([np.bincount(clusters[d], minlength=3) for d in drawn])
    assert (np.abs(counts - [6, 3, 1]) <= 1).all()
    assert np.bincount(np.concatenate(drawn), minlength=100) == pytest.approx(np.full(100, 20), abs=20)  # within: even


# ---- ClusterMargin -------------------------------------------------------------------------------------------------


def test_cluster_margin_goes_round_the_clusters_of_the_best_from_the_smallest(make_view):
    clusters = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    scores = np.array([9.0, 8, 1, 7, 6, 5, 4, 3.5, 3, 0])  # the best eight: three of 2, two of 0, two of 1
    view = make_view(10, clusters=clusters)
    expected = {"size": [0, 3, 5, 1], "score": [0, 3, 5, 1]}
    for order, ids in expected.items():
        assert pick(ClusterMargin(n_clusters=4, oversample=1.75, order=order), view, 4, scores=scores) == ids
    scores[5] = 10
    assert pick(ClusterMargin(n_clusters=4, oversample=1.75), view, 4, scores=scores) == [0, 3, 5, 1]
    assert pick(ClusterMargin(n_clusters=4, oversample=1.75, order="score"), view, 4, scores=scores) == [5, 0, 3, 6]


@pytest.mark.parametrize("order", ["size", "score"])
def test_turns_are_those_of_a_loop(order):
    rng = np.random.default_rng(0)
    clusters = rng.integers(12, size=80)
    members = {c: np.flatnonzero(clusters == c).tolist() for c in set(clusters.tolist())}
    key = {"size": lambda c: (len(members[c]), members[c][0]), "score": lambda c: members[c][0]}[order]
    queues, expected = {c: list(members[c]) for c in sorted(members, key=key)}, []
    while any(queues.values()):
        expected += [queue.pop(0) for queue in queues.values() if queue]
    assert cluster_turns(clusters, order).tolist() == expected


def test_cluster_margin_with_one_candidate_per_pick_is_margin(make_view):
    scores = np.random.default_rng(0).random(60)
    view = make_view(60, features=groups(6, 10))
    plain = pick(Margin(), view, 12, scores=scores)
    assert set(pick(ClusterMargin(oversample=1), view, 12, scores=scores)) == set(plain)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClusterMargin(n_clusters=0), r"ClusterMargin\(n_clusters=0\): allowed"),
        (lambda: ClusterMargin(oversample=0.5), "oversample=0.5"),
        (lambda: ClusterMargin(order="big"), "order='big'.*size, score"),
        (lambda: ClusterMargin(KCenterGreedy()), "gives no score"),
        (lambda: Stratified(0), r"Stratified\(n_clusters=0\)"),
        (lambda: TypiClust(max_clusters=0), "max_clusters=0"),
        (lambda: TypiClust(neighbours=0), "neighbours=0"),
    ],
)
def test_settings_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_usual_number_of_clusters_stays_while_a_pool_grows():
    assert [usual_clusters(n) for n in (1, 2, 60, 50_000, 55_000, 10**6, 10**7)] == [1, 1, 8, 256, 256, 1024, 4096]
    assert all(usual_clusters(n) <= n for n in range(1, 200))


# ---- TypiClust -----------------------------------------------------------------------------------------------------


def most_typical(rows, count, neighbours):
    """The authors' loop from the full distance matrix."""
    left, picked = list(range(len(rows))), []
    for _ in range(count):
        k = min(neighbours, len(left) // 2)
        distances = np.sort(cdist(rows[left], rows[left]), axis=1)[:, 1 : k + 1].mean(axis=1) if k else np.zeros(1)
        picked.append(left.pop(int(distances.argmin())))
    return picked


@pytest.mark.parametrize(("n", "count", "neighbours"), [(80, 10, 20), (80, 70, 5), (9, 9, 20), (1, 1, 3), (2, 1, 3)])
def test_typical_records_are_those_of_the_full_matrix(n, count, neighbours):
    rows = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32) + 50
    found = typical(rows, count, neighbours, np.random.default_rng(0))[0].tolist()
    assert len(set(found)) == count
    sure = max(0, min(count, n - 5))  # the last few have one neighbour each: ties
    assert found[:sure] == most_typical(rows.astype(np.float64), count, neighbours)[:sure]


def test_typical_picks_of_duplicates_are_drawn():
    rows = np.full((40, 3), 7.5, np.float32)
    firsts = {int(typical(rows, 3, 20, np.random.default_rng(s))[0][0]) for s in range(30)}
    assert len(firsts) > 10


def test_typiclust_visits_clusters_with_fewest_labels_then_largest_and_small_ones_last(make_view):
    sizes = [20, 12, 30, 4, 9]
    clusters = np.repeat(np.arange(5), sizes)
    features = np.random.default_rng(0).normal(size=(75, 3)).astype(np.float32)
    view = make_view(75, labelled=[32, 33], features=features, clusters=clusters)  # two of cluster 2
    picked = pick(TypiClust(max_clusters=5, neighbours=3), view, 7)
    assert clusters[picked].tolist() == [0, 1, 4, 2, 0, 1, 4]
    mine = np.flatnonzero(clusters == 0)
    assert [picked[0], picked[4]] == mine[most_typical(features[mine].astype(float), 2, 3)].tolist()
    everything = pick(TypiClust(max_clusters=5, neighbours=3), view, 73)
    assert set(clusters[everything[-4:]]) == {3}


def test_as_many_clusters_as_there_will_be_labels_at_most_so_many(make_view):
    asked = []
    view = make_view(60, labelled=[1, 2], features=groups(6, 10))
    view = dataclasses.replace(view, load_clusters=lambda k, inner=view.load_clusters: asked.append(k) or inner(k))
    pick(TypiClust(), view, 10)
    pick(TypiClust(max_clusters=7), view, 10)
    assert asked == [12, 7]
