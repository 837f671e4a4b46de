from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from al_lightning.candidates import RandomSubset, RotatingSubset
from al_lightning.features.source import RawInputs
from al_lightning.query import DistanceWeighted, KCenterGreedy, Margin, Random, RandomControl
from al_lightning.round_size import Listed
from tests.helpers import learner, net, pool_of

SCORES = np.linspace(1, 0, 40)


def pick(view, ids, strategy, size, seed):
    rng = np.random.default_rng(seed)
    return strategy.pick(view=view, ids=ids, arrays={"score": SCORES[ids]}, size=size, rng=rng)


def test_control_records_are_a_uniform_sample_of_the_pool_and_the_rest_is_the_strategys(make_view):
    view, strategy = make_view(40, labelled=[0, 39]), RandomControl(Margin(), share=0.25)
    ids = np.array([12, 5, 30, 8, 2, 20, 3, 33, 1, 6])  # the candidates, in no order
    counts = np.zeros(40)
    for seed in range(2000):
        query = pick(view, ids, strategy, 8, seed)
        chosen, control = query[:6], query[6:]
        counts[control] += 1
        left = sorted(set(ids.tolist()) - set(control.tolist()))
        assert chosen.tolist() == left[:6]  # the best are the lowest ids
    assert scipy.stats.chisquare(counts[1:39]).pvalue > 1e-3
    assert counts[[0, 39]].sum() == 0


@pytest.mark.parametrize(
    ("share", "size", "controls"), [(0.1, 100, 10), (0.1, 4, 0), (0.1, 5, 1), (0.29, 100, 29), (0.5, 1, 1)]
)
def test_the_share_is_rounded_to_whole_records(make_view, share, size, controls):
    strategy = RandomControl(Random(), share=share)
    assert strategy.controls(size) == controls
    view = make_view(200)
    query = strategy.pick(view=view, ids=view.unlabelled[:150], size=size, rng=np.random.default_rng(0))
    assert len(set(query.tolist())) == size


def recorded(folder, round):
    with sqlite3.connect(folder / "run.sqlite") as db:
        rows = db.execute("SELECT id, score, score_round FROM query WHERE round = ? ORDER BY position", (round,))
        return list(rows)


@pytest.mark.parametrize("candidates", [None, RandomSubset(0.4), RotatingSubset(0.5)], ids=repr)
def test_a_run_records_control_records_without_a_score_and_they_are_not_stale(tmp_path, candidates):
    strategy = RandomControl(Margin(), share=0.5)
    sizes = Listed([12, 6, 6])
    result = learner(tmp_path, query=strategy, candidates=candidates, round_size=sizes).fit(net(), pool_of())
    assert len(result.labelled) == 24
    for round in (2, 3):
        rows = recorded(tmp_path, round)
        assert [score is None for _, score, _ in rows] == [False] * 3 + [True] * 3
        assert [where == -1 for *_, where in rows] == [False] * 3 + [True] * 3
    assert result.history[1].stale == 0  # all were scored in the round they were picked in


def test_it_goes_around_a_strategy_without_a_score_also_at_first(tmp_path):
    strategy = RandomControl(KCenterGreedy(), share=0.5)
    pool = pool_of(features=RawInputs())
    result = learner(tmp_path, query=strategy, initial=strategy).fit(net(), pool)
    assert len(set(result.labelled.tolist())) == 24
    assert result.bill.records_inferred == 0


def test_a_strategy_without_the_permission_is_still_held_to_its_candidates(make_view):
    class Strays(Random):
        def _pick(self, *, view, ids, arrays, size, rng):
            return view.unlabelled[:size]

    view = make_view(40)
    with pytest.raises(Exception, match="Strays returned 3 ids"):
        Strays().pick(view=view, ids=np.arange(30, 40), size=3, rng=np.random.default_rng(0))


def test_settings_that_make_no_sense_are_named():
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=f"share={share}"):
            RandomControl(Margin(), share=share)
    with pytest.raises(ValueError, match="one control share is enough"):
        RandomControl(RandomControl(Margin()))
    with pytest.raises(ValueError, match=r"RandomControl\(DistanceWeighted\(\.\.\.\)\)"):
        DistanceWeighted(RandomControl(Margin()))


def test_it_needs_what_the_inner_one_needs():
    for inner in (Margin("max"), KCenterGreedy(), Random()):
        strategy = RandomControl(inner)
        assert (strategy.requires, strategy.columns, strategy.tasks) == (inner.requires, inner.columns, inner.tasks)
        assert replace(strategy, share=0.2).requires == inner.requires
