from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.stats

from al_lightning.candidates import Representatives, cluster_worth, draw_from_clusters
from al_lightning.errors import FeaturesMissing, PoolError

NAN = float("nan")


def draw(clusters, worth, count, *, seed=0, last=None):
    n = len(clusters)
    last = np.full(n, -1) if last is None else np.asarray(last)
    clusters, worth = np.asarray(clusters), np.asarray(worth, float)
    return draw_from_clusters(np.arange(n), clusters, last, worth, count, np.random.default_rng(seed))


TENS = np.repeat(np.arange(6), 10)  # 60 records in 6 clusters of 10


def test_worth_is_the_mean_rank_of_remembered_scores_with_one_more_at_the_overall_mean():
    scores = np.array([0.9, 0.2, NAN, 0.2, -7.0, NAN], np.float32)
    ranks = scipy.stats.rankdata([0.9, 0.2, 0.2, -7.0]) / 4
    overall = ranks.mean()
    expected = [(ranks[0] + ranks[1] + overall) / 3, (ranks[2] + ranks[3] + overall) / 3, overall]
    assert cluster_worth(scores, np.array([0, 0, 0, 1, 1, 2]), 3) == pytest.approx(expected)


@pytest.mark.parametrize("value", [NAN, 0.0, -7.0])
def test_worth_is_even_when_nothing_tells_clusters_apart(value):
    worth = cluster_worth(np.full(4, value, np.float32), np.array([0, 0, 0, 1]), 3)
    assert worth == pytest.approx(np.full(3, worth[0]))
    assert worth[0] > 0


def test_worth_of_any_finite_score_is_positive_and_keeps_the_order():
    worth = cluster_worth(np.array([-3e38, -3e38, -1, 3e38, NAN], np.float32), np.array([0, 0, 1, 1, 2]), 3)
    assert 0 < worth[0] < worth[2] < worth[1] <= 1


@pytest.mark.parametrize("count", [1, 7, 50, 99, 100])
def test_count_is_exact_and_allocation_within_one_of_proportional(count):
    clusters = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    for seed in range(20):
        drawn = draw(clusters, [1, 1, 1, 1], count, seed=seed)
        assert len(set(drawn.tolist())) == count
        quota = count * np.array([0.4, 0.3, 0.2, 0.1])
        assert (np.abs(np.bincount(clusters[drawn], minlength=4) - quota) < 2).all()


@pytest.mark.parametrize("count", [12, 37, 150])
def test_allocation_is_proportional_to_members_times_worth_on_average(count):
    clusters = np.repeat(np.arange(60), 10)
    worth = np.tile([1, 2, 3], 20)
    drawn = np.concatenate([clusters[draw(clusters, worth, count, seed=seed)] for seed in range(400)])
    found = np.bincount(drawn, minlength=60).reshape(20, 3).mean(axis=0) / 400
    assert found == pytest.approx(count * np.array([1, 2, 3]) / 120, rel=0.06)


def test_a_cluster_is_never_asked_for_more_than_it_has():
    clusters = np.repeat([0, 1], [3, 20])
    assert np.bincount(clusters[draw(clusters, [1e9, 1], 10)]).tolist() == [3, 7]


def test_turns_go_to_the_longest_unscored():
    last = [2, 0, -1, 1, -1, 2]
    clusters = [0] * 6
    assert set(draw(clusters, [1], 2, last=last).tolist()) == {2, 4}
    assert set(draw(clusters, [1], 4, last=last).tolist()) == {2, 4, 1, 3}
    fifth = {(set(draw(clusters, [1], 5, last=last, seed=s).tolist()) - {1, 2, 3, 4}).pop() for s in range(20)}
    assert fifth == {0, 5}  # equally stale: drawn, not taken by position


def test_rotation_visits_every_record_once_before_any_twice(make_view):
    seen, state = np.zeros(60, int), {}
    last = np.full(60, -1)
    for round in range(10):
        view = make_view(60, clusters=TENS, scores=np.where(last < 0, NAN, 0.5), score_rounds=last)
        ids, state = Representatives(0.1, n_clusters=6).propose(
            view=view, size=1, rng=np.random.default_rng(round), state=state
        )
        assert sorted(TENS[ids].tolist()) == [0, 1, 2, 3, 4, 5]  # one member of every cluster
        last[ids] = round
        seen[ids] += 1
    assert (seen == 1).all()


def test_memory_looks_where_scores_were_high_and_can_be_switched_off(make_view):
    scores = np.full(60, NAN)
    scores[:4], scores[[10, 20, 30, 40, 50]] = 0.9, 0.01
    scores[[11, 12]] = 0.95
    view = make_view(60, labelled=[11, 12], clusters=TENS, scores=scores)  # what is labelled counts no more
    share = {}
    for memory in (True, False):
        selector = Representatives(0.2, n_clusters=6, memory=memory)
        draws = [selector.propose(view=view, size=1, rng=np.random.default_rng(s), state={})[0] for s in range(50)]
        share[memory] = np.bincount(TENS[np.concatenate(draws)], minlength=6) / len(np.concatenate(draws))
    assert share[False][0] == pytest.approx(10 / 58, rel=0.15)
    assert share[True][0] > 1.3 * share[False][0]
    assert share[True][1] < share[False][1]


def test_clusters_are_asked_for_once_however_the_pool_shrinks_or_grows(make_view):
    asked, state = [], {}
    for size, labelled in [(100, 0), (100, 60), (140, 60)]:
        view = make_view(size, labelled=range(labelled), features=np.random.default_rng(0).normal(size=(size, 2)))
        inner = view.load_clusters
        view = dataclasses.replace(view, load_clusters=lambda k, inner=inner: asked.append(k) or inner(k))
        _, state = Representatives(0.2).propose(view=view, size=1, rng=np.random.default_rng(0), state=state)
    assert asked == [20, 20, 20]
    assert state == {"n_clusters": 20}


def test_a_bad_number_of_clusters_is_refused(make_view):
    with pytest.raises(ValueError, match=r"n_clusters=0\): allowed"):
        Representatives(0.1, n_clusters=0)
    with pytest.raises(PoolError, match="9 clusters of 5 records"):
        Representatives(0.5, n_clusters=9).propose(
            view=make_view(5, features=np.eye(5)), size=1, rng=np.random.default_rng(0), state={}
        )


def test_a_pool_without_features_is_refused(make_view):
    with pytest.raises(FeaturesMissing, match="PoolDataModule"):
        Representatives(0.5).propose(view=make_view(5), size=1, rng=np.random.default_rng(0), state={})
