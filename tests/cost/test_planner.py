"""Plans against arithmetic by hand, against brute force, and against a run."""

from __future__ import annotations

import doctest
import itertools
import json
import re
from pathlib import Path

import pytest

import al_lightning.planning.planner as planner_module
from al_lightning import Budget, Prices, WarmStart
from al_lightning.candidates import EveryK, RandomSubset, RotatingSubset, WholePool
from al_lightning.contrib import Replay
from al_lightning.errors import ActiveLearningError
from al_lightning.planning.architectures import ARCHITECTURES, architecture
from al_lightning.planning.efficiency import Efficiency, Observation, even, growing
from al_lightning.planning.planner import Way, label_everything, plan
from al_lightning.planning.project import BadProject, Project
from al_lightning.planning.schedule import LEAST_FIRST, best_schedule, schedule, trade_off, whole_sizes
from al_lightning.planning.verdict import EVERYTHING, RANDOM, THIS, levers, verdict
from al_lightning.steps.rehearse import rehearse
from tests.helpers import CLASSES, WIDTH, learner, net, pool_of, quiet

PROJECT = Project(pool=10_000, labels=1_000, epochs=5, forward=1e6)
ROOT = Path(__file__).parents[2]


def test_the_articles_numbers():
    found = doctest.testmod(planner_module)
    assert found.attempted > 5
    assert found.failed == 0


def test_the_page_of_the_bill_runs():
    code = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "bill.md").read_text(), re.DOTALL))
    exec(code, {})


def test_a_bill_by_hand():
    project = Project(
        pool=1_000,
        labels=300,
        epochs=2,
        forward=1e6,
        train=4e6,
        forward_seconds=0.5,
        train_seconds=2.0,
        passes=3,
        val_labels=50,
        prices=Prices(label=2.0, hour=36.0),
        inference_discount=0.5,
        annotators=2,
        control=0.5,
        round_money=7.0,
        round_hours=24.0,
        record_gigabytes=0.1,
        storage=0.02,
        egress=0.09,
    )
    made = plan(project, Way(sizes=[100, 200], candidates=RandomSubset(0.5)))
    first, second = made.rounds
    assert (first.inferred, first.trained, second.inferred, second.trained) == (0, 200, 450, 600)
    assert second.flops == 450 * 3 * 1e6 + 600 * 4e6
    assert second.hours == pytest.approx((450 * 3 * 0.5 + 600 * 2.0) / 3600)
    assert second.compute_money == pytest.approx((450 * 3 * 0.25 + 600 * 2.0) / 3600 * 36)
    assert second.label_money == 200 * 2.5 * 2.0
    assert second.other_money == pytest.approx(7 + (450 + 200) * 0.1 * 0.09)
    assert made.label_money == (300 * 2.5 + 50) * 2.0
    assert made.bill.label_money == made.label_money
    assert made.elapsed_hours == pytest.approx(made.hours + 48)
    assert made.storage_money == pytest.approx(1_000 * 0.1 * 0.02 * made.elapsed_hours / 730)
    assert made.money == pytest.approx(made.label_money + made.compute_money + made.other_money)
    assert made.bill.rho == pytest.approx(made.bill.flops / (300 * 2 * 4e6))
    assert json.loads(json.dumps(made.to_json()))["money"] == made.money


def test_a_whole_run_costs_what_was_planned(tmp_path):
    trainer, pool = quiet(max_epochs=4), pool_of()
    cost = rehearse(trainer, net(), pool)
    assert cost.forward == 2 * (WIDTH * 8 + 8 * CLASSES)
    assert len(pool.labelled) == 0
    assert (cost.validated_per_epoch, cost.validated_per_fit) == (9, 9)  # every epoch, and the sanity check
    project = Project(pool=pool.size, labels=24, epochs=4, val_labels=pool.val_labels, **vars(cost))
    for fit, candidates in (
        (WarmStart("reset"), WholePool()),
        (WarmStart("keep", first_epochs=2, epochs=1, final="initial"), RotatingSubset(0.5)),
        (Replay(replay=0.5), EveryK(WholePool(), 2)),
        (
            WarmStart("keep", first_epochs=0.5, epochs=0.3, final="previous", final_epochs=0.25, rho=2.5),
            RandomSubset(0.3),
        ),
    ):
        folder = tmp_path / f"{fit.mode}-{fit.final}-{type(candidates).__name__}"
        settings = {"fit": fit, "candidates": candidates, "preflight": False}  # a plan is of what repeats
        run = learner(folder, trainer, **settings).fit(net(), datamodule=pool)
        planned = plan(project, Way(sizes=[12, 6, 6], policy=fit, candidates=candidates))
        assert planned.bill.records_trained == run.bill.records_trained
        assert planned.bill.records_inferred == run.bill.records_inferred
        assert planned.bill.flops == pytest.approx(run.bill.flops, rel=0.02)
        assert planned.bill.labels == run.bill.labels
        assert planned.bill.rho == pytest.approx(run.bill.rho, rel=0.02)


