"""Whether labels say anything about features, on data made by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from al_lightning.cost.prices import Prices
from al_lightning.errors import ActiveLearningError, BadScores
from al_lightning.planning.efficiency import Efficiency
from al_lightning.planning.planner import Way
from al_lightning.planning.project import Project
from al_lightning.planning.signal import MOST_RECORDS, LabelSignal, Reference, effect_of, label_signal
from al_lightning.planning.verdict import RANDOM, verdict

NOTHING = LabelSignal(records=160, pairs=480, p_value=0.5, odds=300.0)


def blobs(n, classes, *, seed=0, d=8, spread=1.5):
    """Clusters of unit variance, a class each."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return rng.normal(size=(classes, d))[y] * spread + rng.normal(size=(n, d)), y


def shuffled(y, share, *, seed=0):
    rng = np.random.default_rng([seed, 1])
    ids = rng.permutation(len(y))[: round(share * len(y))]
    found = y.copy()
    found[ids] = y[rng.permutation(ids)]
    return found


def test_clean_labels_say_something_and_shuffled_ones_nothing():
    x, y = blobs(250, 20)
    found = label_signal(x, y)
    assert found.finding == "something"
    assert found.p_value == 0.001
    assert "say something" in found.sentence
    nothing = label_signal(x, shuffled(y, 1.0))
    assert nothing.finding == "nothing"
    assert nothing.p_value > 0.05
    assert nothing.pairs == found.pairs == sum(int(c) * (int(c) - 1) // 2 for c in np.bincount(y))
    assert "no way of choosing records will help" in " ".join(nothing.sentence.split())
    assert nothing.to_json()["finding"] == "nothing"


def test_of_labels_that_are_mostly_noise_there_is_hardly_ever_a_warning_and_of_shuffled_ones_mostly():
    def warned(share):
        return sum(
            label_signal(x, shuffled(y, share, seed=seed)).finding == "nothing"
            for seed in range(20)
            for x, y in [blobs(250, 20, seed=seed)]
        )

    assert warned(0.6) <= 1
    assert warned(1.0) >= 12


def test_twenty_labels_are_never_enough_for_a_warning():
    for seed in range(20):
        x, y = blobs(20, 20, seed=seed)
        found = label_signal(x, shuffled(y, 1.0, seed=seed))
        assert found.finding != "nothing"
    assert "too few to tell" in found.sentence


def test_the_p_value_is_uniform_where_labels_say_nothing():
    rng = np.random.default_rng(3)
    for kinds in (2, 12):
        p = [label_signal(rng.normal(size=(40, 3)), rng.integers(0, kinds, 40)).p_value for _ in range(150)]
        share = np.arange(1, 151) / 150
        assert np.abs(np.sort(p) - share).max() < 0.14  # Kolmogorov and Smirnov: 0.133 at 1 %
        assert np.mean(np.asarray(p) <= 0.05) < 0.12


def test_the_deviation_is_that_over_every_order_of_the_labels():
    from al_lightning.planning.signal import _deviation, _pair_scores

    scores, y = _pair_scores(np.random.default_rng(0).normal(size=(7, 3))), np.array([0, 0, 1, 1, 1, 2, 3])
    first, second = np.nonzero(np.triu(y[:, None] == y, 1))
    orders = (np.array(order) for order in itertools.permutations(range(7)))
    totals = [scores[order[first], order[second]].sum() for order in orders]
    assert np.mean(totals) == pytest.approx(0, abs=1e-9)
    assert np.std(totals) == pytest.approx(_deviation(scores, y))


def test_two_classes_of_which_one_is_wide():
    # Pairs of the wide class are farther apart than pairs of different ones; the records' mean scores are taken off.
    rng = np.random.default_rng(0)
    y = (np.arange(200) < 60).astype(int)
    x = rng.normal(size=(200, 5)) * np.where(y, 1.0, 3.0)[:, None]
    x[:, 0] += 2.0 * y
    assert label_signal(x, y).p_value < 0.05
    assert label_signal(x, shuffled(y, 1.0)).p_value > 0.05


def test_a_rare_class_of_a_hundredth():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 100 == 0
    x = rng.normal(size=(400, 5))
    assert label_signal(x, y).p_value > 0.05
    x[y] += 6
    assert label_signal(x, y).finding == "something"
    assert label_signal(x, np.roll(y, 1)).finding == "unclear"  # four records of a class are six pairs


def test_many_labels_that_say_little_say_something():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 500)
    x = rng.normal(size=(10, 8))[y] * 0.12 + rng.normal(size=(500, 8))
    found = label_signal(x, y)
    assert found.odds > 4  # labels of which most are right look otherwise
    assert found.p_value < 0.05
    assert found.finding == "something"


