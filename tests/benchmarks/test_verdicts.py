from __future__ import annotations

import numpy as np
import pytest
import torch

from al_lightning.cost.prices import Prices
from al_lightning.planning.efficiency import Efficiency
from al_lightning.planning.planner import Way
from al_lightning.planning.signal import REFERENCES, LabelSignal
from al_lightning.planning.verdict import EVERYTHING, ORDINARY, RANDOM, THIS
from benchmarks import planner, verdicts
from benchmarks.pilots import CLEAN, PILOTS, Pilots, pilots
from benchmarks.protocols import FOR_VERDICTS, Arrays, noisy, source_of
from benchmarks.verdicts import NEAR, SAVINGS, Measured, judge, prices_of, random_labels
from benchmarks.worth import observations, prior


def row(method, labels, accuracy, rho, *, busy=1.0, **more):
    """A run that took rho trainings, of a second per hundred labels, on a machine that was so many times slower."""
    seconds = busy * labels / 100
    taken = {"seconds": rho * seconds, "seconds_reference": seconds}
    trained = {"flops_reference": 30.0 * labels, "scored_flops": 40.0, "records_inferred": 20}
    return {"method": method, "labels": labels, "accuracy": accuracy, **taken, **trained, **more}


ROWS = [
    row("everything", 1000, 90.0, 1.0),
    row("random", 100, 70.0, 1.0),
    row("random", 50, 60.0, 1.0),
    row("baseline", 100, 80.0, 8.0, busy=3.0, curve=[[50, 60.0], [75, 70.0], [100, 80.0]]),
    row("frugal", 100, 75.0, 1.1),
]


def test_what_each_way_takes_to_be_as_good_as_ordinary_active_learning():
    found = Measured.of(ROWS, epochs=3)
    assert found.needed[ORDINARY] == 100
    assert found.needed[EVERYTHING] == 1000
    assert found.needed[THIS] == pytest.approx(100 * 100 / 88.75)  # 75.5 % is what 88.75 labels of the baseline reach
    # From an error of 30 % to 10 % takes ten times the labels; 20.5 % is in between.
    assert found.needed[RANDOM] == pytest.approx(100 * 10 ** (np.log(30 / 20.5) / np.log(3)))
    assert found.trainings[RANDOM] == pytest.approx(found.needed[RANDOM] / 100)
    assert (found.trainings[EVERYTHING], found.trainings[ORDINARY]) == (10.0, 8.0)  # however busy the machine was
    assert (found.train, found.forward) == (10.0, 2.0)
    money = found.money(Prices(label=2.0, hour=3600.0))
    assert money[ORDINARY] == 208.0


def test_random_labels_are_not_extrapolated():
    tried = [(50.0, 60.0), (100.0, 70.0)]
    assert random_labels(tried, 50.0) == 50.0
    assert random_labels(tried, 99.0) == 100.0
    assert 50 < random_labels(tried, 65.0) < 100


def test_hours_are_priced_beside_labels():
    found = Measured.of(ROWS, epochs=3)
    for name, prices in prices_of(found).items():
        if name != "default":
            times = float(name.split()[2])
            assert found.training / 3600 * prices.hour == pytest.approx(times * 100 * prices.label)


def test_a_verdict_is_right_where_its_way_is_near_the_cheapest(monkeypatch):
    monkeypatch.setattr(verdicts, "recipe", lambda name: {"epochs": 3})
    found = Measured(
        pool=1000,
        labels=100,
        needed={EVERYTHING: 1000, RANDOM: 400, ORDINARY: 100, THIS: 110},
        trainings={EVERYTHING: 10, RANDOM: 4, ORDINARY: 9, THIS: 1.1},
        training=1.0,
        train=3e6,
        forward=1e6,
    )
    for efficiency, wrong in ((Efficiency(), set()), (Efficiency(random=1.0), {"default"})):
        rows = {r["prices"]: r for r in judge("letter", found, Way(sizes=(), worth=0.9), efficiency)}
        assert {r["cheapest"] for r in rows.values()} == {ORDINARY, THIS}
        assert all(r["right"] == (r["over_cheapest"] <= NEAR) for r in rows.values())
        # Where nothing is gained by selecting, one training on random labels is said to be the cheapest.
        assert (rows["default"]["verdict"] == RANDOM) == bool(wrong)
        assert {name for name in rows if not rows[name]["right"]} >= wrong


