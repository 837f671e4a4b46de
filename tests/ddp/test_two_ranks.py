"""A run on two processes: one decision, one writer, one bill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.ddp.two_ranks import SCORED
from tests.helpers import blobs, net, start_program

pytestmark = [pytest.mark.ddp, pytest.mark.xdist_group("two ranks")]  # one run for all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    done = start_program(Path(__file__).with_name("two_ranks.py"), folder)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_both_ranks_end_with_the_same_pool_model_and_bill(ranks: list[dict[str, Any]]) -> None:
    a, b = ranks
    assert a["world"] == 2
    assert len(set(a["whole"]["labelled"])) == 24
    for key in ("labelled", "labels", "weight", "agreement", "trained", "inferred", "validated", "rho", "reason"):
        assert a["whole"][key] == b["whole"][key], key
    assert a["whole"]["labels"] == {str(i): i % 3 for i in a["whole"]["labelled"]}


def test_the_bill_counts_the_work_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    whole = ranks[0]["whole"]
    assert whole["trained"] == 2 * (12 + 18 + 24)
    # Two scoring passes over what is unlabelled and not in the stop set of 9, which is predicted after each of 3 fits.
    assert whole["inferred"] == (60 - 9 - 12) + (60 - 9 - 18) + 3 * 9
    assert whole["validated"] >= 3 * 2 * 9


def test_a_proxy_selects_for_both_ranks(ranks: list[dict[str, Any]]) -> None:
    a, b = (rank["proxy"] for rank in ranks)
    assert (a["labelled"], a["weight"], a["rho"]) == (b["labelled"], b["weight"], b["rho"])
    assert a["trained"] == 2 * (12 + 18) + 12 + 2 * 24  # the proxy's rounds, the trial, the last fit


def test_only_rank_0_writes_the_run_folder(ranks: list[dict[str, Any]], folder: Path) -> None:
    assert any("run" in path or "whole" in path for path in ranks[0]["writes"])
    assert ranks[1]["writes"] == []
    assert (folder / "whole" / "run.sqlite").exists()


@pytest.mark.parametrize("name", SCORED)
def test_scores_are_those_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    model, ids = net(), SCORED[name]
    model.load_state_dict(_weights(ranks))
    with torch.no_grad():
        expected = model(blobs().tensors[0][ids]).numpy()
    for rank in ranks:
        np.testing.assert_allclose(np.array(rank["scores"][name]), expected, rtol=1e-5, atol=1e-6)


def _weights(ranks: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    folder = Path(next(path for path in ranks[0]["writes"] if path.endswith("whole")))
    path = sorted(folder.rglob("weights.pt"))[-1]
    return dict(torch.load(path, weights_only=True))


def test_a_run_that_was_stopped_goes_on_to_the_same_ids(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["stopped"]
        assert rank["resumed"]["labelled"] == rank["whole"]["labelled"]
        assert rank["resumed"]["weight"] == rank["whole"]["weight"]
        assert rank["resumed"]["trained"] == rank["whole"]["trained"]


def test_epochs_over_a_part_are_dealt_out_to_both(ranks: list[dict[str, Any]]) -> None:
    """Four epochs over 12 labels, two over 14 of 18, two over 19 of 24, which Lightning makes even."""
    a, b = ranks
    for key in ("labelled", "weight", "trained", "rho"):
        assert a["parts"][key] == b["parts"][key], key
    assert a["parts"]["trained"] == 4 * 12 + 2 * (14 + 20)


def test_both_train_and_score_from_activations_that_one_has_written(ranks: list[dict[str, Any]]) -> None:
    a, b = ranks
    assert a["cached"] == b["cached"]
    assert a["cached"]["embedded"] == 60 + 8  # each once, and eight to try it out
    for key in ("labelled", "agreement", "trained", "validated"):
        assert a["cached"][key] == a["frozen"][key], key
    np.testing.assert_allclose(a["cached"]["head"], a["frozen"]["head"], rtol=1e-4)


def test_stopping_rules_decide_alike_on_both(ranks: list[dict[str, Any]]) -> None:
    a, b = (rank["rules"] for rank in ranks)
    assert a == b
    assert a["reason"] in ("cost", "budget")
    assert len(a["coverage"]) >= 2
    assert None not in a["coverage"]


def test_a_stall_on_one_rank_aborts_on_both(ranks: list[dict[str, Any]]) -> None:
    a, b = ranks
    assert a["stall"] == b["stall"]
    # Two attempts of two epochs (the first value is the reference, one more is the patience) on 12 labels.
    assert a["stall"] == {"reason": "gave_up", "fits": 2, "aborted": 2 * 2 * 12}


def test_both_ranks_take_the_same_rate_after_one_has_diverged(ranks: list[dict[str, Any]]) -> None:
    a, b = ranks
    assert a["control"] == b["control"]
    assert a["control"]["attempts"] == [2, 1, 1]
    assert a["control"]["rates"][0] == 0.3
    assert min(a["control"]["rates"]) < 0.002  # those that were tried
    assert a["control"]["records"] == 9 * 12 * 12  # eight rates, and the control itself, on 12 labels


def test_bytes_that_both_read_are_billed_on_both(ranks: list[dict[str, Any]]) -> None:
    found = [rank["shards"] for rank in ranks]
    assert found[0]["labelled"] == found[1]["labelled"]
    assert found[0]["billed"] == found[1]["billed"] == found[0]["read here"] + found[1]["read here"]
    assert min(rank["read here"] for rank in found) > 0


def test_an_error_on_the_writing_rank_is_raised_on_both(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["errors"]["oracle"] == "ConnectionError: the labelling server is down"
        assert rank["errors"]["mismatch"].startswith("RunMismatch: ")
        assert "seed: the folder has 0, this run has 5" in rank["errors"]["mismatch"]


def test_ranks_that_read_different_datasets_are_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["errors"]["data"].startswith("PoolChanged: the processes of this job read different datasets")
