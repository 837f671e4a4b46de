"""A cluster of several nodes that are killed at random while it scores."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from typing import Any

import numpy as np

from al_lightning.scoring.kept import Gathered
from al_lightning.scoring.ray import scorer as ray_scorer
from al_lightning.scoring.ray.cluster import imported
from al_lightning.scoring.ray.scorer import RayScorer
from al_lightning.scoring.ray.team import Member
from al_lightning.scoring.shards import Attempt, Schedule, Shard
from al_lightning.scoring.trainer import TrainerScorer

NODES, SHARDS, SHARD, SHARD_SECONDS = 5, 100, 256, 2.0


class Nodes:
    """Nodes of one worker each, on a head without any; kills and replaces them.

    Args:
        probability: of an attempt at a shard to be doomed.
        seed: of which, and when.
    """

    def __init__(self, probability: float, seed: int) -> None:
        imported()
        from ray.cluster_utils import Cluster

        self._probability, self._rng = probability, np.random.default_rng(seed)
        # Hooks at exit could only be set from the main thread, which is not the one that adds nodes.
        head = {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self._nodes = {node.node_id: node for node in [self.cluster.add_node(num_cpus=1) for _ in range(NODES)]}
        self.kills, self._orders = 0, queue.Queue[str | None]()
        self._reaper = threading.Thread(target=self._reap, daemon=True)
        self._reaper.start()

    def begun(self, attempt: Attempt) -> None:
        """An attempt at a shard has begun: perhaps it will not end."""
        if self._rng.random() < self._probability and isinstance(attempt.worker, Member):
            moment = self._rng.uniform(0, SHARD_SECONDS)
            threading.Timer(moment, self._order, [attempt.worker.actor._actor_id.hex()]).start()

    def _order(self, actor: str) -> None:
        import ray

        self._orders.put(ray._private.state.actors(actor)["Address"]["NodeID"])

    def _reap(self) -> None:
        while (name := self._orders.get()) is not None:
            node = self._nodes.pop(name, None)
            if node is not None:
                self.cluster.remove_node(node, allow_graceful=False)
                self.kills += 1
                another = self.cluster.add_node(num_cpus=1)
                self._nodes[another.node_id] = another

    def close(self) -> None:
        """End the cluster."""
        import ray

        self._orders.put(None)
        self._reaper.join()
        ray.shutdown()
        self.cluster.shutdown()


def chaos(probability: float, *, seed: int) -> list[dict[str, Any]]:
    """A row of what became of one call, in which attempts at shards are doomed with this probability."""
    import ray

    from benchmarks.distributed_models import Waiting, ask, model_of, pool_of

    nodes = Nodes(probability, seed)
    written = np.zeros(SHARDS * SHARD, dtype=np.int64)
    schedules: list[Schedule] = []

    class Doomed(Schedule):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            schedules.append(self)

        def next(self, worker: Any) -> Attempt | None:
            attempt = super().next(worker)
            if attempt is not None:
                nodes.begun(attempt)
            return attempt

    class Counted(Gathered):
        def add(self, shard: Shard, arrays: dict[str, np.ndarray]) -> None:
            written[shard.start : shard.start + len(shard)] += 1
            super().add(shard, arrays)

    scorer = RayScorer(shard_size=SHARD)
    model, pool = model_of(lambda: Waiting(SHARD_SECONDS / SHARD)), pool_of(SHARDS * SHARD)
    ours = ray_scorer.Schedule, ray_scorer.Gathered
    ray_scorer.Schedule, ray_scorer.Gathered = Doomed, Counted  # type: ignore[misc]
    try:
        ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        start = time.monotonic()
        found = ask(scorer, pool, model)
        seconds = time.monotonic() - start
    finally:
        ray_scorer.Schedule, ray_scorer.Gathered = ours  # type: ignore[misc]
        scorer.close()
        nodes.close()
    here = ask(TrainerScorer(), pool, _quick(model))
    row = {
        "part": "chaos",
        "preemption": probability,
        "seed": seed,
        "nodes": NODES,
        "shards": SHARDS,
        "shard_seconds": SHARD_SECONDS,
        "kills": nodes.kills,
        "records": pool.size,
        "executed": schedules[0].issued,
        "redone_share": schedules[0].issued / pool.size - 1,
        "lost": int(np.sum(written == 0)),
        "duplicated": int(np.sum(written > 1)),
        "same": bool(np.array_equal(found.arrays["score"], here.arrays["score"])),
        "seconds": seconds,
        "load": os.getloadavg()[0],
    }
    return [row]


def _quick(model: Any) -> Any:
    model.seconds = 0.0
    return model
