from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from al_lightning.query import Entropy, LeastConfidence, Margin, entropy_score, least_confidence_score, margin_score
from al_lightning.scoring.outputs import Outputs


@pytest.fixture
def probabilities() -> torch.Tensor:
    rows = np.random.default_rng(0).dirichlet(np.full(5, 0.3), size=200)
    rows[:3] = [[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0.2] * 5]
    return torch.tensor(rows, dtype=torch.float32)


def test_least_confidence_is_the_mass_of_all_other_classes(probabilities):
    expected = [sum(sorted(row)[:-1]) for row in probabilities.double().tolist()]
    assert least_confidence_score(probabilities).numpy() == pytest.approx(expected, abs=1e-6)


def test_margin_is_what_sorting_says(probabilities):
    best = [sorted(row, reverse=True)[:2] for row in probabilities.tolist()]
    assert margin_score(probabilities).numpy() == pytest.approx([1 - (p1 - p2) for p1, p2 in best], abs=1e-6)


def test_entropy_is_scipys_in_nats(probabilities):
    expected = scipy.stats.entropy(probabilities.numpy(), axis=1)
    assert entropy_score(probabilities).numpy() == pytest.approx(expected, abs=1e-5)


def test_certain_tied_and_uniform_rows(probabilities):
    assert least_confidence_score(probabilities)[:3].tolist() == pytest.approx([0, 0.5, 0.8])
    assert margin_score(probabilities)[:3].tolist() == pytest.approx([0, 1, 1])
    assert entropy_score(probabilities)[:3].tolist() == pytest.approx([0, np.log(2), np.log(5)])


@pytest.mark.parametrize("strategy", [LeastConfidence(), Margin(), Entropy()])
def test_binary_logits_score_like_two_classes(strategy):
    logits = torch.linspace(-4, 4, 9)
    two = torch.stack([torch.zeros(9), logits], dim=-1)
    binary = strategy.payload(Outputs(logits, task="binary"))["score"]
    torch.testing.assert_close(binary, strategy.payload(Outputs(two))["score"])
    assert binary.argmax() == 4  # the record at probability one half


def test_infinite_logits_stay_visible_as_nan():
    logits = torch.tensor([[float("inf"), 0.0], [1.0, 0.0]])
    for strategy in (LeastConfidence(), Margin(), Entropy()):
        assert strategy.payload(Outputs(logits))["score"].isnan().tolist() == [True, False]
