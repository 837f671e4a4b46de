"""Workers and nodes that vanish, dawdle or come late, drivers that are killed, and rounds that do not wait."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from al_lightning.errors import PoisonedRecord
from al_lightning.query import Margin
from al_lightning.scoring.kept import Kept
from al_lightning.scoring.question import Question
from tests.helpers import blobs, learner, net, pool_of
from tests.ray.problems import Noted, ask, in_one_process, reads

pytestmark = pytest.mark.xdist_group("ray")
MARGIN = Question.of(Margin(), seed=0)


def scores(n: int = 60) -> np.ndarray:
    return in_one_process(pool_of(blobs(n)), MARGIN).arrays["score"]


def workers_at_it(notes) -> int:
    return len(reads(notes)) - 1  # this process looks at a record as well


def wait_for_workers(scorer, count: int, notes) -> None:
    """Ask until so many workers have started: to import PyTorch takes seconds."""
    notes.mkdir()
    deadline = time.monotonic() + 150
    while workers_at_it(notes) < count and time.monotonic() < deadline:
        ask(scorer, pool_of(Noted(notes, wait=0.01)), MARGIN)
    assert workers_at_it(notes) >= count


def test_a_node_that_is_killed_costs_what_it_had_in_flight(cluster, scorer, tmp_path):
    during = tmp_path / "during"
    during.mkdir()
    node, asking = cluster.add_node(num_cpus=1), scorer(shard_size=8)
    wait_for_workers(asking, 3, tmp_path / "before")  # a node that joins is made use of

    def kill() -> None:
        deadline = time.monotonic() + 30
        while workers_at_it(during) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    found = ask(asking, pool_of(Noted(during, n=160, wait=0.05)), MARGIN)
    killer.join()
    np.testing.assert_array_equal(found.arrays["score"], scores(160))
    assert 160 < found.records <= 160 + 8 + 2 * 8  # a shard was lost, and some may have gone to stragglers
    assert found.flops > 160 * 2 * (4 * 8 + 8 * 3)  # which is on the bill


def test_a_straggler_is_not_waited_for(scorer, tmp_path):
    wait_for_workers(scorer(shard_size=8), 2, tmp_path / "before")
    start = time.monotonic()
    found = ask(scorer(shard_size=8), pool_of(Noted(tmp_path, at=3, does="sleeps")), MARGIN)
    assert time.monotonic() - start < 12  # it sleeps for 15 s
    np.testing.assert_array_equal(found.arrays["score"], scores())
    assert sum(ids.count(3) for ids in reads(tmp_path).values()) == 2


def test_a_driver_that_ends_early_does_not_pay_for_finished_shards_again(scorer, tmp_path):
    notes, scratch = tmp_path / "notes", tmp_path / "scratch"
    notes.mkdir()
    broken = pool_of(Noted(notes, at=59, does="raises"))
    with pytest.raises(PoisonedRecord):
        ask(scorer(shard_size=8), broken, MARGIN, scratch=scratch)
    for file in notes.iterdir():
        file.unlink()
    found = ask(scorer(shard_size=8), pool_of(Noted(notes)), MARGIN, scratch=scratch)
    assert sorted(i for ids in reads(notes).values() for i in ids) == [56, 57, 58, 59]  # the shard that was at fault
    np.testing.assert_array_equal(found.arrays["score"], scores())
    assert found.flops == 60 * 2 * (4 * 8 + 8 * 3)  # all of it is on the bill, once


def test_a_run_whose_driver_is_gone_goes_on_with_the_shards_it_has(scorer, tmp_path, monkeypatch):
    whole = learner(tmp_path / "whole").fit(net(), datamodule=pool_of())
    real, written = Kept.write, []

    def write(self, shard, done):
        real(self, shard, done)
        written.append(shard)
        if len(written) == 4:
            raise KeyError("gone")

    monkeypatch.setattr(Kept, "write", write)
    with pytest.raises(KeyError, match="gone"):
        learner(tmp_path / "run", scoring=scorer(shard_size=8)).fit(net(), datamodule=pool_of())
    monkeypatch.setattr(Kept, "write", real)
    notes = tmp_path / "notes"
    notes.mkdir()
    result = learner(tmp_path / "run", scoring=scorer(shard_size=8)).fit(net(), datamodule=pool_of(Noted(notes)))
    assert result.labelled.tolist() == whole.labelled.tolist()
    assert result.bill.lines["score"].flops == whole.bill.lines["score"].flops
    read = [i for pid, ids in reads(notes).items() if pid != str(os.getpid()) for i in ids]
    assert len(read) == result.bill.lines["score"].records - 4 * 8  # in the first query; all of the second
    assert not (tmp_path / "run" / "scratch").exists()


def test_answers_of_other_weights_or_damaged_ones_are_not_used(scorer, tmp_path):
    ask(scorer(), pool_of(), MARGIN, scratch=tmp_path)
    kept = sorted(tmp_path.rglob("*.npz"))
    kept[0].write_bytes(b"PK")
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    np.testing.assert_array_equal(ask(scorer(), pool_of(), MARGIN, scratch=tmp_path).arrays["score"], scores())
    other = net(seed=1)
    found = ask(scorer(), pool_of(), MARGIN, model=other, scratch=tmp_path).arrays["score"]
    np.testing.assert_array_equal(found, in_one_process(pool_of(), MARGIN, model=other).arrays["score"])


def test_a_round_goes_on_at_the_deadline_with_stale_scores_for_the_rest(scorer, tmp_path):
    pool = pool_of()
    result = learner(tmp_path, scoring=scorer(shard_size=8, deadline=0.0)).fit(net(), datamodule=pool)
    assert len(result.labelled) == 24
    second, third = result.history[1:]
    assert 6 <= second.candidates < 48
    assert 6 <= third.candidates < 42
    state = pool.state
    assert np.sum(state.score_rounds == 2) == third.candidates  # how many were fresh is what it says


def test_enough_is_a_share_of_the_candidates(scorer):
    found = ask(scorer(shard_size=8, enough=0.5), pool_of(), MARGIN, least=1)
    assert 30 <= len(found.ids) < 60
    np.testing.assert_array_equal(found.arrays["score"], scores()[found.ids])
    assert len(ask(scorer(shard_size=8, enough=0.5), pool_of(), MARGIN).ids) == 60  # features, say, are all needed
