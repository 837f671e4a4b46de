"""What is scored on a cluster is what one process scores: same numbers, same queries, same bill."""

from __future__ import annotations

import numpy as np
import pytest

from al_lightning.query import BADGE, Margin
from al_lightning.scoring.question import Question
from tests.contract.conftest import STRATEGIES
from tests.helpers import learner, net, pool_of
from tests.ray.problems import Regressor, ask, embedding, in_one_process

pytestmark = pytest.mark.xdist_group("ray")


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s.needs_inference], ids=repr)
def test_every_strategy_picks_the_same(scorer, strategy, make_view):
    task, model = (
        ("multiclass", embedding()) if "multiclass" in strategy.tasks else ("regression", embedding(Regressor))
    )
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    pool = pool_of(task=task, features=features, label_costs=np.linspace(1, 2, 60))
    ids = np.random.default_rng(1).permutation(60)[:51]  # the last batch is not full
    here = in_one_process(pool, Question.of(strategy, seed=3), model=model, ids=ids)
    there = ask(scorer(), pool, Question.of(strategy, seed=3), model=model, ids=ids)
    assert list(there.arrays) == list(here.arrays)
    for name, values in here.arrays.items():
        np.testing.assert_array_equal(there.arrays[name], values)
    assert np.array_equal(there.ids, ids)
    assert (there.width, there.records) == (here.width, here.records)
    # Each worker asks once more to see whether the model is an ensemble, and that is on the bill.
    assert there.flops == here.flops or ("samples" in strategy.requires and there.flops > here.flops)
    view = make_view(60, features=features, label_costs=pool.label_costs)
    picks = [
        strategy.pick(view=view, ids=ids, arrays=found.arrays, size=9, rng=np.random.default_rng(0))
        for found in (here, there)
    ]
    assert picks[0].tolist() == picks[1].tolist()


def test_a_run_labels_the_same_records_and_bills_the_same_flops(scorer, tmp_path):
    here = learner(tmp_path / "here").fit(net(), datamodule=pool_of())
    there = learner(tmp_path / "there", scoring=scorer()).fit(net(), datamodule=pool_of())
    assert there.labelled.tolist() == here.labelled.tolist()
    assert there.bill.flops == here.bill.flops
    assert there.bill.lines["score"].records == here.bill.lines["score"].records
    assert [r.candidates for r in there.history] == [r.candidates for r in here.history]
    # Waiting for the workers is not billed a second time as the choice itself.
    assert there.bill.lines["select"].seconds < 1.0


def test_a_run_that_began_in_one_process_goes_on_there(scorer, tmp_path):
    def stop(record, model):
        if record.round == 2:
            raise KeyError("stopped")

    whole = learner(tmp_path / "whole").fit(net(), datamodule=pool_of())
    with pytest.raises(KeyError, match="stopped"):
        learner(tmp_path / "run", on_round=stop).fit(net(), datamodule=pool_of())
    result = learner(tmp_path / "run", scoring=scorer()).fit(net(), datamodule=pool_of())
    assert result.labelled.tolist() == whole.labelled.tolist()


def test_only_scores_and_small_vectors_come_back(scorer):
    pool = pool_of()
    assert ask(scorer(), pool, Question.of(Margin(), seed=0)).arrays["score"].shape == (60,)
    found = ask(scorer(), pool, Question.of(BADGE(), seed=0), model=embedding()).arrays
    assert {name: rows.shape for name, rows in found.items()} == {"errors": (60, 3), "embedding": (60, 8)}
