from __future__ import annotations

import numpy as np
import pytest
import torch

from al_lightning.query import Entropy, Margin
from al_lightning.query.reduction import REDUCTIONS, reduced
from al_lightning.scoring.outputs import Outputs

SCORES = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(0))
MASK = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(1)) < 0.6
BY_HAND = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "top": lambda v: np.sort(v)[::-1][: int(np.ceil(0.1 * len(v)))].mean(),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_parts_that_count_are_reduced_and_no_others(reduction):
    found = reduced(SCORES, MASK, reduction)
    wanted = [BY_HAND[reduction](s[m]) for s, m in zip(SCORES.numpy(), MASK.numpy(), strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_part_that_does_not_count_may_hold_anything(reduction):
    spoilt = torch.where(MASK, SCORES, torch.nan)
    torch.testing.assert_close(reduced(spoilt, MASK, reduction), reduced(SCORES, MASK, reduction))
    assert reduced(spoilt, None, reduction).isnan().all()  # and one that does count is not patched


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_record_of_which_nothing_counts_scores_zero(reduction):
    assert reduced(SCORES, torch.zeros_like(MASK), reduction).tolist() == [0.0] * 5


def test_a_record_classified_as_a_whole_is_not_reduced():
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    for reduction in REDUCTIONS:
        torch.testing.assert_close(
            Entropy(reduction).payload(Outputs(logits))["score"], Entropy().payload(Outputs(logits))["score"]
        )


def test_multilabel_scores_every_label_as_a_question_of_its_own():
    logits = torch.tensor([[0.0, 8.0], [4.0, 4.0]])
    scores = {r: Margin(r).payload(Outputs(logits, task="multilabel"))["score"] for r in ("max", "mean")}
    assert scores["max"][0] == 1.0
    assert scores["max"][0] > scores["max"][1]
    assert scores["mean"][0] == pytest.approx((1 + 2 * (1 - 1 / (1 + np.exp(-8)))) / 2, rel=1e-4)


def test_other_names_are_refused():
    with pytest.raises(ValueError, match=r"Margin\(reduction='median'\): allowed: mean, sum, max, top"):
        Margin(reduction="median")
