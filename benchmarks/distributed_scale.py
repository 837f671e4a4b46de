"""A billion records on a thousand preemptible workers: the schedule itself, on a simulated clock."""

from __future__ import annotations

import heapq
import time
from typing import Any

import numpy as np

from al_lightning.scoring.shards import Schedule, Shard

RECORDS, WORKERS, SHARD, PER_RECORD = 1_000_000_000, 1000, 65_536, 1e-3
"""A millisecond a record on one worker, as a small vision model on a CPU core takes: shards of about a minute."""
RESTART = 120.0
"""Seconds until a preempted worker is replaced and has opened data and model."""
WEIGHTS, PER_NODE = 100e6, 8
"""Bytes of the model; workers of a node, which fetch it together."""


def scale() -> list[dict[str, Any]]:
    """One row per rate of preemption, in preemptions per worker and hour."""
    return [_simulated(rate) for rate in (0.0, 0.1, 1.0)]


def _simulated(rate: float) -> dict[str, Any]:
    rng, now = np.random.default_rng(0), [0.0]
    ids = np.broadcast_to(np.int64(0), RECORDS)  # which ones they are makes no difference, and takes no memory here
    shards = [Shard(i, start, ids[start : start + SHARD]) for i, start in enumerate(range(0, RECORDS, SHARD))]
    schedule = Schedule(shards, batch=512, clock=lambda: now[0])
    speed = rng.uniform(0.5, 1.5, WORKERS)  # of unlike machines
    events: list[tuple[float, int, Any, bool]] = []
    idle, spent = list(range(WORKERS)), 0.0
    while schedule.unfinished:
        start = time.perf_counter()
        while idle and (attempt := schedule.next(idle[-1])) is not None:
            worker = idle.pop()
            takes = len(attempt.shard) * PER_RECORD / speed[worker]
            dies = rng.exponential(3600 / rate) if rate else np.inf
            heapq.heappush(events, (now[0] + min(takes, dies), worker, attempt, dies < takes))
        spent += time.perf_counter() - start
        if not events:
            break
        moment, worker, attempt, lost = heapq.heappop(events)
        now[0] = moment
        start = time.perf_counter()
        if attempt is None:
            idle.append(worker)
        elif lost:
            schedule.lost(attempt)
            heapq.heappush(events, (moment + RESTART, worker, None, False))
        else:
            schedule.answered(attempt)
            idle.append(worker)
        spent += time.perf_counter() - start
    ideal = RECORDS * PER_RECORD / speed.sum()
    return {
        "part": "scale",
        "preemptions_per_worker_hour": rate,
        "records": RECORDS,
        "workers": WORKERS,
        "shard": SHARD,
        "shards": len(shards),
        "hours": now[0] / 3600,
        "hours_ideal": ideal / 3600,
        "efficiency": ideal / now[0],
        "redone_share": schedule.issued / RECORDS - 1,
        "schedule_seconds": spent,
        "schedule_seconds_per_shard": spent / len(shards),
        "answers_per_second": len(shards) / now[0],
        "driver_gigabytes": RECORDS * (8 + 4 + 1) / 1e9,  # ids, scores, which are fresh
        "weights_gigabytes_sent": WEIGHTS * WORKERS / PER_NODE / 1e9,
        "ids_gigabytes_sent": RECORDS * 8 / 1e9,
        "scores_gigabytes_received": RECORDS * 4 / 1e9,
    }
