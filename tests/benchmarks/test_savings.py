from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, recall_score

from benchmarks import common, protocols, savings
from benchmarks.common import claim, write_results
from benchmarks.data import Split
from benchmarks.protocols import PROTOCOLS, Arrays, Protocol, long_tail
from benchmarks.savings import (
    ABLATION,
    CURVE,
    MAIN,
    PROXY,
    Scale,
    claims_of,
    configure,
    labels_to_match,
    measure,
    quality,
)


def row(method: str, seed: int, accuracy: float, flops: float = 1.0, **more: Any) -> dict[str, Any]:
    same = {"flops_reference": 2.0, "seconds": 1.0, "seconds_reference": 2.0, "rounds": 6}
    counts = {"records_trained": 100, "records_inferred": 100}
    return {"method": method, "seed": seed, "accuracy": accuracy, "flops": flops, **same, **counts, **more}


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the letter data, clouds of as many records and classes: nothing is read or downloaded."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(26, (20_000,), generator=generator)
    centres = torch.randn(26, 16, generator=generator)
    made = Split(centres[y] + torch.randn(20_000, 16, generator=generator), y)
    monkeypatch.setattr(protocols, "_letter", lambda: made)


def values(claims: list[dict[str, Any]]) -> dict[str, float]:
    return {c["name"]: c["value"] for c in claims}


def test_claims_are_of_the_rows_they_stand_beside() -> None:
    rows = [row("baseline", s, 90.0 + s, 20.0) for s in range(3)]
    rows += [row("frugal", s, 89.9 + s + (s == 1) * 0.3) for s in range(3)]
    rows += [row("scoring_only", s, 90.0 + s, records_inferred=10) for s in range(3)]
    found = values(claims_of(rows, "letter"))
    assert found["rho"] == 0.5
    assert found["rho_seconds"] == 0.5
    assert found["accuracy_difference"] == pytest.approx(0.0)
    assert found["accuracy_difference_ci_low"] == pytest.approx(-4.303 * 0.1732 / 3**0.5, abs=1e-3)
    assert found["scoring_only_records_ratio"] == 10
    assert "warm_start_only_ci_low" not in found


def test_what_equal_means_depends_on_the_protocol() -> None:
    rows = [row("baseline", s, 90.0 + s, macro_f1=80.0, worst_recall=40.0 + s) for s in range(3)]
    rows += [row("frugal", s, 89.2 + s, macro_f1=79.7, worst_recall=41.0 + s) for s in range(3)]
    holds = {
        name: {c["name"] for c in claims_of(rows, name) if c["holds"]}
        for name in ("letter", "inference-heavy", "long-tail")
    }
    assert "accuracy_difference_ci_low" not in holds["letter"]
    assert "accuracy_difference_ci_low" in holds["inference-heavy"]
    assert {"macro_f1_difference_ci_low", "worst_recall_difference_ci_low"} <= holds["long-tail"]


def test_ours_is_held_against_the_best_baseline_and_the_gain_over_random() -> None:
    rows = [row("baseline", s, 90.0 + s % 2, labels_to_match=400.0) for s in range(4)]
    rows += [row("baseline_lpft", s, 92.0 + s % 2, labels_to_match=400.0) for s in range(4)]
    rows += [row("random", s, 88.0 + s % 2, labels_to_match=200.0) for s in range(4)]
    rows += [row("frugal", s, 91.0 + s % 2, labels_to_match=300.0) for s in range(4)]
    found = values(claims_of(rows, "letter"))
    assert found["accuracy_difference"] == pytest.approx(-1.0)
    assert found["gain_kept"] == pytest.approx(3 / 4)
    assert found["speed_up"] == pytest.approx(1.5)


def test_committed_claims_are_stated_anew_and_rows_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"macro_f1": 1.0, "worst_recall": 1.0, "labels": 400, "labels_to_match": 200.0}
    rows = [row(m, s, 90.0 + s + i, **more) for i, m in enumerate(("random", "frugal", "baseline")) for s in range(3)]
    kept = {"recipe": {"epochs": 1}, "environment": {"machine": "another"}}
    old = [claim("rho", 9.0, "<=", 1.0), claim("seeds", 3, ">=", 3)]
    for module in (savings, common):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    path = write_results("savings-letter", "made by", rows, old, folder=tmp_path, **kept)
    monkeypatch.setattr(savings, "write_results", partial(write_results, folder=tmp_path))
    savings.restate("letter")
    found = json.loads(path.read_text())
    assert (found["rows"], found["command"], found["environment"]) == (rows, "made by", kept["environment"])
    assert values(found["claims"])["rho"] == 0.5
    assert values(found["claims"])["gain_kept"] == pytest.approx(0.5)
    assert values(found["claims"])["seeds"] == 3


def test_labels_to_match_lie_on_the_baselines_curve() -> None:
    points = [(100, 80.0), (200, 90.0), (300, 91.0)]
    assert labels_to_match(points, 85.0) == 150
    assert labels_to_match(points, 90.5) == 250
    assert labels_to_match(points, 70.0) == 100
    assert labels_to_match(points, 99.0) == 300