def test_units_strings_and_the_order_of_records_change_nothing():
    x, y = blobs(60, 6)
    found = label_signal(x, y)
    units = label_signal(x * np.logspace(-6, 6, 8) + 5.0, np.array([f"class {c}" for c in y]))
    assert (units.pairs, units.finding) == (found.pairs, found.finding)
    assert units.odds == pytest.approx(found.odds, rel=1e-6)
    order = np.random.default_rng(1).permutation(60)
    assert label_signal(x[order], y[order]).odds == pytest.approx(found.odds, rel=1e-6)


def test_columns_that_never_change_and_records_that_occur_twice():
    x, y = blobs(60, 6)
    found = label_signal(x, y)
    wider = label_signal(np.column_stack([x, np.full(60, 0.1), np.zeros(60)]), y)
    assert wider.odds == pytest.approx(found.odds, rel=1e-6)
    twice = label_signal(np.repeat(x[:30], 2, axis=0), np.repeat(y[:30], 2))
    assert twice.finding == "something"
    ties = label_signal(np.round(x), shuffled(y, 1.0))
    assert 0.001 <= ties.p_value <= 1


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones((40, 3)), np.arange(40) % 4),  # all records are the same
        (np.zeros((40, 0)), np.arange(40) % 4),
        (np.random.default_rng(0).normal(size=(40, 3)), np.zeros(40, int)),  # one class only
        (np.random.default_rng(0).normal(size=(40, 3)), np.arange(40)),  # no class twice
        (np.random.default_rng(0).normal(size=(3, 3)), np.zeros(3, int)),
        (np.zeros((0, 3)), np.zeros(0, int)),
    ],
)
def test_where_nothing_can_be_compared_it_says_so(x, y):
    found = label_signal(x, y)
    assert (found.finding, found.p_value, found.odds) == ("unclear", 1.0, 1.0)
    assert "too few to tell" in found.sentence


def test_what_is_refused():
    x, y = blobs(20, 3)
    bad = x.copy()
    bad[4, 0], bad[7, 1] = np.nan, np.inf
    with pytest.raises(BadScores, match=r"feature is NaN or infinite for ids 104, 107"):
        label_signal(bad, y, ids=np.arange(100, 120))
    with pytest.raises(ActiveLearningError, match="labels are float64; allowed are classes"):
        label_signal(x, y + 0.5)
    with pytest.raises(ActiveLearningError, match=r"labels \(20, 3\)"):
        label_signal(x, np.eye(3)[y])
    with pytest.raises(ActiveLearningError, match=r"shape \(20, 8\) and labels \(19,\)"):
        label_signal(x, y[:-1])


def test_of_many_records_some_are_looked_at():
    x, y = blobs(MOST_RECORDS + 300, 5)
    assert label_signal(x, y).records == MOST_RECORDS


def test_the_odds_are_beside_labels_that_say_as_much_as_the_references():
    x, y = blobs(160, 20)
    own = effect_of(x, y)
    assert own.effect > 0.5
    assert own.same == pytest.approx(0.05, abs=0.01)
    nothing = shuffled(y, 1.0)
    strong, weak = (label_signal(x, nothing, references=[Reference(e, own.same)]) for e in (own.effect, 0.01))
    assert strong.odds > 100
    assert weak.finding == "unclear"
    assert strong.p_value == weak.p_value
    # Twenty classes of a reference, merged into the two there are, would leave a tenth of what they say.
    two = np.random.default_rng(0).integers(0, 2, 160)
    assert label_signal(x, two, references=[Reference(own.effect, own.same)]).odds < strong.odds


def test_the_verdict_warns_whatever_labels_and_hours_cost():
    for hour in (0.01, 1.0, 1000.0):
        project = Project(pool=20_000, labels=4_000, epochs=20, forward=1e9, prices=Prices(hour=hour))
        before = verdict(project, Way(sizes=()), Efficiency())
        warned = verdict(project, Way(sizes=()), Efficiency(), NOTHING)
        assert before.worth_it
        assert (warned.choice, warned.worth_it, warned.changes) == (RANDOM, False, ())
        assert warned.to_json()["signal"]["p_value"] == 0.5
        for odds in (1.0, 0.001):
            same = verdict(project, Way(sizes=()), Efficiency(), replace(NOTHING, odds=odds))
            assert (same.choice, same.changes) == (before.choice, before.changes)