def test_the_end_is_foreseen_from_the_first_round_on(tmp_path):
    run = learner(tmp_path, quiet(max_epochs=3), fit=WarmStart("keep", epochs=1, final="initial"), stop_set=6)
    result = run.fit(net(), datamodule=pool_of())
    for record in result.history:
        assert record.forecast["labels"] == result.bill.labels
        assert record.forecast["flops"] == pytest.approx(result.bill.flops, rel=0.05)
    assert result.history[-1].forecast["flops"] == result.bill.flops
    assert result.history[-1].forecast["money"] == result.bill.money


def test_a_run_without_an_end_in_sight_has_no_forecast(tmp_path, monkeypatch):
    monkeypatch.setattr("al_lightning.steps.foresight.LONGEST", 1)
    result = learner(tmp_path).fit(net(), datamodule=pool_of())
    assert [bool(record.forecast) for record in result.history] == [False, True, True]


def test_a_budget_ends_the_forecast_too(tmp_path):
    whole = learner(tmp_path / "a").fit(net(), datamodule=pool_of())
    limit = 0.9 * whole.bill.flops
    result = learner(tmp_path / "b", stop=[Budget(flops=limit)]).fit(net(), datamodule=pool_of())
    assert result.history[0].forecast["flops"] == pytest.approx(result.bill.flops, rel=0.02)
    assert result.bill.flops < limit < whole.history[0].forecast["flops"]


def test_labels_of_one_round_are_random_and_later_ones_are_worth_what_their_model_knew():
    efficiency = Efficiency(random=0.4, maturity=0.7)
    assert efficiency.worth([1.0]) == pytest.approx(0.4)
    assert efficiency.worth([30, 100]) == pytest.approx(0.4 + 0.6 * 0.7 * 0.3**0.7)
    assert Efficiency(random=0.4, maturity=0).worth([30, 100]) == pytest.approx(0.3 * 0.4 + 0.7)
    assert Efficiency(random=1).worth(even(3)) == pytest.approx(1)


def test_a_small_first_round_teaches_too_little_to_pick_by():
    assert Efficiency().worth(growing(4, 2.0)) < Efficiency().worth(even(4))


def test_the_fit_finds_what_made_the_observations():
    truth = Efficiency(0.6, 0.8)
    shapes = [even(1), even(4), growing(5, 1.5)]
    seen = [Observation(s, even(20), truth.worth(s) / truth.worth(even(20))) for s in shapes]
    found = Efficiency.fit(seen)
    assert (found.random, found.maturity) == (0.6, 0.8)


@pytest.mark.parametrize("hour", [0.01, 50.0, 50_000.0])
def test_the_cheapest_rounds_against_brute_force(hour):
    project = Project(pool=60_000, labels=4_000, epochs=20, forward=1e9, prices=Prices(hour=hour))
    best = best_schedule(project, Way(sizes=()), Efficiency())
    shapes = itertools.product(range(1, 51, 2), (1.0, 1.1, 1.3, 2.0))
    made = [schedule(project, Way(sizes=()), Efficiency(), *s) for s in shapes if growing(*s)[0] >= LEAST_FIRST]
    assert best.money <= 1.02 * min(s.money for s in made if s is not None)
    assert sum(best.way.sizes) == best.plan.labels


def test_without_a_price_in_labels_one_round_always_wins():
    project = Project(pool=60_000, labels=4_000, epochs=20, forward=1e9)
    assert best_schedule(project, Way(sizes=()), Efficiency(random=1)).rounds == 1


def test_more_rounds_take_fewer_labels_and_more_compute():
    made = trade_off(Project(pool=60_000, labels=4_000, epochs=20, forward=1e9), Way(sizes=()), Efficiency())
    labels, flops = ([s.plan.labels for s in made], [s.plan.bill.flops for s in made[1:]])
    assert labels == sorted(labels, reverse=True)
    assert flops == sorted(flops)


def test_sizes_are_whole_and_add_up():
    for labels, shares in ((7, even(7)), (100, growing(10, 2.0)), (101, even(3))):
        sizes = whole_sizes(labels, shares)
        assert sum(sizes) == labels
        assert min(sizes) >= 1
        assert len(sizes) == len(shares)


def test_the_verdict_follows_the_prices():
    def choice(random=0.5, **prices):
        project = Project(pool=20_000, labels=4_000, epochs=20, forward=1e9, prices=Prices(**prices))
        return verdict(project, Way(sizes=()), Efficiency(random=random))

    dear, cheap = choice(label=1.0, hour=0.5), choice(random=0.9, label=1e-6, hour=50.0)
    assert dear.worth_it
    assert cheap.choice == RANDOM
    assert dear.plans[EVERYTHING].labels == 20_000
    assert any("random label" in sentence for sentence in dear.changes)
    nothing = verdict(Project(pool=20_000, labels=4_000, epochs=20, forward=1e9), Way(sizes=()), Efficiency(random=1))
    assert nothing.choice == RANDOM
    assert json.loads(json.dumps(dear.to_json()))["worth_it"]


