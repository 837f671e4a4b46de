from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from al_lightning import Budget, PoolDataModule
from al_lightning.candidates import RotatingSubset
from al_lightning.round_size import Fixed
from tests.helpers import blobs, learner, net, quiet


def scored(view, ids, scores, round):
    view.scores[ids], view.score_rounds[ids] = scores, round


def propose(selector, view, size=1, seed=0):
    return selector.propose(view=view, size=size, rng=np.random.default_rng(seed), state={})[0]


def test_every_record_has_its_turn_before_any_has_a_second(make_view):
    view, seen = make_view(100), []
    for round in range(4):
        ids = propose(RotatingSubset(0.25, best=0), view, seed=round)
        scored(view, ids, 0.5, round)
        seen += ids.tolist()
    assert sorted(seen) == list(range(100))


def test_the_best_are_looked_at_again_beside_those_whose_turn_it_is(make_view):
    view = make_view(40)
    scored(view, np.arange(20), np.arange(20) / 20, 1)
    ids = propose(RotatingSubset(0.2, best=0.5), view)
    assert ids[:4].tolist() == [16, 17, 18, 19]
    assert (ids[4:] >= 20).all()


def test_longest_unscored_first(make_view):
    view = make_view(30)
    for round, start in ((1, 10), (2, 0), (3, 20)):
        scored(view, np.arange(start, start + 10), 0.0, round)
    assert propose(RotatingSubset(1 / 3, best=0), view).tolist() == list(range(10, 20))


def test_turns_are_drawn(make_view):
    view = make_view(50)
    assert propose(RotatingSubset(0.2), view, seed=1).tolist() != propose(RotatingSubset(0.2), view, seed=2).tolist()


@pytest.mark.parametrize("best", [-0.1, 1.0, 2.0])
def test_nothing_but_the_best_is_refused(best):
    with pytest.raises(ValueError, match=rf"RotatingSubset\(best={best}\).*0 <= best < 1"):
        RotatingSubset(0.2, best=best)


def test_of_a_large_pool_no_more_is_inferred_than_it_may_cost(make_view):
    """Scoring costs a fiftieth of what a label's training does; a fifth of that training is ten records a label."""
    view = replace(make_view(1000), score_cost=0.02)
    assert len(propose(RotatingSubset(0.5, spend=0.2), view, size=7)) == 70
    assert len(propose(RotatingSubset(0.05, spend=0.2), view, size=7)) == 50  # the share is less
    assert len(propose(RotatingSubset(0.5, spend=0.001), view, size=7)) == 7  # a query must be possible
    assert len(propose(RotatingSubset(0.5), view, size=7)) == 500
    assert len(propose(RotatingSubset(0.5, spend=0.2), make_view(1000), size=7)) == 500  # no price is known


@pytest.mark.parametrize("spend", [0, -1.0])
def test_nothing_cannot_be_spent(spend):
    with pytest.raises(ValueError, match=rf"RotatingSubset\(spend={spend}\).*above 0"):
        RotatingSubset(0.2, spend=spend)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_scoring_costs_what_was_to_be_spent(tmp_path):
    """By the bill of a real run: a tenth of one training on the labels that were bought by scores."""
    pool = PoolDataModule(blobs(400), task="multiclass", batch_size=6)
    parts = {"candidates": RotatingSubset(1.0, spend=0.1), "round_size": Fixed(10), "stop": [Budget(labels=40)]}
    bill = learner(tmp_path, quiet(max_epochs=20), **parts).fit(net(), datamodule=pool).bill
    assert bill.lines["score"].flops / bill.reference.flops == pytest.approx(0.1 * 30 / 40, rel=0.2)


def test_the_share_is_a_fraction():
    with pytest.raises(ValueError, match=r"RotatingSubset\(share=0\).*0 < share <= 1"):
        RotatingSubset(0)
