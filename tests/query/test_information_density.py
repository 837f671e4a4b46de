from __future__ import annotations

import numpy as np
import pytest
import scipy.spatial

from al_lightning.errors import BadScores, FeaturesMissing, NegativeScores
from al_lightning.query import Entropy, InformationDensity, Margin, information_density, mean_cosine
from tests.helpers import learner, net, pool_of

FEATURES = np.random.default_rng(0).normal(loc=0.6, size=(90, 6))


def by_pairs(features, ids, others):
    return 1 - scipy.spatial.distance.cdist(features[ids], features[others], "cosine").mean(axis=1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_it_is_the_mean_over_all_pairs(dtype, monkeypatch):
    monkeypatch.setattr(information_density, "_BLOCK", 6 * 16)  # 16 rows at a time, the last block part of it
    features = (FEATURES * np.random.default_rng(1).uniform(0.01, 50, size=(90, 1))).astype(dtype)
    ids, others = np.random.default_rng(2).permutation(90)[:25], np.arange(10, 90)
    found, flops = mean_cosine(features, ids, others)
    np.testing.assert_allclose(found, by_pairs(features.astype(np.float64), ids, others), atol=1e-6)
    assert flops == 4 * 6 * (25 + 80)


def test_reads_a_memory_map(tmp_path):
    np.save(tmp_path / "features.npy", FEATURES.astype(np.float16))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    found, _ = mean_cosine(mapped, np.arange(30), np.arange(90))
    np.testing.assert_array_equal(found, mean_cosine(FEATURES.astype(np.float16), np.arange(30), np.arange(90))[0])


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_picks_are_those_of_score_times_density(make_view, beta):
    view = make_view(90, labelled=range(20), features=FEATURES)
    ids = np.random.default_rng(1).permutation(view.unlabelled)[:40]
    scores = np.random.default_rng(2).random(40)
    query = InformationDensity(Margin(), beta=beta).pick(
        view=view, ids=ids, arrays={"score": scores}, size=12, rng=np.random.default_rng(0)
    )
    weighed = scores * np.maximum(by_pairs(FEATURES, ids, view.unlabelled), 0) ** beta
    assert query.tolist() == ids[np.argsort(-weighed)][:12].tolist()


def test_what_is_unlike_the_pool_comes_last(make_view):
    features = np.array([[1.0, 0], [1, 0.1], [0.9, 0], [-3, 0], [0, 0]])
    view = make_view(5, features=features)
    seen = set()
    for seed in range(20):
        query = InformationDensity(Entropy(), beta=0.5).pick(
            view=view, ids=np.arange(5), arrays={"score": np.array([0.1, 0.1, 0.1, 0.9, 0.9])}, size=5,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        assert set(query[:3]) == {0, 1, 2}
        seen.add(tuple(query[3:].tolist()))
    assert seen == {(3, 4), (4, 3)}  # a vector of length 0 is like nothing, too


def test_duplicates_tie_exactly_wherever_they_stand():
    features = np.tile(np.random.default_rng(0).normal(loc=0.3, size=(1, 37)).astype(np.float32), (1003, 1))
    found, _ = mean_cosine(features, np.arange(1003), np.arange(1003))
    assert len(set(found.tolist())) == 1
    assert found[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_features_are_named_also_those_of_records_that_are_no_candidates(make_view, value):
    features = FEATURES.copy()
    features[[33, 80], 2] = value
    view = make_view(90, features=features)
    with pytest.raises(BadScores, match="features is NaN or infinite for ids 33, 80") as error:
        InformationDensity(Margin()).pick(
            view=view, ids=np.arange(40), arrays={"score": np.ones(40)}, size=2, rng=np.random.default_rng(0)
        )
    assert error.value.ids == (33, 80)


def test_scores_below_zero_cannot_be_weighed(make_view):
    with pytest.raises(NegativeScores, match=r"InformationDensity.*ids 0"):
        InformationDensity(Margin()).pick(
            view=make_view(3, features=FEATURES[:3]), ids=np.arange(3), arrays={"score": np.array([-1.0, 1, 1])},
            size=1, rng=np.random.default_rng(0),
        )  # fmt: skip


def test_it_is_on_the_bill_and_needs_features(tmp_path):
    features = pool_of().eval_data.tensors[0].numpy()
    result = learner(tmp_path / "a", query=InformationDensity(Margin())).fit(net(), pool_of(features=features))
    # 48 and 42 unlabelled records, all of them candidates, four dimensions
    assert result.bill.lines["neighbours"].flops == 4 * 4 * 2 * (48 + 42)
    with pytest.raises(FeaturesMissing, match="features="):
        learner(tmp_path / "b", query=InformationDensity(Margin())).fit(net(), pool_of())


def test_beta_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"beta=0"):
        InformationDensity(Margin(), beta=0)
