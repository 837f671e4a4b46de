from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.spatial
import scipy.stats

from al_lightning.errors import FeaturesMissing
from al_lightning.features.neighbours import distance_to_nearest, project
from al_lightning.features.source import RawInputs
from al_lightning.query import DistanceWeighted, KCenterGreedy, Margin
from tests.helpers import learner, net, pool_of

FEATURES = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32) + 100


@pytest.mark.parametrize("weight", [0.1, 0.4, 0.9])
def test_picks_are_those_of_ranks_by_scipy(make_view, weight):
    view = make_view(80, labelled=[3, 9, 70], features=FEATURES)
    scores = np.random.default_rng(1).random(77).round(1)  # with ties
    distance = scipy.spatial.distance.cdist(FEATURES[view.unlabelled], FEATURES[[3, 9, 70]]).min(axis=1)
    mixed = (1 - weight) * scipy.stats.rankdata(scores) + weight * scipy.stats.rankdata(distance)
    picked = DistanceWeighted(Margin(), weight=weight).pick(
        view=view, ids=view.unlabelled, arrays={"score": scores}, size=20, rng=np.random.default_rng(0)
    )
    expected = view.unlabelled[np.argsort(-mixed)]
    assert set(picked.tolist()) == set(expected[:20].tolist())
    assert picked[0] == expected[0]


def test_distances_survive_the_projection():
    wide = np.random.default_rng(0).normal(size=(60, 400)).astype(np.float32)
    projected, flops = project(wide, 64, seed=0)
    assert projected.shape == (60, 64)
    assert flops == 2 * 60 * 400 * 64
    ratio = scipy.spatial.distance.pdist(projected) / scipy.spatial.distance.pdist(wide)
    assert 0.95 < ratio.mean() < 1.05
    assert ratio.std() < 0.15
    same, none = project(FEATURES, 16, seed=0)
    assert none == 0
    np.testing.assert_array_equal(same, FEATURES)


def test_distances_far_from_the_origin_are_exact():
    far = FEATURES.astype(np.float32) + 1000
    found, flops = distance_to_nearest(far[:30], far[30:])
    expected = scipy.spatial.distance.cdist(far[:30], far[30:]).min(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert flops == 2 * 30 * 50 * 5


def test_the_search_is_on_the_bill(tmp_path: Path) -> None:
    result = learner(tmp_path, query=DistanceWeighted(Margin())).fit(net(), datamodule=pool_of(features=RawInputs()))
    # 48 candidates against 12 labels, 42 against 18, four dimensions
    assert result.bill.lines["neighbours"].flops == 2 * 4 * (48 * 12 + 42 * 18)
    assert result.bill.lines["neighbours"].seconds > 0


def test_features_are_needed(tmp_path: Path) -> None:
    with pytest.raises(FeaturesMissing, match="features="):
        learner(tmp_path, query=DistanceWeighted(Margin())).fit(net(), datamodule=pool_of())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"weight": 0.0}, r"weight=0\.0"), ({"weight": 1.0}, r"weight=1\.0"), ({"dims": 0}, "dims=0")],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DistanceWeighted(Margin(), **settings)


def test_a_strategy_without_a_score_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"KCenterGreedy.*gives no score"):
        DistanceWeighted(KCenterGreedy())
