"""Features of a run: where they come from, that they are made once, and that they are on the bill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from al_lightning import Budget
from al_lightning.candidates import Representatives
from al_lightning.errors import FeaturesMissing, PoolError
from al_lightning.features import Layer, RawInputs
from al_lightning.features.cluster import kmeans
from al_lightning.query import KCenterGreedy
from al_lightning.round_size import Fixed, Listed
from tests.helpers import Records, blobs, learner, net, pool_of


def run(folder: Path, features, **settings):
    settings = {"candidates": Representatives(0.5, n_clusters=4), **settings}
    return learner(folder, **settings).fit(net(), datamodule=pool_of(features=features))


def cached(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "features" / f"{name}-60.npz", allow_pickle=False))


def test_raw_inputs_are_the_inputs_flattened_and_free_of_flops(tmp_path):
    result = run(tmp_path, RawInputs())
    data = blobs()
    item_by_item = [(x.reshape(2, -1), y) for x, y in data]  # of any shape
    for pool in (pool_of(data), pool_of(item_by_item)):
        pool.setup("fit")
        assert np.array_equal(RawInputs().compute(pool), data.tensors[0].numpy())
        assert np.array_equal(RawInputs().compute(pool, np.array([7, 2])), data.tensors[0][[7, 2]].numpy())
    assert result.bill.lines["embed"].records == 0
    assert result.bill.lines["embed"].flops == 0
    assert result.bill.lines["cluster"].flops > 0


def test_a_layer_is_what_the_fitted_model_puts_out_there(tmp_path):
    seen = {}

    def keep(record, model):
        if record.round == 1:
            with torch.inference_mode():
                seen["hidden"] = model.eval().net[1](model.net[0](blobs().tensors[0])).numpy()

    result = run(tmp_path, Layer("net.1"), on_round=keep)
    np.testing.assert_allclose(cached(tmp_path, "features")["features"], seen["hidden"], rtol=1e-5, atol=1e-6)
    embed = result.bill.lines["embed"]
    assert embed.records == 60
    assert embed.flops == 60 * 2 * (4 * 8 + 8 * 3)  # one forward pass over the pool
    assert embed.records + result.bill.lines["score"].records == result.bill.records_inferred


def test_they_are_computed_once_a_run_also_when_it_is_interrupted(tmp_path):
    def stop(record, model):
        if record.round == 2:
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        run(tmp_path, Layer("net.1"), on_round=stop)
    written = (tmp_path / "features" / "features-60.npz").stat().st_mtime_ns
    result = run(tmp_path, Layer("net.1"))
    assert result.bill.lines["embed"].records == 60
    assert (tmp_path / "features" / "features-60.npz").stat().st_mtime_ns == written


def test_an_array_of_the_users_costs_nothing_and_is_not_copied(tmp_path):
    result = run(tmp_path, blobs().tensors[0].numpy())
    assert "embed" not in result.bill.lines
    assert not (tmp_path / "features" / "features-60.npz").exists()


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_layer_is_noise_until_something_was_fitted_unless_it_is_pretrained(tmp_path, pretrained):
    settings = {"initial": KCenterGreedy(), "query": KCenterGreedy()}
    if pretrained:
        assert len(run(tmp_path, Layer("net.1", pretrained=True), **settings).labelled) == 24
        return
    with pytest.raises(FeaturesMissing, match=r"Layer\('net.1'\).*has not been fitted is noise.*pretrained=True"):
        run(tmp_path, Layer("net.1"), **settings)


def test_a_layer_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(FeaturesMissing, match=r"no layer 'encoder'; it has net, net.0, net.1, net.2"):
        run(tmp_path, Layer("encoder"))


def test_clusters_without_features_say_how_to_give_some(tmp_path):
    with pytest.raises(FeaturesMissing, match=r"PoolDataModule\(features=\.\.\.\)"):
        run(tmp_path, None)


def test_inputs_of_several_shapes_are_refused(tmp_path):
    items = [(torch.zeros(4 + i % 2), i % 3) for i in range(60)]
    with pytest.raises(FeaturesMissing, match="one shape"):
        RawInputs().compute(pool_of(Records(items)))


def test_an_array_of_another_length_is_refused():
    with pytest.raises(PoolError, match=r"features have shape \(59, 4\); expected \(60, d\)"):
        pool_of(features=np.zeros((59, 4)))


# ---- records that are appended, and layers that move ------------------------------------------------------------


def grown(folder: Path, n: int, labels: int, features, **settings):
    """A run on the first n records that goes on until it has so many labels."""
    settings = {"candidates": Representatives(0.5, n_clusters=4), "round_size": Fixed(6), **settings}
    pool = pool_of(blobs(n), features=features)  # the first records of more blobs are the same ones
    return learner(folder, stop=[Budget(labels=labels)], **settings).fit(net(), datamodule=pool)


def only(folder: Path, name: str) -> dict[str, np.ndarray]:
    (path,) = folder.glob(f"features/{name}-*.npz")  # a file that was replaced is gone
    return dict(np.load(path, allow_pickle=False))


@pytest.mark.parametrize("again", [1, 2], ids=["at once", "in another process"])
def test_appended_records_are_all_that_is_embedded_and_go_to_the_clusters_there_are(tmp_path, again):
    first = grown(tmp_path, 60, 18, Layer("net.1"))
    before, old = only(tmp_path, "features")["features"], only(tmp_path, "clusters-4")
    for labels in (30, 36)[:again]:
        result = grown(tmp_path, 90, labels, Layer("net.1"))
    after, new = only(tmp_path, "features")["features"], only(tmp_path, "clusters-4")
    assert after.shape == (90, 8)
    assert np.array_equal(after[:60], before)
    assert np.array_equal(new["centroids"], old["centroids"])
    assert np.array_equal(new["assignments"][:60], old["assignments"])
    assert np.array_equal(new["assignments"][60:], cdist(after[60:], new["centroids"]).argmin(axis=1))
    assert result.bill.lines["embed"].records == 90
    assert result.bill.lines["embed"].flops == first.bill.lines["embed"].flops * 1.5
    assert result.bill.lines["cluster"].flops == first.bill.lines["cluster"].flops + 2 * 30 * 4 * 8
    assert result.labelled[:18].tolist() == first.labelled.tolist()


@pytest.mark.parametrize("source", [RawInputs(), "array"])
def test_appended_records_of_other_sources_keep_the_clusters_too(tmp_path, source):
    features = {n: blobs(n).tensors[0].numpy() if source == "array" else source for n in (60, 75)}
    grown(tmp_path, 60, 18, features[60])
    old = only(tmp_path, "clusters-4")
    grown(tmp_path, 75, 30, features[75])
    new = only(tmp_path, "clusters-4")
    assert np.array_equal(new["centroids"], old["centroids"])
    assert np.array_equal(new["assignments"][:60], old["assignments"])
    assert len(new["assignments"]) == 75


def test_a_layer_is_looked_at_before_every_query_and_embedded_again_only_if_it_moved(tmp_path):
    once = run(tmp_path / "never", Layer("net.1"))
    calm = run(tmp_path / "calm", Layer("net.1", refresh=1e9))
    nervous = run(tmp_path / "nervous", Layer("net.1", refresh=1e-9))
    # three queries: one before there was a model, one that embeds, one that looks
    records = [result.bill.lines["embed"].records for result in (once, calm, nervous)]
    assert records == [60, 60 + 60, 60 + 60 + 60]  # the sample is everything of so small a pool
    assert [len(only(tmp_path / name, "clusters-4")) for name in ("never", "calm", "nervous")] == [3, 3, 3]
    flops = [result.bill.lines["cluster"].flops for result in (once, calm, nervous)]
    assert flops == [flops[0], flops[0], 2 * flops[0]]
    kept, new = (only(tmp_path / name, "features")["features"] for name in ("calm", "nervous"))
    assert np.array_equal(kept, only(tmp_path / "never", "features")["features"])
    assert not np.array_equal(kept, new)
    assert calm.labelled.tolist() == once.labelled.tolist()


def test_a_layer_that_moved_is_clustered_from_its_new_features(tmp_path):
    run(tmp_path, Layer("net.1", refresh=1e-9))
    features, clusters = only(tmp_path, "features")["features"], only(tmp_path, "clusters-4")
    assert np.array_equal(clusters["assignments"], kmeans(features, 4, seed=0).assignments)


def test_a_run_stopped_after_a_refresh_goes_on_to_the_same_labels(tmp_path):
    source, sizes = Layer("net.1", refresh=1e-9), Listed([12, 6, 6, 6])
    whole = run(tmp_path / "whole", source, round_size=sizes)

    def stop(record, model):
        if record.round == 3:
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        run(tmp_path / "stopped", source, round_size=sizes, on_round=stop)
    again = run(tmp_path / "stopped", source, round_size=sizes)
    assert again.labelled.tolist() == whole.labelled.tolist()
    assert again.bill.lines["embed"].records == whole.bill.lines["embed"].records


@pytest.mark.parametrize(("shift", "moved"), [(0.9, False), (1.1, True)])
def test_moved_is_the_squared_distance_as_a_share_of_the_variance(shift, moved):
    before = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float16)
    spread = before.astype(float).std(axis=0)
    now = before.astype(float) + spread * (0.25 * shift) ** 0.5
    assert Layer("x", refresh=0.25).moved(before, now) is moved


def test_constant_features_that_stay_have_not_moved():
    constant = np.ones((10, 3), np.float32)
    assert not Layer("x", refresh=0.1).moved(constant, constant)
    assert Layer("x", refresh=0.1).moved(constant, constant + 1)


@pytest.mark.parametrize("refresh", [0, -1.0, float("nan")])
def test_a_bad_threshold_is_refused(refresh):
    with pytest.raises(ValueError, match=r"Layer\(refresh=.*allowed: a positive share"):
        Layer("x", refresh=refresh)
