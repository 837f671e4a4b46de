"""Which element of an item is the target is asked of the module, and said, where there are several."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from al_lightning.errors import PoolError
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.pool.datamodule import PoolDataModule
from tests.helpers import CLASSES, Net, Records, blobs, learner


class Weighs(Net):
    """Takes ``(x, weight, y)``, or the last two the other way round."""

    def __init__(self, weight: int, target: int) -> None:
        super().__init__()
        self.weight, self.target = weight, target

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[self.target], reduction="none")
        return (loss * batch[self.weight]).mean()

    def infer(self, batch: Any) -> Tensor:
        return self.net(batch[0])

    validation_step = None  # type: ignore[assignment]


def _pool(weight: int, scale: float, **settings: Any) -> PoolDataModule:
    x, y = blobs().tensors
    rows = [(a, int(b), scale * (1 + i % 2)) for i, (a, b) in enumerate(zip(x, y, strict=True))]
    records = rows if weight == 2 else [(a, w, b) for a, b, w in rows]
    return PoolDataModule(Records(records), task="multiclass", batch_size=8, **settings)


def test_weights_before_the_target_are_the_users_and_a_line_says_what_is_the_target(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        result = learner(tmp_path).fit(Weighs(1, 2), datamodule=_pool(1, 0.5))
    assert len(result.labelled) == 24
    assert "The last of the 3 elements of an item is taken for its target" in caplog.text


def test_weights_behind_the_target_are_refused_and_attach_is_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"is 0\.5, which is no class number.*attach="):
        _pool(2, 0.5)
    pool = _pool(2, 0.5, attach=lambda item, label: (item[0], torch.tensor(label), item[2]))
    oracle = FunctionOracle(lambda id: id % CLASSES)
    assert len(learner(tmp_path, oracle=oracle).fit(Weighs(2, 1), datamodule=pool).labelled) == 24
