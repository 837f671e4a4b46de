"""Scores of several answers: what they are, and that the answers are read one by one."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest
import scipy.stats
import torch

from al_lightning.query import BALD, Variance, VariationRatio, bald_score, variance_score, variation_ratio_score
from al_lightning.query.entropy import entropy_score
from al_lightning.query.margin import margin_score
from al_lightning.query.rows import by_rows
from al_lightning.scoring.outputs import Outputs


def answers(shape=(6, 40, 5), concentration=0.4, seed=0):
    """(passes, ..., C) probabilities."""
    gammas = np.random.default_rng(seed).gamma(concentration, size=shape) + 1e-12
    return torch.tensor(gammas / gammas.sum(axis=-1, keepdims=True), dtype=torch.float32)


SHAPES = [(2, 40, 5), (7, 40, 2), (5, 6, 3, 2), (4, 3, 5, 5, 3)]  # records; labels; pixels


@pytest.mark.parametrize("shape", SHAPES)
def test_variation_ratio_is_the_share_of_votes_against_the_mode(shape):
    p = answers(shape)
    votes = scipy.stats.mode(p.argmax(dim=-1).numpy(), axis=0).count
    np.testing.assert_allclose(variation_ratio_score(p), 1 - votes / len(p), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_bald_is_the_mutual_information_of_class_and_answer(shape):
    p = answers(shape).numpy().astype(np.float64)
    # KL divergence of every answer to the mean, averaged: the same number by another way
    expected = scipy.stats.entropy(p, p.mean(axis=0, keepdims=True), axis=-1).mean(axis=0)
    np.testing.assert_allclose(bald_score(answers(shape)), expected, atol=2e-6)


def test_bald_is_zero_where_the_answers_agree_and_ln_c_where_they_exclude_each_other():
    same = torch.full((20, 9, 3), 1 / 3) + torch.tensor([1e-4, 0, -1e-4])
    assert bald_score(same).min() >= 0
    assert bald_score(same).max() < 1e-6
    assert bald_score(torch.eye(3)[:, None]).tolist() == pytest.approx([np.log(3)])  # zeros add nothing


def test_variance_is_the_sample_variance_also_far_from_zero():
    values = np.random.default_rng(0).normal(loc=[0, 3000], size=(9, 30, 2))
    found = variance_score(torch.tensor(values, dtype=torch.float32))
    np.testing.assert_allclose(found, values.astype(np.float32).astype(np.float64).var(axis=0, ddof=1), rtol=1e-3)
    assert (variance_score(torch.full((5, 4, 1), 1e6)) == 0).all()


@pytest.mark.parametrize(
    ("score", "shape"), [(variation_ratio_score, (8, 3)), (bald_score, (8, 3)), (variance_score, (8, 2))]
)
def test_answers_are_let_go_of_as_they_are_read_and_never_written_to(score, shape):
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def read():
        nonlocal most
        for i in range(30):
            value = answers((*shape,), seed=i)
            before = value.clone()
            alive.add(value)
            most = max(most, len(alive))
            yield value
            assert torch.equal(value, before)
            del value

    assert score(read()).isfinite().all()
    assert most <= 3


@pytest.mark.parametrize("score", [variation_ratio_score, bald_score])
def test_nan_in_one_answer_stays_visible(score):
    p = answers()
    p[3, 7, 0] = torch.nan
    assert score(p).isnan().nonzero().flatten().tolist() == [7]


def test_a_regressions_outputs_are_reduced_and_its_shapes_taken():
    values = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(0))
    spread = values.var(dim=0)
    for reduction, expected in {"mean": spread.mean(1), "sum": spread.sum(1), "max": spread.amax(1)}.items():
        found = Variance(reduction=reduction).payload_of(Outputs(v, task="regression") for v in values)["score"]
        torch.testing.assert_close(found, expected)
    flat = Variance().payload_of(Outputs(v[:, 0], task="regression") for v in values)["score"]
    torch.testing.assert_close(flat, spread[:, 0])


def test_binary_answers_score_like_two_classes():
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    for strategy in (BALD(), VariationRatio()):
        binary = strategy.payload_of(Outputs(v, task="binary") for v in logits)["score"]
        two = strategy.payload_of(Outputs(torch.stack([torch.zeros(9), v], dim=-1)) for v in logits)["score"]
        torch.testing.assert_close(binary, two)


@pytest.mark.parametrize("score", [margin_score, entropy_score])
def test_rows_come_out_the_same_in_any_number(score):
    p = answers((30_001, 7))
    whole = score(p)
    for n in (1, 5, 30_001):
        torch.testing.assert_close(score(p[:n]), whole[:n], rtol=0, atol=1e-6)
    torch.testing.assert_close(score(p[:30_000].reshape(100, 300, 7)), whole[:30_000].reshape(100, 300))


def test_blocks_cover_every_row_once():
    seen = []

    def first(rows):
        seen.append(len(rows))
        return rows[:, 0]

    values = torch.arange(300_000.0).reshape(-1, 2)
    assert torch.equal(by_rows(first, values), values[:, 0])
    assert sum(seen) == 150_000
    assert len(seen) > 1


@pytest.mark.parametrize("classes", [2, 3, 50])
def test_margin_with_ties_and_zero_probabilities(classes):
    rows = [list(p) + [0.0] * (classes - 2) for p in [(1, 0), (0, 1), (0.5, 0.5)]]
    p = torch.tensor([row for order in itertools.permutations(range(3)) for row in [rows[i] for i in order]])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = margin_score(p.to(dtype))
        assert found.tolist() == [float(row.max() == 0.5) for row in p]
        assert found.dtype == dtype
