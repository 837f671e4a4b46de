from __future__ import annotations

import json

import numpy as np
import pytest
from torch.utils.data import TensorDataset

from al_lightning import Budget, Prices
from al_lightning.errors import ActiveLearningError, NegativeScores, PoolError
from al_lightning.oracles import FunctionOracle
from al_lightning.oracles.oracle import SKIP
from al_lightning.query import Entropy, Margin, PerCost, Stochastic
from al_lightning.round_size import Fixed, Growing, Listed
from tests.helpers import blobs, learner, net, pool_of

COSTS = np.random.default_rng(0).uniform(0.5, 20, size=60)


def test_the_highest_score_for_the_money_is_picked(make_view):
    view = make_view(60, labelled=range(10), label_costs=COSTS)
    ids = np.random.default_rng(1).permutation(view.unlabelled)[:30]
    scores = np.random.default_rng(2).random(30).astype(np.float32)
    query = PerCost(Margin()).pick(view=view, ids=ids, arrays={"score": scores}, size=10, rng=np.random.default_rng(0))
    ratio = {int(i): float(s) / COSTS[i] for i, s in zip(ids, scores, strict=True)}
    assert query.tolist() == sorted(ratio, key=lambda i: -ratio[i])[:10]


def test_without_costs_it_says_how_to_give_them(make_view):
    view = make_view(6)
    with pytest.raises(ActiveLearningError, match=r"PoolDataModule\(label_costs=\.\.\.\)"):
        PerCost(Margin()).pick(
            view=view, ids=np.arange(6), arrays={"score": np.ones(6)}, size=1, rng=np.random.default_rng(0)
        )


def test_scores_below_zero_have_no_price_and_are_named(make_view):
    view = make_view(6, label_costs=np.ones(6))
    scores = np.array([1.0, -0.5, 0, 2, -1, 0])
    with pytest.raises(NegativeScores, match=r"PerCost.*ids 1, 4"):
        PerCost(Margin()).pick(
            view=view, ids=np.arange(6), arrays={"score": scores}, size=1, rng=np.random.default_rng(0)
        )


def test_wrappers_stand_around_each_other(make_view):
    view, scores = make_view(3, label_costs=[1, 1000, 1000]), np.array([0.2, 0.9, 0.9])
    strategy = Stochastic(PerCost(Margin()), kind="power", beta=50.0)
    query = strategy.pick(view=view, ids=np.arange(3), arrays={"score": scores}, size=1, rng=np.random.default_rng(0))
    assert query.tolist() == [0]  # the inner wrapper counts


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (COSTS[:-1], "label_costs has 59 records, the dataset has 60"),
        (np.where(np.arange(60) == 7, 0.0, COSTS), r"label_costs holds 0 for id 7 \(1 in all\).*above 0"),
        (np.where(np.arange(60) > 57, np.nan, COSTS), r"nan for id 58, nan for id 59 \(2 in all\)"),
        (np.where(np.arange(60) == 2, -1.5, COSTS), r"-1\.5 for id 2"),
        (np.where(np.arange(60) == 2, np.inf, COSTS), r"inf for id 2"),
        (COSTS[:, None], r"shape \(60, 1\)"),
        (3.0, r"shape \(\)"),
    ],
    ids=["short", "zero", "nan", "negative", "inf", "two dimensions", "a number"],
)
def test_costs_that_are_no_prices_are_named(costs, message):
    with pytest.raises(PoolError, match=message):
        pool_of(label_costs=costs)


def test_the_bill_prices_every_label_by_its_own_cost_and_counts_labels_as_labels(tmp_path):
    pool = pool_of(label_costs=COSTS.tolist())
    result = learner(tmp_path, query=PerCost(Entropy()), prices=Prices(label=2.0, hour=0)).fit(net(), pool)
    labelled = result.labelled
    assert len(labelled) == 24
    assert result.bill.labels == 24 + 9
    expected = 2 * (COSTS[labelled].sum() + 9)  # validation labels at the price of a label
    assert result.bill.label_money == pytest.approx(expected)
    assert result.history[-1].cost["money"] == pytest.approx(expected)
    assert json.loads(json.dumps(result.bill.to_json()))["label_units"] == pytest.approx(expected / 2)
    assert f"33 labels at their own costs ({expected / 2:.1f} in all) {expected:.2f}" in str(result.bill)
    assert COSTS[labelled[12:]].mean() < COSTS[labelled[:12]].mean()  # the first were drawn at random


def test_refused_records_cost_nothing(tmp_path):
    pool = pool_of(label_costs=COSTS)
    oracle = FunctionOracle(lambda i: SKIP if i % 2 else i // 2 % 3)
    prices, sizes = Prices(label=1, hour=0), Listed([24, 6])
    query = PerCost(Margin())
    result = learner(tmp_path, query=query, oracle=oracle, prices=prices, round_size=sizes).fit(net(), pool)
    assert (result.labelled % 2 == 0).all()
    assert result.bill.label_money == pytest.approx(COSTS[result.labelled].sum() + 9)


def test_a_budget_of_money_ends_the_run_when_the_costs_add_up_to_it(tmp_path):
    result = learner(
        tmp_path, round_size=Fixed(10), stop=[Budget(money=409.0)], prices=Prices(label=1, hour=0)
    ).fit(net(), pool_of(label_costs=COSTS + 10))  # fmt: skip
    spent = [record.cost["money"] for record in result.history]
    assert result.reason.kind == "budget"
    assert spent[-1] >= 409 > spent[-2]
    assert len(result.labelled) < 40  # at one price for all it would have been the whole pool


def test_a_run_goes_on_with_a_longer_dataset_and_costs_of_as_many(tmp_path):
    x, y = blobs(80).tensors
    x[:60], y[:60] = blobs(60).tensors

    def run(n, stop):
        pool = pool_of(TensorDataset(x[:n], y[:n]), label_costs=np.resize(COSTS, n))
        return learner(
            tmp_path, query=PerCost(Margin()), round_size=Growing(12, 4.0), stop=[Budget(labels=stop)],
            prices=Prices(label=1, hour=0),
        ).fit(net(), pool)  # fmt: skip

    first = run(60, 12)
    longer = run(80, 78)
    assert longer.labelled[:12].tolist() == first.labelled.tolist()
    assert longer.labelled.max() >= 60
    assert longer.bill.label_money == pytest.approx(np.resize(COSTS, 80)[longer.labelled].sum() + 9)
    with pytest.raises(PoolError, match="label_costs has 60 records, the dataset has 80"):
        pool_of(TensorDataset(x, y), label_costs=COSTS)


def test_costs_are_not_written_into_the_runs_configuration(tmp_path):
    learner(tmp_path, query=PerCost(Margin())).fit(net(), pool_of(label_costs=COSTS))
    assert str(COSTS[3])[:8].encode() not in (tmp_path / "run.sqlite").read_bytes()


def test_a_hand_written_loop_sees_them_too():
    pool = pool_of(label_costs=COSTS)
    seen = []

    def sizes(history):
        seen.append((history.labelled, history.bill.label_money))
        return 4

    for round in pool.rounds(sizes=sizes):
        pool.label(pool.unlabelled[:4], {int(i): 0 for i in pool.unlabelled[:4]})
        if round.number == 3:
            break
    for labelled, money in seen:
        assert money == pytest.approx(COSTS[pool.labelled[:labelled]].sum() * 0.036)
