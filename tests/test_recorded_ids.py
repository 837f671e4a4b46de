"""What a seeded run labels stays what it was when this was recorded, however its parts are named and put together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from al_lightning.cli.build import build, compose_config
from tests.helpers import blobs, learner, net, pool_of

PLAIN = "3fa65e86234339af"
FRUGAL = "8cddaf31628f78b8"


def fingerprint(ids: np.ndarray) -> str:
    return hashlib.sha256(",".join(map(str, ids.tolist())).encode()).hexdigest()[:16]


def test_a_plain_learner_labels_the_records_it_always_has(tmp_path: Path) -> None:
    found = learner(tmp_path).fit(net(), pool_of(blobs(200)))
    assert fingerprint(found.labelled) == PLAIN


def test_the_frugal_preset_labels_the_records_it_always_has(tmp_path: Path) -> None:
    options = ["experiment=frugal", "labels=300", "logger=none", f"run_dir={tmp_path}"]
    parts = build(compose_config("run", options))
    found = parts.fit()
    assert fingerprint(found.labelled) == FRUGAL
