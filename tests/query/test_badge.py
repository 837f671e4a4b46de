from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from al_lightning.errors import OutputMismatch, PoolExhausted
from al_lightning.query import BADGE, badge, badge_picks, nearest
from al_lightning.scoring.outputs import Outputs
from tests.helpers import learner, net, pool_of


def factors(n, classes=3, width=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, classes)).astype(np.float32), rng.normal(size=(n, width)).astype(np.float32)


def gradients(errors, embedding):
    return np.einsum("ni,nj->nij", errors.astype(np.float64), embedding.astype(np.float64)).reshape(len(errors), -1)


def probabilities_of(points, picks):
    """Exact probability of every sequence of picks, from the gradients written out."""
    first = int((points**2).sum(axis=1).argmax())
    found = {}

    def extend(sequence, probability):
        if len(sequence) == picks:
            found[tuple(sequence)] = probability
            return
        weights = ((points[:, None] - points[sequence]) ** 2).sum(axis=-1).min(axis=1)
        for i in np.flatnonzero(weights > 1e-9):
            extend([*sequence, int(i)], probability * weights[i] / weights.sum())

    extend([first], 1.0)
    return found


@pytest.mark.parametrize("few", [2, 128], ids=lambda few: f"{few} proposals")
def test_sequences_of_picks_have_the_probabilities_of_gradients_written_out(monkeypatch, few):
    monkeypatch.setattr(badge, "_FEW", few)
    monkeypatch.setattr(badge, "_MANY", 2 * few)
    errors, embedding = factors(6)
    errors[3], embedding[3] = errors[2], embedding[2] * 1.1  # near one another: often refused
    expected = probabilities_of(gradients(errors, embedding), 3)
    assert sum(expected.values()) == pytest.approx(1)
    runs = 1200
    drawn = [tuple(badge_picks(errors, embedding, 3, np.random.default_rng(s)).tolist()) for s in range(runs)]
    assert set(drawn) <= set(expected)
    sequences = sorted(expected, key=expected.get, reverse=True)
    count = np.array([drawn.count(s) for s in sequences])
    wanted = runs * np.array([expected[s] for s in sequences])
    often = wanted >= 5
    count = np.append(count[often], count[~often].sum())
    wanted = np.append(wanted[often], wanted[~often].sum())
    assert scipy.stats.chisquare(count, wanted).pvalue > 1e-3


def test_late_picks_have_the_right_distribution(monkeypatch):
    # Tight groups: after one pick from each, nearly every proposal by an old bound is refused and all are compared.
    monkeypatch.setattr(badge, "_FEW", 4)
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(5), 60)
    errors = rng.normal(size=(5, 3))[group] + 0.01 * rng.normal(size=(300, 3))
    embedding = rng.normal(size=(5, 4))[group] + 0.01 * rng.normal(size=(300, 4))
    points = gradients(errors, embedding)
    sums = []
    for seed in range(80):
        picked = badge_picks(errors.astype(np.float32), embedding.astype(np.float32), 12, np.random.default_rng(seed))
        for k in (6, 9, 11):  # where the pick falls in the distribution given the picks before it: uniform
            weights = ((points[:, None] - points[picked[:k]]) ** 2).sum(axis=-1).min(axis=1)
            ends = np.cumsum(weights) / weights.sum()
            sums.append(ends[picked[k]] - weights[picked[k]] / weights.sum() * rng.random())
    assert scipy.stats.kstest(sums, "uniform").pvalue > 1e-3


def test_the_first_pick_has_the_largest_norm_and_ties_are_drawn():
    errors, embedding = factors(50)
    expected = np.linalg.norm(gradients(errors, embedding), axis=1).argmax()
    assert {int(badge_picks(errors, embedding, 1, np.random.default_rng(s))[0]) for s in range(5)} == {expected}
    errors[:], embedding[:] = errors[0], embedding[0]
    assert len({int(badge_picks(errors, embedding, 1, np.random.default_rng(s))[0]) for s in range(30)}) > 10


def test_duplicates_come_after_all_that_differ_and_are_drawn_evenly():
    errors, embedding = factors(5)
    errors, embedding = np.repeat(errors, 20, axis=0), np.repeat(embedding, 20, axis=0)
    counts = np.zeros(100)
    for seed in range(100):
        picked = badge_picks(errors, embedding, 15, np.random.default_rng(seed))
        assert len(set(picked.tolist())) == 15
        assert len(set(picked[:5] // 20)) == 5
        counts[picked[5:]] += 1
    assert counts.reshape(5, 20).sum(axis=1) == pytest.approx(np.full(5, 200), rel=0.3)


def test_gradients_are_those_of_the_last_layer():
    torch.manual_seed(0)
    embedding, layer = torch.randn(6, 4), torch.nn.Linear(4, 3, bias=False)
    logits = layer(embedding)
    payload = BADGE().payload(Outputs(logits, embedding))
    for i in range(6):
        loss = torch.nn.functional.cross_entropy(logits[i : i + 1], logits[i : i + 1].argmax(dim=1))
        (expected,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
        torch.testing.assert_close(torch.outer(payload["errors"][i], payload["embedding"][i]), expected)


def test_binary_has_two_classes():
    payload = BADGE().payload(Outputs(torch.tensor([[2.0], [-1.0]]), torch.ones(2, 3), task="binary"))
    p = torch.sigmoid(torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(payload["errors"], torch.tensor([[1 - p[0], p[0] - 1], [-p[1], p[1]]]))


def test_what_travels_is_factors(make_view):
    payload = BADGE().payload(Outputs(torch.randn(10, 50), torch.randn(10, 256)))
    assert sum(values.numel() for values in payload.values()) == 10 * (50 + 256)


def test_a_model_without_an_embedding_is_told_how_to_give_one(tmp_path):
    with pytest.raises(OutputMismatch, match=r"BADGE\(\) needs the embedding.*Outputs\(logits=..., embedding=...\)"):
        learner(tmp_path, query=BADGE()).fit(net(), datamodule=pool_of())


def test_more_than_there_are_is_refused():
    with pytest.raises(PoolExhausted, match="3 candidates requested, 2 available"):
        badge_picks(*factors(2), 3, np.random.default_rng(0))


def test_distances_of_rank_one_matrices():
    errors, embedding = factors(40)
    points = gradients(errors, embedding)
    a, b = np.array(list(itertools.product(range(40), range(40)))).T
    found = nearest.squared_distances((errors[a], embedding[a]), (errors[b], embedding[b]))
    np.testing.assert_allclose(found, ((points[a] - points[b]) ** 2).sum(axis=1), rtol=1e-4, atol=1e-5)
    assert (found[a == b] == 0).all()
