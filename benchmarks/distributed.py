"""Scoring on Ray: same query, what handing out shards costs, nodes that are killed, and Ray Data beside it.

    OMP_NUM_THREADS=1 python -m benchmarks.distributed                # all parts; what is done is not done again
    OMP_NUM_THREADS=1 python -m benchmarks.distributed compute        # one part anew, on a quiet machine
    OMP_NUM_THREADS=1 python -m benchmarks.distributed report         # none; results of the parts there are

Rows of a part that was not run here are those of the results file.

- *identical*: every strategy that infers, on two workers and in one process: payload and query, bit for bit.
- *compute*: a compute-bound model on one and on two workers. On a machine that does other work as well, the two share
  what is left of two cores: the row has the load, and the same with a calibrated wait beside it.
- *waiting*: a model whose forward pass is a calibrated wait, on 1 to 16 workers: what is measured is the orchestration.
  Efficiency is the wait that was asked for / (workers * seconds), so that all overhead counts.
- *chaos*: a cluster of several nodes, each with its own raylet and object store. Every attempt at a shard is doomed
  with a probability of 10 or 30 %: its node is killed (SIGKILL) at a random moment of it, and another one is added.
- *ray_data*: the same records and model through ``ray.data`` ``map_batches``; both from nothing, and round after round.
- *scale*: a billion records on a thousand preemptible workers, by the schedule itself on a clock that is simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np

from al_lightning import query
from al_lightning.features.cluster import Clusters, kmeans
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.scoring.question import Answers, Question
from al_lightning.scoring.ray.cluster import imported
from al_lightning.scoring.ray.scorer import RayScorer
from al_lightning.scoring.ray.team import Workers
from al_lightning.scoring.trainer import TrainerScorer
from benchmarks.common import RESULTS, UNFINISHED, claim, write_results
from benchmarks.distributed_chaos import chaos
from benchmarks.distributed_data import against_ray_data
from benchmarks.distributed_models import BATCH, CLASSES, Computing, Waiting, ask, model_of, pool_of
from benchmarks.distributed_scale import scale

Row = dict[str, Any]
FOLDER = UNFINISHED / "distributed"


@contextmanager
def warm(workers: int, cpus: float, **settings: Any) -> Iterator[RayScorer]:
    """A scorer whose workers have started."""
    scorer = RayScorer(workers=[Workers(count=workers, cpus=cpus)], **settings)
    try:
        wait = pool_of(4 * BATCH * workers)
        while True:
            ask(scorer, wait, model_of(lambda: Waiting(2e-3)))
            team = scorer._team
            if team is not None and len(team.members) == workers and all(m.left is None for m in team.members):
                break
        yield scorer
    finally:
        scorer.close()


# ---- parts -------------------------------------------------------------------------------------------------------


def strategies() -> list[Strategy]:
    """Every exported strategy that infers, with the settings it has by default, and two that are around others."""
    margin = query.Margin()
    plain = [query.Margin, query.Entropy, query.LeastConfidence, query.BADGE, query.ClusterMargin, query.VariationRatio]
    around = [
        query.DistanceWeighted(margin),
        query.InformationDensity(margin),
        query.PerCost(margin),
        query.Stochastic(margin),
    ]
    return [*(kind() for kind in plain), query.BALD(), query.Variance(), *around, query.RandomControl(margin)]


def identical() -> list[Row]:
    """Payload and query of every strategy, on two workers and in one process."""
    n, rows = 3000, []
    features = np.random.default_rng(1).normal(size=(n, 8)).astype(np.float32)
    with warm(2, 1, shard_size=256) as scorer:
        for strategy in strategies():
            task = "multiclass" if "multiclass" in strategy.tasks else "regression"
            pool = pool_of(n, task)
            model = model_of(lambda task=task: Computing(classes=CLASSES if task == "multiclass" else 1))  # type: ignore[misc]
            found = [ask(who, pool, model, Question.of(strategy, seed=5)) for who in (TrainerScorer(), scorer)]
            same = all(np.array_equal(found[0].arrays[name], found[1].arrays[name]) for name in found[0].arrays)
            picks = [_pick(strategy, one, features) for one in found]
            rows.append(
                {
                    "part": "identical",
                    "strategy": repr(strategy),
                    "records": n,
                    "same_payload": same,
                    "same_query": picks[0] == picks[1],
                    "overlap": len(set(picks[0]) & set(picks[1])) / len(picks[0]),
                }
            )
    return rows


def _pick(strategy: Strategy, found: Answers, features: np.ndarray) -> list[int]:
    def clusters(k: int) -> Clusters:
        return kmeans(features, k, seed=0)

    n = len(features)
    view = PoolView(
        size=n,
        round=1,
        unlabelled=np.arange(50, n),
        labelled=np.arange(50),
        scores=np.full(n, np.nan, np.float32),
        score_rounds=np.full(n, -1, np.int32),
        label_costs=np.linspace(1, 2, n),
        load_features=lambda: features,
        load_clusters=clusters,
        load_projected=lambda dims: features[:, :dims],
    )
    arrays = {name: values[50:] for name, values in found.arrays.items()}
    rng = np.random.default_rng(0)
    return [int(i) for i in strategy.pick(view=view, ids=view.unlabelled, arrays=arrays, size=100, rng=rng)]


def compute(repeats: int = 5) -> list[Row]:
    """One and two workers on a compute-bound model, and on one that waits, in turns."""
    rows: list[Row] = []
    n = 12_288
    pool = pool_of(n)
    cases = {"compute": model_of(lambda: Computing(hidden=1024, layers=8)), "wait": model_of(lambda: Waiting(5e-4))}
    # Half a core in Ray's books, so that there is room for three; only one side works at a time.
    with warm(1, 0.5, shard_size=1024) as one, warm(2, 0.5, shard_size=1024) as two:
        for (case, model), repeat in product(cases.items(), range(repeats)):
            sides = {"seconds_1": one, "seconds_2": two}
            seconds = {name: ask(sides[name], pool, model).wall for name in list(sides)[:: 1 if repeat % 2 else -1]}
            efficiency = seconds["seconds_1"] / (2 * seconds["seconds_2"])
            row = {"part": "compute", "case": case, "repeat": repeat, "records": n, **seconds}
            rows.append({**row, "efficiency": efficiency, "load": os.getloadavg()[0]})
    return rows


def waiting(shard_seconds: float = 2.0, shards_each: int = 6) -> list[Row]:
    """1 to 16 workers that only wait."""
    rows, shard = [], 256
    for workers in (1, 4, 16):
        shards = workers * shards_each
        model, pool = model_of(lambda: Waiting(shard_seconds / shard)), pool_of(shards * shard)
        with warm(workers, 0.1, shard_size=shard) as scorer:
            start = time.process_time()
            found = ask(scorer, pool, model)
            driver = time.process_time() - start
        rows.append(
            {
                "part": "waiting",
                "workers": workers,
                "shards": shards,
                "shard_seconds": shard_seconds,
                "seconds": found.wall,
                "efficiency": shards * shard_seconds / (workers * found.wall),
                "overhead_per_shard": (workers * found.wall - shards * shard_seconds) / shards,
                "driver_cpu_per_shard": driver / shards,
                "worker_seconds_per_shard": found.seconds / shards,
                "executed": found.records / (shards * shard),
                "load": os.getloadavg()[0],
            }
        )
    return rows


PARTS: dict[str, Callable[[], list[Row]]] = {
    "identical": identical,
    "waiting": waiting,
    "compute": compute,
    "ray_data": against_ray_data,
    "chaos_10": lambda: chaos(0.1, seed=0),
    "chaos_10_again": lambda: chaos(0.1, seed=1),
    "chaos_30": lambda: chaos(0.3, seed=0),
    "chaos_30_again": lambda: chaos(0.3, seed=1),
    "scale": scale,
}


def claims(rows: list[Row]) -> list[dict[str, Any]]:
    """What was promised, and what came of it."""

    def of(part: str, **values: Any) -> list[Row]:
        return [r for r in rows if r["part"] == part and all(r[name] == value for name, value in values.items())]

    made = [
        claim(
            "parts_missing",
            len([p for p in ("identical", "compute", "waiting", "chaos", "ray_data") if not of(p)]),
            "==",
            0,
        )
    ]
    same = [*(r["same_query"] and r["same_payload"] for r in of("identical")), *(r["same"] for r in of("chaos"))]
    if same:
        made.append(claim("identical_query", sum(same) / len(same), "==", 1))
    for name, found in (
        ("efficiency_2_workers", of("compute", case="compute")),
        ("efficiency_2_waiting_workers", of("compute", case="wait")),
        ("efficiency_16_waiting_workers", of("waiting", workers=16)),
    ):
        if found:
            made.append(claim(name, statistics.median(row["efficiency"] for row in found), ">=", 0.9))
    if of("chaos"):
        made += [claim(f"scores_{what}", sum(r[what] for r in of("chaos")), "==", 0) for what in ("lost", "duplicated")]
    for percent, most in ((10, 0.12), (30, 0.45)):
        if found := of("chaos", preemption=percent / 100):
            share = sum(r["executed"] for r in found) / sum(r["records"] for r in found) - 1
            made.append(claim(f"redone_share_at_{percent}_percent", share, "<=", most))
    if of("ray_data"):
        made.append(claim("time_against_ray_data", statistics.median(r["ratio"] for r in of("ray_data")), "<=", 1.0))
    return made


def main() -> None:
    """Run the parts that were not run yet, each in a process of its own, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"run these anew: {', '.join(PARTS)}; or report")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {*PARTS, "report"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if arguments.only:
        imported()
        (FOLDER / f"{arguments.only}.json").write_text(json.dumps(PARTS[arguments.only]()))
        return
    for name in PARTS:
        path = FOLDER / f"{name}.json"
        if name in arguments.parts or (not arguments.parts and not path.exists()):
            path.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "benchmarks.distributed", "--only", name], check=True)
    rows = [row for name in PARTS for row in _read(name)]
    made = claims(rows)
    write_results("distributed", "OMP_NUM_THREADS=1 python -m benchmarks.distributed", rows, made)
    for one in made:
        print(f"{one['name']:<32}{one['value']:>10.4g} {one['op']} {one['target']:<6} {one['holds']}")


def _read(name: str) -> list[Row]:
    """Rows of a part: of this checkout's run, else those of the results file."""
    path, committed = FOLDER / f"{name}.json", RESULTS / "distributed.json"
    if path.exists():
        rows: list[Row] = json.loads(path.read_text())
        return rows
    known = json.loads(committed.read_text())["rows"] if committed.exists() else []
    return [row for row in known if _part_of(row) == name]


def _part_of(row: Row) -> str:
    if row["part"] != "chaos":
        return str(row["part"])
    return f"chaos_{100 * row['preemption']:.0f}" + ("_again" if row["seed"] else "")


if __name__ == "__main__":
    main()
