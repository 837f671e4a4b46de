"""FLOPs are measured on the user's model; for an MLP they can be counted by hand."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.served import batch_length
from al_lightning.query import Random
from tests.helpers import CLASSES, WIDTH, learner, net, pool_of, quiet

FORWARD = 2 * (WIDTH * 8 + 8 * CLASSES)
# Backward: one product for each weight, one for the input of each layer but the first, whose input needs no gradient.
TRAIN = FORWARD + FORWARD + 2 * 8 * CLASSES


def test_the_bill_of_a_whole_run_by_hand(tmp_path: Path) -> None:
    result = learner(tmp_path, quiet(max_epochs=2), stop_set=6).fit(net(), datamodule=pool_of())
    trained, scored, validated = 2 * (12 + 18 + 24), (54 - 12) + (54 - 18), result.bill.lines["validate"].records
    flops = {phase: line.flops for phase, line in result.bill.lines.items()}
    assert flops["train"] == trained * TRAIN
    assert flops["score"] == scored * FORWARD
    assert flops["validate"] == validated * FORWARD
    assert flops["agree"] == 3 * 6 * FORWARD
    assert validated == 3 * (2 * 9 + 9)  # two epochs and the sanity check, in every round
    assert result.bill.flops == sum(flops.values())
    assert result.bill.reference is not None
    assert result.bill.reference.flops == 2 * 24 * TRAIN
    assert result.rho == pytest.approx(result.bill.flops / (2 * 24 * TRAIN))
    assert result.history[-1].cost["flops"] == result.bill.flops


def test_random_queries_cost_no_scoring(tmp_path: Path) -> None:
    result = learner(tmp_path, query=Random()).fit(net(), datamodule=pool_of())
    assert "score" not in result.bill.lines
    assert result.bill.records_inferred == 0


def test_freezing_is_billed_as_measured(tmp_path: Path) -> None:
    fit = WarmStart("keep", epochs=1, first_epochs=1, freeze=("net.0",))
    result = learner(tmp_path, fit=fit).fit(net(), datamodule=pool_of())
    frozen = FORWARD + 2 * 8 * CLASSES  # backward ends at the second layer's weights
    assert result.bill.lines["train"].flops == 12 * TRAIN + (18 + 24) * frozen


def test_a_shorter_recipe_lowers_the_bill_and_not_the_reference(tmp_path: Path) -> None:
    fit = WarmStart("keep", epochs=1, first_epochs=1)
    result = learner(tmp_path, quiet(max_epochs=4), fit=fit).fit(net(), datamodule=pool_of())
    assert result.bill.lines["train"].records == 12 + 18 + 24
    assert result.bill.reference is not None
    assert result.bill.reference.records == 4 * 24


def test_a_trainer_limited_by_steps_has_a_reference(tmp_path: Path) -> None:
    trainer = quiet(max_epochs=-1, max_steps=6)
    result = learner(tmp_path, trainer).fit(net(), datamodule=pool_of())
    assert result.bill.reference is not None
    assert result.bill.reference.records == 6 * 8


def test_counting_changes_no_result() -> None:
    model, x = net(), torch.randn(5, WIDTH)
    meter = FlopMeter()
    with meter.counting("forward", 5):
        counted = model(x)
    assert torch.equal(counted, model(x))
    assert meter.per_record == {"forward": FORWARD}
    assert meter.flops("forward", 7) == 7 * FORWARD
    assert meter.flops("never", 7) == 0


def test_a_kind_is_measured_once_and_a_failed_pass_never() -> None:
    meter = FlopMeter({"known": 3.0})
    with meter.counting("known", 5):
        net()(torch.randn(5, WIDTH))
    assert meter.per_record == {"known": 3.0}
    with pytest.raises(RuntimeError), meter.counting("x", 5):
        raise RuntimeError
    assert "x" not in meter.per_record
    with meter.counting("conv", 2):
        nn.Conv2d(3, 5, 3, bias=False)(torch.randn(2, 3, 10, 10))
    assert meter.per_record["conv"] == 2 * 3 * 5 * 9 * 64


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    ("batch", "length"),
    [
        (torch.zeros(7, 3), 7),
        ([torch.zeros(5, 3), torch.zeros(5)], 5),
        ({"x": torch.zeros(4, 2), "y": torch.zeros(4)}, 4),
        ({"id": ["a", "b", "c"], "x": torch.zeros(3, 2)}, 3),
        (Pair({"a": torch.zeros(6, 1)}, torch.zeros(6)), 6),
        (torch.tensor(1.0), 1),
        ((["a", "b"], torch.zeros(2)), 2),
        ([], 0),
        ("text", 0),
        (None, 0),
    ],
)
def test_batch_length(batch: Any, length: int) -> None:
    assert batch_length(batch) == length


def test_batch_length_of_numpy() -> None:
    assert batch_length([np.zeros((4, 2)), np.zeros(4)]) == 4
