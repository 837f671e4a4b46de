"""The schedule: whatever happens to workers, every record is answered for once, and in the batches of one process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_lightning.errors import PoisonedRecord
from al_lightning.scoring.shards import LATE, LOSSES, SLOW, Schedule, cut


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def batches(shards, batch):
    return [tuple(s.ids[i : i + batch]) for s in shards for i in range(0, len(s), batch)]


@given(n=st.integers(1, 300), size=st.integers(1, 80), batch=st.integers(1, 40))
def test_shards_are_made_of_the_batches_of_one_process(n, size, batch):
    ids = np.random.default_rng(0).permutation(n)
    assert batches(cut(ids, size=size, batch=batch), batch) == [tuple(ids[i : i + batch]) for i in range(0, n, batch)]


@given(n=st.integers(2, 300), batch=st.integers(1, 40))
def test_halves_keep_batches_as_long_as_there_are_several(n, batch):
    (shard,) = cut(np.arange(n), size=n, batch=batch)
    halves = shard.halves(batch)
    assert [len(h) > 0 for h in halves] == [True, True]
    assert np.array_equal(np.concatenate([h.ids for h in halves]), shard.ids)
    assert [h.start for h in halves] == [0, len(halves[0])]
    if n > batch:
        assert batches(halves, batch) == batches([shard], batch)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), workers=st.integers(1, 6), lost=st.floats(0, 0.5), slow=st.floats(0, 0.5))
def test_every_record_is_answered_once_whatever_happens(seed, workers, lost, slow):
    rng, clock, seen = np.random.default_rng(seed), Clock(), []
    schedule = Schedule(cut(np.arange(200), size=10, batch=5), batch=5, clock=clock)
    idle, busy = list(range(workers)), []
    while schedule.unfinished:
        while idle and (attempt := schedule.next(idle[0])) is not None:
            ends = clock.now + rng.exponential(1.0) * (50 if rng.random() < slow else 1)
            busy.append((ends, idle.pop(0), attempt))
        if not busy:
            clock.now += 1
            continue
        busy.sort(key=lambda one: one[0])
        ends, worker, attempt = busy.pop(0)
        clock.now = max(clock.now, ends)
        if rng.random() < lost and len(attempt.shard) > 1:
            schedule.lost(attempt)
        elif schedule.answered(attempt):
            seen += attempt.shard.ids.tolist()
        idle.append(worker)
    assert sorted(seen) == list(range(200))
    assert schedule.issued >= 200


def test_a_loss_costs_the_shard_in_flight_and_no_more():
    schedule = Schedule(cut(np.arange(40), size=10, batch=10), batch=10)
    first, second = schedule.next("a"), schedule.next("b")
    schedule.lost(first)
    again = schedule.next("c")
    assert again.shard is first.shard  # first of all, so that it does not become the last
    for attempt in (second, again):
        assert schedule.answered(attempt)
    while (attempt := schedule.next("c")) is not None:
        schedule.answered(attempt)
    assert schedule.issued == 50


def test_a_straggler_is_issued_again_and_the_first_answer_counts():
    clock = Clock()
    schedule = Schedule(cut(np.arange(30), size=10, batch=10), batch=10, clock=clock)
    slow, fast = schedule.next("slow"), schedule.next("fast")
    clock.now = 1.0
    schedule.answered(fast)
    last = schedule.next("fast")
    clock.now = 2.0
    schedule.answered(last)
    assert schedule.next("fast") is None  # not slow enough yet
    clock.now = SLOW + LATE + 0.1
    copy = schedule.next("fast")
    assert copy.shard is slow.shard
    assert schedule.next("third") is None  # one copy is enough
    assert schedule.answered(copy)
    assert not schedule.answered(slow)
    assert schedule.unfinished == 0


def poisoned(schedule, is_bad, report):
    attempts = 0
    while schedule.unfinished:
        attempt = schedule.next("w")
        attempts += 1
        if is_bad(attempt.shard.ids):
            report(schedule, attempt)
        else:
            schedule.answered(attempt)
    return attempts


@pytest.mark.parametrize(
    "report",
    [lambda s, a: s.failed(a, ValueError("bad pixel")), lambda s, a: s.lost(a)],
    ids=["it fails", "the worker dies"],
)
def test_a_poisoned_record_is_named_after_few_tries(report):
    schedule = Schedule(cut(np.arange(4096) + 100, size=1024, batch=64), batch=64)
    with pytest.raises(PoisonedRecord, match=r"id 1777 .*shard 1") as caught:
        poisoned(schedule, lambda ids: 1777 in ids, report)
    assert caught.value.id == 1777
    assert schedule.issued < 4096 + 5 * 1024


def test_what_fails_once_is_tried_again_as_it_is():
    schedule = Schedule(cut(np.arange(64), size=64, batch=8), batch=8)
    first = schedule.next("w")
    schedule.failed(first, OSError("the network was gone"))
    again = schedule.next("w")
    assert again.shard is first.shard
    assert schedule.answered(again)
    assert schedule.unfinished == 0


def test_a_shard_is_a_suspect_only_after_several_losses():
    schedule = Schedule(cut(np.arange(64), size=64, batch=8), batch=8)
    for _ in range(LOSSES - 1):
        attempt = schedule.next("w")
        schedule.lost(attempt)
    assert len(schedule.next("w").shard) == 64


def test_an_answer_to_a_shard_that_was_taken_apart_comes_too_late():
    clock = Clock()
    schedule = Schedule(cut(np.arange(20), size=10, batch=5), batch=5, clock=clock)
    slow, quick = schedule.next("slow"), schedule.next("quick")
    clock.now = 0.1
    schedule.answered(quick)
    clock.now = 100.0
    copy = schedule.next("other")
    for _ in range(2):
        schedule.failed(copy, ValueError("unlucky"))
        copy = schedule.next("other")
    assert len(copy.shard) == 5
    assert not schedule.answered(slow)
    schedule.answered(copy)
    assert schedule.unfinished == 1