def test_how_far_a_verdict_is_right_is_the_share_of_pilots_after_which_it_is(monkeypatch):
    monkeypatch.setattr(verdicts, "recipe", lambda name: {"epochs": 3})
    needed = {EVERYTHING: 1000, RANDOM: 10, ORDINARY: 100, THIS: 110}  # nothing can be learnt
    trainings = {EVERYTHING: 10, RANDOM: 0.1, ORDINARY: 9, THIS: 1.1}
    found = Measured(1000, 100, needed, trainings, training=1.0, train=3e6, forward=1e6)
    warning = LabelSignal(records=10, pairs=40, p_value=0.5, odds=99.0)
    unclear = LabelSignal(records=10, pairs=4, p_value=0.5, odds=1.1)
    after = {"labels": Pilots("labels", [unclear] * 4), "pool": Pilots("pool", [warning, warning, warning, unclear])}
    rows = judge("letter", found, Way(sizes=(), worth=0.9), Efficiency(), after)
    assert {said["cheapest"] for said in rows} == {RANDOM}
    for said in rows:
        before = said["verdict"] == RANDOM  # where an hour is dear
        assert (said["right"], said["right_after_labels"]) == (before, before)
        assert said["right_after_pool"] == (1.0 if before else 0.75)
    assert {said["right_after_pool"] for said in rows} >= {0.75}
    assert after["pool"].to_json()["nothing"] == 0.75


def test_pilots_are_a_hundredth_of_what_is_bought_and_of_the_pool():
    found = pilots("digits", list(REFERENCES.values()))
    assert {reading: {s.records for s in made.signals} for reading, made in found.items()} == {
        "labels": {4},
        "pool": {14},
    }
    assert len({(s.pairs, s.p_value) for s in found["pool"].signals}) > len(PILOTS) // 2  # each draws its own
    assert found == pilots("digits", list(REFERENCES.values()))


def test_every_source_has_a_reference_to_leave_out():
    assert {source_of(name) for name in CLEAN} == {source_of(name) for name in (*SAVINGS, *FOR_VERDICTS)}
    assert set(REFERENCES) == set(CLEAN)


def test_runs_that_the_results_have_are_not_made_again(monkeypatch):
    def made_again(*args):
        raise AssertionError("a run is made again")

    monkeypatch.setattr(verdicts, "measure", made_again)
    rows = verdicts.runs("digits")
    assert len(rows) == 15
    assert "kind" not in rows[0]


def test_what_labels_are_worth_is_learnt_elsewhere():
    named = observations()
    assert {source_of(name) for name in named} == {"letter", "banking77", "fashion-mnist"}
    schedules = [r for r in planner.rows_of("schedule", again=False) if r["part"] == "schedule"]
    everywhere, _ = prior(schedules)
    elsewhere, worth = prior(schedules, without="letter")
    assert elsewhere != everywhere
    assert not {"letter", "long-tail"} & set(worth)


def test_every_data_set_of_the_claim_has_a_source_and_ten_of_them_are_there():
    names = [*SAVINGS, *FOR_VERDICTS]
    assert len(names) >= 10
    assert {source_of(name) for name in FOR_VERDICTS} <= {"digits", "adult", "goemotions", "letter", "banking77"}


def test_noise_shuffles_labels_and_leaves_their_numbers_and_the_test_part_alone():
    y = torch.arange(1000) % 10
    whole = Arrays(torch.randn(1000, 3), y, torch.randn(4, 3), y[:4])
    found = noisy(lambda seed: whole, 0.6, 0)
    assert torch.equal(found.y.bincount(), y.bincount())
    assert torch.equal(found.y_test, whole.y_test)
    changed = float((found.y != y).float().mean())
    assert 0.5 < changed < 0.6  # a tenth of what is shuffled comes back as it was
