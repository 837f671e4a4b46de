"""Workers and nodes that vanish, dawdle or come late, drivers that are killed, and rounds that do not wait."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from al_lightning import Margin
from al_lightning.errors import PoisonedRecord
from al_lightning.scoring.question import Question
from tests.helpers import blobs, learner, net, pool_of
from tests.ray.problems import Noted, ask, in_one_process, reads

pytestmark = pytest.mark.xdist_group("ray")
MARGIN = Question.of(Margin(), seed=0)


def scores(n: int = 60) -> np.ndarray:
    return in_one_process(pool_of(blobs(n)), MARGIN).arrays["score"]


def test_a_node_that_is_killed_costs_what_it_had_in_flight(cluster, scorer, team, tmp_path):
    node = cluster.add_node(num_cpus=2)
    slow = pool_of(Noted(tmp_path, n=240, wait=0.05))
    asking = scorer(shard_size=8)
    ask(asking, pool_of(), MARGIN)  # until workers are there
    deadline = time.monotonic() + 30
    while len(team.members) < 4 and time.monotonic() < deadline:
        ask(asking, pool_of(), MARGIN)
        time.sleep(0.2)
    assert len(team.members) == 4  # a node that joins is made use of

    def kill() -> None:
        while len(reads(tmp_path)) < 3:  # its workers are at it
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    found = ask(asking, slow, MARGIN)
    killer.join()
    np.testing.assert_array_equal(found.arrays["score"], scores(240))
    assert found.flops > 240 * 2 * (4 * 8 + 8 * 3)  # what was lost is on the bill
    assert found.records <= 240 + 2 * 8 + 2 * 8  # two workers' shards, and at most as much to stragglers


def test_a_straggler_is_not_waited_for(scorer, tmp_path):
    start = time.monotonic()
    found = ask(scorer(shard_size=8), pool_of(Noted(tmp_path, at=3, does="sleeps")), MARGIN)
    assert time.monotonic() - start < 25  # it sleeps for 30 s
    np.testing.assert_array_equal(found.arrays["score"], scores())
    assert sum(ids.count(3) for ids in reads(tmp_path).values()) == 2


def test_a_driver_that_ends_early_does_not_pay_for_finished_shards_again(scorer, tmp_path):
    notes, scratch = tmp_path / "notes", tmp_path / "scratch"
    notes.mkdir()
    broken = pool_of(Noted(notes, at=59, does="raises"))
    with pytest.raises(PoisonedRecord):
        ask(scorer(shard_size=8), broken, MARGIN, scratch=scratch)
    before = len(list(scratch.rglob("*.npz")))
    assert before >= 6
    for file in notes.iterdir():
        file.unlink()
    found = ask(scorer(shard_size=8), pool_of(Noted(notes)), MARGIN, scratch=scratch)
    assert sum(map(len, reads(notes).values())) == 60 - 8 * before
    np.testing.assert_array_equal(found.arrays["score"], scores())
    assert found.flops == 60 * 2 * (4 * 8 + 8 * 3)  # all of it is on the bill, once


def test_answers_of_other_weights_or_damaged_ones_are_not_used(scorer, tmp_path):
    ask(scorer(), pool_of(), MARGIN, scratch=tmp_path)
    kept = sorted(tmp_path.rglob("*.npz"))
    kept[0].write_bytes(b"PK")
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
