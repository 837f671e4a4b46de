"""A pool's embedding in memory-mapped files: the same rows, made once, taken wherever features are."""

from __future__ import annotations

import numpy as np
import pytest

from al_lightning.errors import PoolError
from al_lightning.features import Layer
from al_lightning.features.cluster import kmeans, nearest_centroid
from al_lightning.features.mapped import Mapped, assign, embed
from al_lightning.query import KCenterGreedy
from tests.helpers import blobs, learner, net, pool_of, quiet

LAYER = Layer("net.1")


def embedded(folder, model=None, n=60, **more):
    model = net() if model is None else model
    return embed(model, pool_of(blobs(n)), LAYER, folder=folder, trainer=quiet(), rows_per_file=25, **more)


def rows(model, n=60):
    return model.net[1](model.net[0](blobs(n).tensors[0])).detach().numpy()


def test_rows_are_those_of_the_layer_whatever_is_asked_for(tmp_path):
    features, entries = embedded(tmp_path)
    expected = rows(net())
    np.testing.assert_allclose(features[:], expected, atol=1e-6)
    everything = features[:]
    for at in (slice(20, 53), slice(None, None, 7), np.array([59, 0, 31, 31]), np.array([-1]), everything[:, 0] > 0.5):
        np.testing.assert_array_equal(features[at], everything[at])
    assert features[3].tolist() == everything[3].tolist()
    assert (len(features), features.shape, features.ndim) == (60, (60, 8), 2)
    assert sum(e.records for e in entries) == 60
    assert sum(e.flops for e in entries) == 60 * 2 * (4 * 8 + 8 * 3)


def test_they_are_made_once_and_only_what_is_missing(tmp_path):
    embedded(tmp_path)
    assert embedded(tmp_path)[1] == []
    (tmp_path / "features-00001.npy").unlink()
    with pytest.raises(PoolError, match="features-00001"):
        Mapped(tmp_path)
    features, entries = embedded(tmp_path)
    assert sum(e.records for e in entries) == 25
    np.testing.assert_allclose(features[:], rows(net()), atol=1e-6)


def test_other_weights_make_them_anew(tmp_path):
    embedded(tmp_path)
    other = net(seed=1)
    features, entries = embedded(tmp_path, other)
    assert sum(e.records for e in entries) == 60
    np.testing.assert_allclose(features[:], rows(other), atol=1e-6)


def test_they_are_clustered_and_queried_by_like_an_array(tmp_path):
    features, _ = embedded(tmp_path / "features")
    plain = features[:]
    ours, theirs = (kmeans(x, 5, seed=0).assignments for x in (features, plain))
    assert np.array_equal(ours, theirs)
    labelled = [
        learner(tmp_path / str(i), query=KCenterGreedy()).fit(net(), datamodule=pool_of(features=x)).labelled.tolist()
        for i, x in enumerate((features, plain))
    ]
    assert labelled[0] == labelled[1]


def test_clusters_are_assigned_next_to_the_model(tmp_path):
    features, _ = embedded(tmp_path)
    centroids = kmeans(features, 5, seed=0).centroids
    clusters, entries = assign(net(), pool_of(), LAYER, centroids, trainer=quiet(), ids=[5, 59, 0])
    assert clusters.tolist() == nearest_centroid(features[:], centroids)[0][[5, 59, 0]].tolist()
    assert clusters.dtype == np.int32
    assert [e.phase for e in entries] == ["embed", "cluster"]
    assert entries[1].flops == 2 * 3 * 5 * 8


def test_a_folder_without_features(tmp_path):
    with pytest.raises(PoolError, match=r"holds no features: it has no about\.json"):
        Mapped(tmp_path)