class Fixed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol whose records are the logits."""

    def arrays(seed: int) -> Arrays:
        g = torch.Generator().manual_seed(seed)
        x, y = torch.randn((200, 4), generator=g), torch.randint(0, 4, (200,), generator=g)
        return Arrays(x, y, torch.randn((300, 4), generator=g), torch.randint(0, 4, (300,), generator=g))

    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol(arrays, PROTOCOLS["letter"].model, labels=40, first=10, step=10))


def test_quality_is_scikit_learns(tiny: None) -> None:
    x, y = PROTOCOLS["tiny"].arrays(3)[2:]
    found = quality(Fixed(), "tiny", 3)  # type: ignore[arg-type]
    said = x.argmax(1)
    assert found["macro_f1"] == pytest.approx(100 * f1_score(y, said, average="macro"), abs=1e-3)
    assert found["worst_recall"] == pytest.approx(100 * recall_score(y, said, average=None).min(), abs=1e-3)
    assert found["accuracy"] == pytest.approx(100 * (said == y).double().mean().item(), abs=1e-3)


@pytest.mark.usefixtures("letters")
def test_every_method_is_a_configuration_with_the_protocols_recipe(tmp_path: Path) -> None:
    scale = Scale.of("letter", quick=False)
    assert list(scale.methods) == [*MAIN, *CURVE, *ABLATION, *PROXY]
    for method in scale.methods:
        cfg = configure("letter", scale, method, 100, tmp_path)
        assert cfg.trainer.max_epochs == savings.recipe("letter")["epochs"]
        assert cfg.model.learning_rate == savings.recipe("letter")["learning_rate"]
        if method in ("baseline", "scoring_only", "warm_start_only", "frugal_baseline_rounds"):
            assert (cfg.round_size.size, cfg.round_size.first) == (200, 200)
        assert ("proxy" in cfg) == (method in PROXY)
        if "proxy" in cfg:
            assert (cfg.proxy.learning_rate, cfg.fit.final) == (cfg.model.learning_rate, "initial")


def test_what_a_preset_says_of_itself_makes_no_other_row(tmp_path: Path) -> None:
    cfg = configure("letter", Scale.of("letter", quick=False), "frugal", 100, tmp_path)
    digest = savings.digest_of(cfg)
    cfg.about = "in other words"
    assert savings.digest_of(cfg) == digest
    cfg.fit.rho = 0.5
    assert savings.digest_of(cfg) != digest


@pytest.mark.usefixtures("letters")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no", "ignore:classes .* have no labelled")
def test_a_finished_row_is_read_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Scale(labels=60, first=20, step=20, seeds=[0], methods={"frugal": MAIN["frugal"]})
    first = measure("letter", small, "frugal", 0, tmp_path / "run")
    assert (first["labels"], first["rounds"]) == (60, 3)
    monkeypatch.setattr(savings, "build", lambda *a: pytest.fail("made again"))
    assert measure("letter", small, "frugal", 0, tmp_path / "run") == first
    other = Scale(labels=50, first=20, step=20, seeds=[0], methods=small.methods)
    with pytest.raises(SystemExit, match="other settings"):
        measure("letter", other, "frugal", 0, tmp_path / "run")


def test_a_row_of_other_settings_is_not_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {("frugal", 100): {"method": "frugal", "settings": "old"}, ("random", 100): {"settings": "new"}}
    monkeypatch.setattr(savings, "committed", lambda name: made)
    assert savings.known("letter", "frugal", 100, tmp_path, "new") is None
    assert savings.known("letter", "random", 100, tmp_path, "new") == {"settings": "new"}
    assert savings.known("letter", "baseline", 100, tmp_path, "new") is None
    (tmp_path / "row.json").write_text('{"settings": "new", "accuracy": 1.0}')
    assert savings.known("letter", "frugal", 100, tmp_path, "new") == {"settings": "new", "accuracy": 1.0}


@pytest.mark.usefixtures("letters")
def test_the_long_tail_falls_fifty_to_one() -> None:
    found = long_tail(7)
    sizes = torch.bincount(found.y, minlength=26).sort(descending=True).values.tolist()
    assert 48 <= sizes[0] / sizes[-1] <= 52
    assert sizes[12] / sizes[25] == pytest.approx(50**0.52, rel=0.15)  # geometric: the middle is near the root
    assert torch.bincount(found.y_test, minlength=26).min() > 100
    assert torch.bincount(long_tail(8).y).tolist() != torch.bincount(found.y).tolist()  # other classes are rare


def test_chance_gets_the_compute_of_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    def arrays(seed: int) -> Arrays:
        return Arrays(torch.randn(200, 16), torch.zeros(200).long(), torch.randn(1, 16), torch.zeros(1).long())

    monkeypatch.setattr("benchmarks.savings.CLUSTERS", 5)
    tiny = Protocol(arrays, PROTOCOLS["letter"].model, labels=40, first=10, step=10)
    monkeypatch.setitem(PROTOCOLS, "tiny", tiny)
    scale = Scale(labels=40, first=10, step=10, seeds=[0], methods={})
    forward = 2 * (16 * 256 + 256 * 256 + 256 * 26)
    clustering = 2 * 5 * 16 * (10 * 200 + 200)
    scored = (200 - 10) + (200 - 20) + (200 - 30)
    assert savings.clusters_as_share("tiny", scale) == pytest.approx(clustering / (forward * scored))
