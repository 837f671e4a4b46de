"""Planted corruption: as much as is said, of the kinds that are said, and counted right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from benchmarks import corrupted
from benchmarks.data import Split


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """400 records of four classes in place of the data sets; two seeds, rounds of five."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 4
    x = torch.randn(400, 6, generator=generator) + 3 * torch.nn.functional.one_hot(y, 6)
    split = Split(x, y)
    protocol = corrupted.PROTOCOLS["letter"]
    monkeypatch.setattr(corrupted, "PROTOCOLS", {"letter": type(protocol)(lambda: split, 5, 300, 0, 0, 0)})
    sizes = {"POOL": 300, "LATER": 90, "FIRST": 8, "STEP": 5, "ROUNDS": 2, "EPOCHS": 1, "SEEDS": range(2)}
    for name, value in sizes.items():
        monkeypatch.setattr(corrupted, name, value)
    corrupted._loaded.cache_clear()
    yield
    corrupted._loaded.cache_clear()


def test_inputs_are_corrupted_in_three_ways_and_labels_stay() -> None:
    whole, labels, _ = corrupted._loaded("letter")
    planted = corrupted.plant("letter", "inputs", 0.05, 0)
    order = np.random.default_rng([0, 0, 50]).permutation(400)[:390]
    ways, counts = np.unique(planted.wrong[:300], return_counts=True)
    assert dict(zip(ways.tolist(), counts.tolist(), strict=True)) == {"": 285, "noise": 5, "scaled": 5, "shuffled": 5}
    assert torch.equal(planted.y, labels[order])
    clean, found = whole[order], planted.x
    same = torch.from_numpy(planted.wrong == "")
    assert torch.equal(found[same], clean[same])
    some = torch.from_numpy(planted.wrong == "scaled")
    assert torch.equal(found[some], 10 * clean[some])
    some = torch.from_numpy(planted.wrong == "shuffled")
    assert torch.equal(found[some].sort(1).values, clean[some].sort(1).values)
    assert not torch.equal(found[some], clean[some])
    for row in found[torch.from_numpy(planted.wrong == "noise")]:
        assert all(value in whole[:, i] for i, value in enumerate(row))  # each feature is some record's


def test_wrong_labels_are_other_classes_and_inputs_stay() -> None:
    whole, labels, _ = corrupted._loaded("letter")
    planted = corrupted.plant("letter", "labels", 0.02, 1)
    order = np.random.default_rng([1, 1, 20]).permutation(400)[:390]
    assert torch.equal(planted.x, whole[order])
    assert ((planted.y != labels[order]).numpy() == (planted.wrong == "label")).all()
    assert (planted.wrong[:300] == "label").sum() == 6


@pytest.mark.parametrize("method", ["margin", "bald", "badge", "cluster_margin", "k_center", "typiclust"])
def test_every_query_is_new_and_counted(method: str) -> None:
    rows = corrupted.measure("letter", "inputs", 0.05, method)
    assert [row["queried"] for row in rows] == [10, 10]
    assert all(row["caught"] <= min(row["named"], sum(row["corrupted"].values())) for row in rows)


def test_the_farthest_records_are_those_that_were_scaled() -> None:
    rows = corrupted.measure("letter", "inputs", 0.05, "k_center")
    assert all(row["corrupted"]["scaled"] == 5 for row in rows)
    assert corrupted.enrichment(rows[0], "scaled") == (5 / 10) / (5 / 300)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*have no labelled record")
def test_the_preset_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupted, "EPOCHS", 16)  # two epochs leave nothing for rounds at the preset's rho,
    monkeypatch.setattr(corrupted, "ROUNDS", 8)  # nor do 18 labels make more than one round
    rows = corrupted.measure("letter", "labels", 0.05, "frugal")
    assert all(0 < row["queried"] < 48 for row in rows)


def test_an_interval_and_a_summary_by_hand() -> None:
    assert corrupted.interval([1.0, 3.0]) == pytest.approx((2.0, 12.706), abs=1e-3)
    row = {
        "dataset": "letter",
        "kind": "labels",
        "share": 0.1,
        "method": "margin",
        "queried": 10,
        "planted": {"label": 30},
    }
    rows = [
        {**row, "seed": 0, "corrupted": {"label": 1}, "named": 2, "caught": 1},
        {**row, "seed": 1, "corrupted": {"label": 3}, "named": 2, "caught": 2},
    ]
    (line,) = corrupted.summarise(rows)
    assert line["enrichment"] == 2.0
    assert (line["recall"], line["precision"], line["named_share"]) == (0.75, 0.75, 0.2)
