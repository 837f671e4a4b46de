"""The pool is embedded and put into clusters on the cluster, too."""

from __future__ import annotations

import numpy as np
import pytest

from al_lightning.candidates import Representatives
from al_lightning.features import Layer
from al_lightning.features.cluster import kmeans
from al_lightning.features.mapped import assign, embed
from tests.helpers import learner, net, pool_of, quiet

pytestmark = pytest.mark.xdist_group("ray")
LAYER = Layer("net.1")


def test_features_and_clusters_are_those_of_one_process(scorer, tmp_path):
    here, there = (
        embed(net(), pool_of(), LAYER, folder=tmp_path / str(bool(s)), trainer=quiet(), rows_per_file=25, **s)[0]
        for s in ({}, {"scoring": scorer()})
    )
    np.testing.assert_array_equal(there[:], here[:])
    centroids = kmeans(here, 5, seed=0).centroids
    found = [assign(net(), pool_of(), LAYER, centroids, trainer=quiet(), **s) for s in ({}, {"scoring": scorer()})]
    assert found[0][0].tolist() == found[1][0].tolist()
    assert found[0][1][1] == found[1][1][1]


def test_a_run_on_a_layer_labels_the_same_records(scorer, tmp_path):
    settings = {"candidates": Representatives(0.5, n_clusters=4)}
    here = learner(tmp_path / "here", **settings).fit(net(), datamodule=pool_of(features=LAYER))
    there = learner(tmp_path / "there", **settings, scoring=scorer()).fit(net(), datamodule=pool_of(features=LAYER))
    assert there.labelled.tolist() == here.labelled.tolist()
    assert there.bill.lines["embed"].flops == here.bill.lines["embed"].flops