def test_from_a_pool_hardly_larger_than_the_budget_little_is_gained_by_choosing():
    def random_labels(pool):
        found = verdict(Project(pool=pool, labels=1_000, epochs=5, forward=1e6), Way(sizes=(), worth=0.5), Efficiency())
        return found.plans[RANDOM].labels

    # Nine tenths of 1,000 random labels of 1,111 are among those that would be picked.
    assert random_labels(1_000) == 1_000
    assert random_labels(1_111) < 1_050
    assert random_labels(1_111) < random_labels(2_000) < random_labels(100_000)
    assert random_labels(100_000) > 1_600


def test_without_a_round_to_select_in_this_schedule_is_random_labels():
    project = Project(pool=1_050, labels=1_000, epochs=5, forward=1e6, prices=Prices(label=0.0))
    found = verdict(project, Way(sizes=(), worth=0.5), Efficiency())
    assert found.plans[THIS] is None
    assert found.schedule is None


def test_a_lever_pays_while_its_labels_cost_less_than_it_saves():
    way = Way(sizes=[200] * 5, policy=WarmStart("keep", epochs=1), candidates=RandomSubset(0.1))
    found = {lever.name: lever for lever in levers(PROJECT, way)}
    assert set(found) == {"warm, short fits", "fewer records inferred", "5 rounds instead of 20"}
    warm = found["warm, short fits"]
    assert warm.money == pytest.approx(
        plan(PROJECT, Way(sizes=[200] * 5, candidates=RandomSubset(0.1))).money - plan(PROJECT, way).money
    )
    assert warm.labels == pytest.approx(warm.money / PROJECT.prices.label)


def test_every_default_price_has_a_source_until_it_is_given():
    assert [a.name for a in PROJECT.assumptions] == ["prices.label", "prices.hour", "flops_per_second"]
    assert all(a.source for a in PROJECT.assumptions)
    mine = Project(
        pool=10,
        labels=1,
        epochs=1,
        forward=1e6,
        prices=Prices(label=1, hour=2),
        flops_per_second=1e12,
        record_gigabytes=1,
    )
    assert [a.name for a in mine.assumptions] == ["storage", "egress"]


def test_bert_and_bidaf_by_hand():
    tokens, width = 128, 768
    bert = 2 * tokens * 12 * (12 * width**2 + 2 * tokens * width)
    assert ARCHITECTURES["bert_base"].forward == pytest.approx(bert, rel=0.01)

    def lstm(inputs, h=100):
        return 2 * 4 * (inputs * h + h * h)

    word = 16 * 8 * 5 * 100 + 2 * 2 * 200 * 200 + lstm(200)
    context = word + lstm(800) + 2 * lstm(200) + 2 * 1000 + 200
    bidaf = 2 * (150 * context + 15 * word + 150 * 15 * 800)
    assert ARCHITECTURES["bidaf"].forward == pytest.approx(bidaf, rel=0.02)
    assert all(a.source and a.train == 3 * a.forward for a in ARCHITECTURES.values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs=0: a whole number, allowed: 1 or more"),
        ({"labels": 20_000}, "labels=20,000, pool=10,000"),
        ({"pool": 1e4}, "pool=10000.0: a whole number"),
        ({"forward": 11.5}, "not in GFLOP"),
        ({"flops_per_second": 8.1}, "not in GFLOP or TFLOP"),
        ({"forward": -1e9}, "forward=-1000000000.0: a number above 0"),
        ({"train": 1e5}, "train is forward and backward together"),
        ({"inference_discount": 30}, "30 % is 0.3"),
        ({"control": -0.1}, "control=-0.1: a share"),
        ({"round_money": None}, "round_money=None: allowed: a number, 0 or more"),
        ({"train_seconds": float("nan")}, "train_seconds=nan"),
        ({"egress": -1}, "egress=-1"),
    ],
    ids=str,
)
def test_bad_numbers_are_named_with_what_is_allowed(wrong, said):
    with pytest.raises(BadProject, match=re.escape(said)):
        Project(**{"pool": 10_000, "labels": 1_000, "epochs": 5, "forward": 1e6, **wrong})


def test_other_bad_input():
    with pytest.raises(ValueError, match=r"Prices\(label=None\)"):
        Prices(label=None)
    with pytest.raises(ActiveLearningError, match="allowed are resnet18"):
        architecture("resnet34")
    with pytest.raises(ActiveLearningError, match="0 < random <= 1"):
        Efficiency(random=0)
    with pytest.raises(BadProject, match="10,001 labels in all"):
        plan(PROJECT, Way(sizes=[10_001]))
    assert label_everything(PROJECT).labels == 10_000
