from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from al_lightning.errors import NegativeScores
from al_lightning.query import BALD, Margin, Random, RandomControl, Stochastic
from al_lightning.query.base import top
from al_lightning.query.stochastic import KINDS, perturbed_scores

SCORES = np.array([0.9, 0.4, 0.1, 0.65, 0.02])
DRAWS = 4000


def weights(kind, beta):
    """Chances of the first pick, written out."""
    if kind == "power":
        w = SCORES**beta
    elif kind == "softmax":
        w = np.exp(beta * SCORES)
    else:
        w = scipy.stats.rankdata(-SCORES) ** -beta
    return w / w.sum()


def one_after_the_other(p, order):
    """Chance of a sequence drawn without replacement."""
    chance, left = 1.0, 1.0
    for i in order:
        chance *= p[i] / left
        left -= p[i]
    return chance


def draw(scores, kind, beta, size, draws=DRAWS):
    """Queries as a strategy makes them, its checks left out: there are thousands."""
    rng = np.random.default_rng(0)
    return [tuple(top(perturbed_scores(scores, kind, beta, rng), size, rng).tolist()) for _ in range(draws)]


def pick(view, strategy, scores, size, seed=0):
    rng = np.random.default_rng(seed)
    return strategy.pick(view=view, ids=view.unlabelled, arrays={"score": scores}, size=size, rng=rng).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_the_first_pick_has_the_chances_of_the_paper(kind, beta):
    drawn = draw(SCORES, kind, beta, 1)
    counts = np.bincount([q[0] for q in drawn], minlength=5)
    assert scipy.stats.chisquare(counts, DRAWS * weights(kind, beta)).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_is_drawn_one_after_the_other_without_replacement(kind):
    drawn = Counter(draw(SCORES, kind, 1.0, 3))
    p = weights(kind, 1.0)
    orders = list(itertools.permutations(range(5), 3))
    expected = np.array([one_after_the_other(p, order) for order in orders])
    assert expected.sum() == pytest.approx(1)
    often = expected * DRAWS >= 5  # the rest together, as the test wants it
    observed = np.array([drawn[order] for order in orders])
    observed = np.append(observed[often], observed[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    keep = expected > 0
    assert scipy.stats.chisquare(observed[keep], DRAWS * expected[keep]).pvalue > 1e-3


def test_the_strategy_draws_so(make_view):
    view, scores = make_view(8, labelled=[0, 3, 5]), SCORES.astype(np.float32)
    for kind in KINDS:
        for seed in range(5):
            order = top(perturbed_scores(scores, kind, 2.0, rng := np.random.default_rng(seed)), 3, rng)
            strategy = Stochastic(Margin(), kind=kind, beta=2.0)
            assert pick(view, strategy, scores, 3, seed) == view.unlabelled[order].tolist()


def test_scores_of_zero_come_last_in_random_order():
    scores = np.array([0.0, 0.3, 0.0, 1e-30, 0.0], dtype=np.float32)
    drawn = draw(scores, "power", 1.0, 5, draws=600)
    assert all(set(q[:2]) == {1, 3} for q in drawn)
    counts = np.array(list(Counter(q[2:] for q in drawn).values()))
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_ranks_of_ties_are_dealt_out_at_random():
    drawn = draw(np.ones(4), "soft_rank", 5.0, 1)
    assert scipy.stats.chisquare(np.bincount([q[0] for q in drawn], minlength=4)).pvalue > 1e-3


def test_a_large_beta_takes_the_highest():
    scores = np.random.default_rng(0).permutation(np.linspace(0.1, 1, 40))
    best = tuple(np.argsort(-scores)[:5].tolist())
    for kind in KINDS:
        assert draw(scores, kind, 1e6, 5, draws=3) == [best] * 3


def test_negative_scores_have_no_power_and_are_named(make_view):
    view, scores = make_view(12, labelled=[0, 1]), np.linspace(-0.15, 1, 10)
    with pytest.raises(NegativeScores, match=r"Stochastic\(kind=\"power\"\).*ids 2, 3") as error:
        pick(view, Stochastic(Margin()), scores, 2)
    assert error.value.ids == (2, 3)
    for kind in ("softmax", "soft_rank"):
        assert len(pick(view, Stochastic(Margin(), kind=kind), scores, 2)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gibbs"}, "kind='gibbs'.*power, softmax, soft_rank"),
        ({"beta": 0.0}, r"beta=0\.0"),
        ({"beta": np.inf}, "beta=inf"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Stochastic(Margin(), **settings)


def test_what_has_no_score_or_is_drawn_already_cannot_be_drawn_by_score():
    with pytest.raises(ValueError, match=r"Random.*gives no score"):
        Stochastic(Random())
    with pytest.raises(ValueError, match=r"put RandomControl outside: RandomControl\(Stochastic"):
        Stochastic(RandomControl(Margin()))


def test_it_samples_as_often_as_what_is_inside():
    assert Stochastic(BALD(passes=7)).passes == 7
    assert Stochastic(BALD()).requires == BALD().requires
