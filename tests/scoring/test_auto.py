"""Other machines only where that pays, and a word on why."""

from __future__ import annotations

import doctest
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.ledger import Entry
from al_lightning.cost.prices import Prices
from al_lightning.planning.distributing import distributing, inference_share
from al_lightning.scoring import AutoScorer
from al_lightning.scoring.question import Answers, Request
from al_lightning.scoring.trainer import TrainerScorer
from tests.helpers import learner, net, pool_of


class Elsewhere(TrainerScorer):
    """Counts the calls."""

    every_rank: ClassVar[bool] = False

    def __init__(self) -> None:
        self.calls, self.closed = 0, 0

    def run(self, request: Request) -> Answers:
        self.calls += 1
        return super().run(request)

    def close(self) -> None:
        self.closed += 1


def bill(train: float, score: float) -> Bill:
    entries = [Entry(phase="train", round=1, records=100, seconds=train)]
    entries += [Entry(phase="score", round=1, records=50, seconds=score)] if score else []
    return Bill.of(entries, labels=10, prices=Prices())


def test_share_of_what_was_and_what_comes():
    assert inference_share(Bill()) is None
    assert inference_share(bill(9.0, 1.0)) == pytest.approx(0.1)
    assert inference_share(bill(9.0, 1.0), records=50) == pytest.approx(2 / 11)
    assert inference_share(bill(9.0, 0.0), records=100) == pytest.approx(3 / 12)  # a third of a training pass


@pytest.mark.parametrize(("share", "pays"), [(0.04, False), (0.35, True), (0.65, True)])
def test_the_articles_shares(share, pays):
    assert distributing(share, 8).pays is pays


def test_examples_of_the_docstring_hold():
    found = doctest.testmod(sys.modules[distributing.__module__])
    assert found.attempted > 0
    assert found.failed == 0


def test_no_gain_beyond_what_inference_takes():
    assert distributing(0.5, 10**6).speedup == pytest.approx(2, rel=1e-5)
    assert not distributing(0.5, 1).pays
    assert distributing(0.5, 1, discount=0.3).pays  # slower by a little, and cheaper
    with pytest.raises(ValueError, match="a share of 0 to 1"):
        distributing(1.2, 8)


def test_it_goes_elsewhere_where_inference_is_most_of_the_work(tmp_path):
    elsewhere = Elsewhere()
    scorer = AutoScorer(elsewhere=elsewhere, workers=8, discount=1e-6)  # so cheap that it pays
    run = learner(tmp_path, scoring=scorer, preflight=False)  # beside so little work a rehearsal is much
    with pytest.warns(UserWarning, match=r"inference is \d+% of the compute.*distributing pays"):
        result = run.fit(net(), datamodule=pool_of(batch_size=1))
    assert elsewhere.calls == 2
    assert elsewhere.closed == 1
    assert len(result.labelled) == 24


def test_work_that_a_kill_has_cost_keeps_nothing_here(monkeypatch):
    elsewhere = Elsewhere()
    scorer = AutoScorer(elsewhere=elsewhere, workers=8)
    lines = {"score": Line(records=10, seconds=10.0), "train": Line(records=1, seconds=1.0), "lost": Line(seconds=1e6)}
    request = SimpleNamespace(trainer=SimpleNamespace(world_size=1), bill=Bill(lines=lines), ids=range(10))
    monkeypatch.setattr(elsewhere, "run", lambda request: "there")
    with pytest.warns(UserWarning, match="distributing pays"):
        assert scorer.run(request) == "there"


def test_it_stays_where_training_is_most_of_the_work(tmp_path):
    elsewhere = Elsewhere()
    with pytest.warns(UserWarning, match="does not pay"):
        learner(tmp_path, scoring=AutoScorer(elsewhere=elsewhere, workers=1)).fit(net(), datamodule=pool_of())
    assert elsewhere.calls == 0
