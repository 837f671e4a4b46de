from __future__ import annotations

import dataclasses

import pytest

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.prices import Prices
from al_lightning.history import History, RoundRecord
from al_lightning.round_size import Doubling, EvenRounds, Fixed, Growing, Listed, Planned
from tests.helpers import learner, net, pool_of


def play(sizes, rounds, *, labelled=0, answered=1.0):
    """The queries of a run whose oracle answers a fixed share of each."""
    queries = []
    for n in range(rounds):
        history = History(pool_size=10**6, unlabelled=10**6 - labelled, labelled=labelled, round=n)
        queries.append(sizes(history))
        labelled += int(queries[-1] * answered)
    return queries


@pytest.mark.parametrize(
    ("sizes", "queries"),
    [
        (Fixed(100), [100, 100, 100, 100]),
        (Fixed(100, first=20), [20, 100, 100, 100]),
        (Doubling(200), [200, 200, 400, 800]),
        (Doubling(1), [1, 1, 2, 4]),
        (Growing(100, 3), [100, 200, 600, 1800]),
        (Growing(100, 1.5), [100, 50, 75, 112]),
        (Growing(3, 1.01), [3, 1, 1, 1]),
        (EvenRounds(10, rounds=4), [3, 3, 2, 2]),
        (EvenRounds(10, rounds=2), [5, 5, 0, 0]),
        (Growing(10, 1.1), [10, 1, 1, 1]),
        (Listed([200, 50]), [200, 50, 0, 0]),
    ],
)
def test_queries_of_a_run(sizes, queries):
    assert play(sizes, 4) == queries


def test_growing_follows_the_labels_that_came():
    assert play(Doubling(200), 3, answered=0.5) == [200, 100, 150]
    assert play(Doubling(200), 3, answered=0) == [200, 200, 200]
    assert play(Doubling(200), 2, labelled=500) == [200, 700]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Fixed(0), "size=0"),
        (lambda: Fixed(2.5), "size=2.5"),
        (lambda: Fixed(True), "size=True"),
        (lambda: Fixed(5, first=-1), "first=-1"),
        (lambda: Doubling(0), "Doubling: first=0"),
        (lambda: Growing(10, 1), "factor=1"),
        (lambda: Growing(10, float("nan")), "factor=nan"),
        (lambda: Growing(10, float("inf")), "factor=inf"),
        (lambda: Listed([]), r"sizes=\[\]"),
        (lambda: Listed([10, 0]), "sizes=0"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(make, says):
    with pytest.raises(ValueError, match=rf"{says}.*allowed"):
        make()


def test_settings_describe_themselves():
    assert dataclasses.asdict(Doubling(7)) == {"first": 7, "factor": 2.0}
    assert dataclasses.asdict(Listed([1, 2])) == {"sizes": (1, 2)}


def test_spread_asks_again_for_what_was_refused_and_counts_what_was_there():
    assert play(EvenRounds(100, rounds=3), 5, answered=0.5) == [34, 42, 62, 31, 16]
    assert play(EvenRounds(100, rounds=4), 5, labelled=60) == [10, 10, 10, 10, 0]


@pytest.mark.parametrize("rounds", [0, 11, 2.0])
def test_spread_needs_a_label_a_round(rounds):
    with pytest.raises(ValueError, match=rf"rounds={rounds}.*allowed: 1 to labels=10"):
        EvenRounds(10, rounds=rounds)


def after(labelled, *, seconds, hour=36.0, unlabelled=4000):
    """A history after one fit of two epochs that took so many seconds."""
    lines = {"train": Line(records=2 * labelled, flops=1e6, seconds=seconds)}
    bill = Bill(lines=lines, labels=labelled, prices=Prices(label=1.0, hour=hour))
    record = RoundRecord(round=1, labelled=labelled, queried=labelled)
    return History(pool_size=5000, unlabelled=unlabelled, labelled=labelled, round=1, rounds=(record,), bill=bill)


def test_planned_rounds_are_larger_where_training_turned_out_dearer():
    sizes = Planned(400, first=20, epochs=2, fit=WarmStart("reset"))
    found = [sizes(after(20, seconds=seconds)) for seconds in (0.0, 100.0, 10_000.0)]
    assert found[0] < found[1] < found[2]
    assert found[0] == sizes(after(20, seconds=100.0, hour=0.0))  # what costs nothing does not count


def test_planned_buys_what_larger_rounds_and_other_levers_need():
    one = Planned(400, first=20, epochs=2, fit=WarmStart("reset"))
    frugal = dataclasses.replace(one, worth=0.8)
    assert one(after(20, seconds=1e9)) > 400 - 20  # one round of nearly random labels
    assert frugal(after(20, seconds=1e9)) > one(after(20, seconds=1e9))
    assert one(after(4000, seconds=1.0, unlabelled=1000)) == 0
    assert one(after(20, seconds=1e9, unlabelled=7)) == 7


def test_a_run_of_planned_rounds_goes_to_its_end_and_on_from_where_it_was(tmp_path):
    def run(folder, **more):
        sizes = Planned(24, first=6, epochs=2, fit=WarmStart("reset"))
        prices = Prices(label=1.0, hour=1.0)
        return learner(folder, round_size=sizes, prices=prices, **more).fit(net(), datamodule=pool_of())

    def stop(record, model):
        if record.round == 2:
            raise RuntimeError("stopped here")

    whole = run(tmp_path / "a")
    assert whole.history[0].queried == 6
    assert len(whole.labelled) >= 24
    assert whole.reason.kind == "exhausted"
    with pytest.raises(RuntimeError, match="stopped here"):
        run(tmp_path / "b", on_round=stop)
    assert len(run(tmp_path / "b").labelled) >= 24


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"labels": 0}, "labels=0"),
        ({"first": 2.5}, "first=2.5"),
        ({"first": 50}, "first=50 of labels=40"),
        ({"worth": 0}, "worth=0"),
    ],
)
def test_planned_says_what_is_allowed(settings, says):
    with pytest.raises(ValueError, match=says):
        Planned(**{"labels": 40, "first": 4, "epochs": 2, "fit": WarmStart("reset"), **settings})
