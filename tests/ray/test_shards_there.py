"""Records in shards are read by the workers, and what they read is on the bill."""

from __future__ import annotations

import pytest

from al_lightning.candidates import ShardShare
from al_lightning.query import Margin
from al_lightning.scoring import shards
from al_lightning.scoring.kept import Kept
from al_lightning.scoring.question import Question
from tests.helpers import blobs, learner, net, pool_of
from tests.ray.problems import ask, in_one_process
from tests.shards import noted, opens, shards_in

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(autouse=True)
def no_copies(monkeypatch):
    """Of a shard that two workers score, the slower one's reading is an estimate."""
    monkeypatch.setattr(shards, "LATE", 600.0)


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "opened there"])
def test_workers_return_the_bytes_they_read(scorer, tmp_path, sent):
    data = shards_in(tmp_path / "shards", "parquet", 120)
    pool, question = pool_of(data), Question.of(Margin(), seed=0)
    notes = data.notes if sent else data.notes.with_name("notes-there")
    before = noted(notes)
    found = ask(scorer(dataset=None if sent else opens("parquet", tmp_path / "shards")), pool, question)
    assert found.bytes > data.nbytes.sum()
    assert found.bytes == noted(notes) - before
    assert found.arrays["score"].tolist() == in_one_process(pool_of(blobs(120)), question).arrays["score"].tolist()


def test_those_of_a_driver_that_was_killed_are_kept(scorer, tmp_path, monkeypatch):
    data = shards_in(tmp_path / "shards", "tar", 120)
    pool, question, before = pool_of(data), Question.of(Margin(), seed=0), noted(data.notes)
    real, written = Kept.write, []

    def write(self, shard, done):
        real(self, shard, done)
        written.append(done.bytes)
        if len(written) == 3:
            raise KeyError("killed")

    monkeypatch.setattr(Kept, "write", write)
    with pytest.raises(KeyError, match="killed"):
        ask(scorer(), pool, question, scratch=tmp_path / "scratch")
    monkeypatch.setattr(Kept, "write", real)
    found = ask(scorer(), pool, question, scratch=tmp_path / "scratch")
    # Each worker may have had a shard of 16 in flight, which nobody was there to bill.
    lost = noted(data.notes) - before - found.bytes
    assert 0 <= lost <= 2 * 17 * data.nbytes.sum() / 120
    assert found.bytes >= data.nbytes.sum()


def test_a_run_bills_them(scorer, tmp_path):
    data = shards_in(tmp_path / "shards", "tar")
    memory = blobs(600)
    memory.shard_of = data.shard_of
    parts = {"candidates": ShardShare(0.1)}
    here = learner(tmp_path / "here", **parts).fit(net(), datamodule=pool_of(memory))
    pool = pool_of(data)
    before = noted(data.notes)
    there = learner(tmp_path / "there", scoring=scorer(), **parts).fit(net(), datamodule=pool)
    assert there.labelled.tolist() == here.labelled.tolist()
    assert there.bill.bytes == noted(data.notes) - before
    assert there.bill.lines["score"].bytes > 0
