"""Features of a run: where they come from, that they are made once, and that they are on the bill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from al_lightning import KCenterGreedy, Layer, RawInputs, Representatives
from al_lightning.errors import FeaturesMissing, PoolError
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
