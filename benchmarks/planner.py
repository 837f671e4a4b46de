"""Does the plan come true? ``python -m benchmarks.planner``; ``--part fast``, ``forecast``, ``schedule``, ``verdict``.

- ``forecast``: what runs come to, foreseen after one round, against what they came to (benchmarks/forecasts.py).
- ``fast``: the optimiser against brute force under the same model, a plan for a pool of a billion, what counting FLOPs
  adds to a run, and what labels are worth, fitted to the savings results.
- ``schedule``: the planned rounds run beside eight others on letter and banking77, a quarter of their labels, margin
  and reset weights. What labels are worth is fitted to the other protocol's runs with seeds 0 to 2, rounds that grow
  among them; the claim is about seeds 3 to 5. Neither seed is one of the savings results' claims. Costs are at equal
  accuracy: money per label that small rounds would have needed.
- ``verdict``: whether active learning is worth it, said and measured (benchmarks/verdicts.py).

Rows of a part are kept under ``runs/benchmarks/planner``. Where a part is not run again they are read there, else from
the results file.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import lightning.pytorch as L
from omegaconf import OmegaConf, open_dict

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import RotatingSubset
from al_lightning.cli.build import be_quiet, build
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.prices import Prices
from al_lightning.history import RoundRecord
from al_lightning.planning.architectures import architecture
from al_lightning.planning.efficiency import FRUGAL_WORTH, Efficiency
from al_lightning.planning.planner import Way, plan
from al_lightning.planning.project import Project
from al_lightning.planning.schedule import LEAST_FIRST, best_schedule, growing, schedule
from benchmarks.common import RESULTS, UNFINISHED, claim, write_results
from benchmarks.forecasts import RUNS, measure
from benchmarks.pilots import references
from benchmarks.protocols import pool_and_test, recipe
from benchmarks.savings import Scale, configure, labels_to_match, quality
from benchmarks.verdicts import verdicts
from benchmarks.worth import CLAIM_SEEDS, GROWN, LEARN_SEEDS, RUN_ROUNDS, learnt_from, prior, small_rounds

Row = dict[str, Any]
FOLDER = UNFINISHED / "planner"
SEEDS = range(3)
FRUGAL = Way(
    sizes=(),
    policy=WarmStart(
        "keep",
        first_epochs=0.36,
        epochs=0.12,
        final="previous",
        final_epochs=0.25,
        final_average=0.5,
        rho=0.98,
        stable=True,
    ),
    candidates=RotatingSubset(0.3, spend=0.22),
    worth=FRUGAL_WORTH,
)
REGIMES = (0.01, 0.05, 0.2)
"""Money of one training on the labels / money of the labels."""


# ---- fast -------------------------------------------------------------------------------------------------------


def against_grid() -> list[Row]:
    """The optimiser beside brute force, over models, prices and ways."""
    growths = (1, 1.02, 1.04, 1.06, 1.08, 1.1, 1.13, 1.16, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6, 1.75, 1.9, 2)
    grid = [(n, g) for n in range(1, 51) for g in growths if (n > 1 or g == 1) and growing(n, g)[0] >= LEAST_FIRST]
    rows = []
    for name, pool, labels, epochs in (("resnet152", 1_200_000, 200_000, 90), ("bidaf", 87_599, 20_000, 12)):
        for hour in (0.05, 0.526, 20.0, 500.0):
            for way in (Way(sizes=()), FRUGAL):
                project = Project(
                    pool=pool,
                    labels=labels,
                    epochs=epochs,
                    forward=architecture(name).forward,
                    prices=Prices(hour=hour),
                    round_money=5.0,
                )
                began = time.perf_counter()
                best = best_schedule(project, way, Efficiency())
                seconds = time.perf_counter() - began
                made = (schedule(project, way, Efficiency(), *shape) for shape in grid)
                money = [s.money for s in made if s is not None]
                rows.append(
                    {
                        "part": "grid",
                        "model": name,
                        "hour": hour,
                        "way": "reset" if way.worth == 1 else "frugal",
                        "rounds": best.rounds,
                        "growth": best.growth,
                        "ratio": best.money / min(money),
                        "schedules": len(money),
                        "seconds": seconds,
                    }
                )
    return rows


def billion() -> Row:
    """Milliseconds of a plan of 100 rounds on a pool of 1e9; the median of ten."""
    project = Project(pool=10**9, labels=10**7, epochs=90, forward=architecture("resnet152").forward)
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        plan(project, replace(FRUGAL, sizes=[10**5] * 100))
        taken.append(1e3 * (time.perf_counter() - began))
    return {"part": "billion", "ms": statistics.median(taken)}


class Timed(FlopMeter):
    """Notes how long passes take, counted ones and others."""

    taken: ClassVar[dict[str, list[float]]] = {}
    _began = 0.0

    def start(self, kind: Any, *, uncompiled: bool = False) -> None:
        self._began = time.perf_counter()
        self._counted = kind not in self.per_record
        super().start(kind, uncompiled=uncompiled)

    def stop(self, kind: Any, records: int) -> None:
        super().stop(kind, records)
        name = f"{kind}{', counted' if self._counted else ''}"
        self.taken.setdefault(name, []).append(time.perf_counter() - self._began)


def counting() -> list[Row]:
    """What counting FLOPs adds to a run: the passes that were counted, beside the median of those that were not."""
    rows = []
    for name in ("letter", "banking77"):
        Timed.taken.clear()
        with patch("al_lightning.run.run.FlopMeter", Timed), tempfile.TemporaryDirectory() as folder:
            parts = build(configure(name, Scale.of(name, True), "baseline", 0, Path(folder) / "run"))
            result = parts.fit()
        kinds = [kind for kind in Timed.taken if not kind.endswith(", counted")]
        more = sum(sum(Timed.taken[f"{kind}, counted"]) - statistics.median(Timed.taken[kind]) for kind in kinds)
        rows.append({"part": "counting", "run": name, "seconds": result.bill.seconds, "more": more})
    return rows


def fast() -> list[Row]:
    """All that takes seconds."""
    return [*against_grid(), billion(), *counting()]


def forecast() -> list[Row]:
    """Every run, every seed."""
    return [measure(name, seed) for name in RUNS for seed in SEEDS]


# ---- schedules that are run -------------------------------------------------------------------------------------


def planned_shapes(rows: Sequence[Row], name: str) -> dict[float, tuple[int, float]]:
    """The planned number of rounds and their growth for each price of a training."""
    others = [o for other in RUN_ROUNDS if other != name for o in learnt_from(rows, other)]
    scale, chosen, efficiency = Scale.of(name, True), recipe(name), Efficiency.fit(others)
    size = len(pool_and_test(name, 0)[0])
    found = {}
    for regime in REGIMES:
        # In units of a label: one training on the labels costs regime x labels.
        project = Project(
            pool=size,
            labels=scale.labels,
            epochs=chosen["epochs"],
            forward=1e6,
            train=2.5e6,
            forward_seconds=0.4,
            train_seconds=1.0,
            prices=Prices(label=1.0, hour=3600 * regime / chosen["epochs"]),
        )
        best = best_schedule(project, Way(sizes=()), efficiency)
        found[regime] = best.rounds, round(best.growth, 4)
    return found


def run_schedule(name: str, sizes: Sequence[int], seed: int, *, curve: bool) -> Row:
    """Run margin with these rounds, weights reset, the whole pool scored."""
    points: list[tuple[int, float]] = []

    def on_round(record: RoundRecord, model: L.LightningModule) -> None:
        points.append((record.labelled, quality(model, name, seed)["accuracy"]))

    with tempfile.TemporaryDirectory() as folder:
        cfg = configure(name, Scale.of(name, True), "baseline", seed, Path(folder) / "run")
        with open_dict(cfg):
            cfg.round_size = OmegaConf.create({"_target_": "al_lightning.round_size.Listed", "sizes": list(sizes)})
        parts = build(cfg, on_round if curve else None)
        result = parts.fit()
    row = {"part": "schedule", "protocol": name, "rounds": len(sizes), "sizes": list(sizes), "seed": seed}
    row |= {"accuracy": quality(parts.model, name, seed)["accuracy"], "rho": result.bill.rho}
    return {**row, **({"curve": points} if curve else {})}


def run_schedules() -> list[Row]:
    """Those to learn from, the eight, and the planned ones; the labels are the same for all."""
    rows: list[Row] = []
    path = RESULTS / "planner.json"
    known = [row for row in json.loads(path.read_text())["rows"] if row["part"] == "schedule"] if path.exists() else []

    def make(name: str, n: int, growth: float, seeds: Sequence[int]) -> None:
        shares = [0.0, *growing(n, growth)]
        ends = [round(share * Scale.of(name, True).labels) for share in shares]
        sizes, smallest = [b - a for a, b in pairwise(ends)], n == max(RUN_ROUNDS[name])
        for seed in seeds:
            same = (r for r in known if (r["protocol"], r["sizes"], r["seed"]) == (name, sizes, seed))
            row = next(same, None) or run_schedule(name, sizes, seed, curve=smallest)
            rows.append({**row, "growth": growth})
            print(name, n, growth, seed, row["accuracy"], flush=True)

    for name, numbers in RUN_ROUNDS.items():
        for n in numbers:
            make(name, n, 1.0, [*LEARN_SEEDS, *CLAIM_SEEDS])
        for n, growth in GROWN[name]:
            make(name, n, growth, LEARN_SEEDS)
    for name, numbers in RUN_ROUNDS.items():
        for n, growth in sorted(set(planned_shapes(rows, name).values())):
            if growth > 1 or n not in numbers:
                make(name, n, growth, CLAIM_SEEDS)
    return rows


def costs(rows: Sequence[Row], name: str, regime: float) -> dict[tuple[int, float], float]:
    """Money of each schedule at equal accuracy, in labels of small rounds."""
    mine = [row for row in rows if row["protocol"] == name and row["seed"] in CLAIM_SEEDS]
    points = small_rounds(mine)
    found = {}
    for key in {(row["rounds"], row["growth"]) for row in mine}:
        own = [row for row in mine if (row["rounds"], row["growth"]) == key]
        matched = labels_to_match(points, statistics.mean(row["accuracy"] for row in own))
        rho = statistics.mean(row["rho"] for row in own)
        found[key] = (1 + regime * rho) * points[-1][0] / matched
    return found


def worst_schedule(rows: Sequence[Row]) -> tuple[float, list[Row]]:
    """Planned / best of the eight, at its worst, and every comparison."""
    table: list[Row] = []
    for name in RUN_ROUNDS:
        for regime, planned in planned_shapes(rows, name).items():
            found = costs(rows, name, regime)
            best = min((found[n, 1.0], n) for n in RUN_ROUNDS[name])
            table.append(
                {
                    "protocol": name,
                    "training_over_labels": regime,
                    "planned_rounds": planned[0],
                    "planned_growth": planned[1],
                    "best_rounds": best[1],
                    "ratio": found[planned] / best[0],
                }
            )
    return max(row["ratio"] for row in table), table


# ---- together ---------------------------------------------------------------------------------------------------


def verdict_rows() -> list[Row]:
    """Whether active learning is worth it, said and measured."""
    schedules = rows_of("schedule", again=False)
    known = references()
    seen = [{"part": "verdict", "kind": "reference", "source": s, **r._asdict()} for s, r in known.items()]
    return [*seen, *verdicts(FRUGAL, lambda source: prior(schedules, without=source), known)]


PARTS: dict[str, Callable[[], list[Row]]] = {
    "fast": fast,
    "forecast": forecast,
    "schedule": run_schedules,
    "verdict": verdict_rows,
}
ROWS = {"fast": ("grid", "billion", "counting")}
"""What the rows of a part are called, where not by its name."""


def rows_of(part: str, again: bool) -> list[Row]:
    """A part's rows: made, or read where they were kept, else from the results file."""
    path, results = FOLDER / f"{part}.json", RESULTS / "planner.json"
    kept: list[Row] = []
    if not again and path.exists():
        kept = json.loads(path.read_text())
    elif not again and results.exists():
        names = ROWS.get(part, (part,))
        kept = [row for row in json.loads(results.read_text())["rows"] if row["part"] in names]
    if not kept:
        kept = PARTS[part]()
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    return kept


def claims_of(rows: Sequence[Row], worst: float) -> list[Row]:
    """The claims, each from its rows."""

    def of(part: str) -> list[Row]:
        return [row for row in rows if row["part"] == part]

    def error(quantity: str) -> float:
        runs: dict[str, list[float]] = {}
        for row in of("forecast"):
            runs.setdefault(row["run"], []).append(abs(row[f"{quantity}_foreseen"] / row[quantity] - 1))
        return max(statistics.mean(errors) for errors in runs.values())

    judged = [row for row in of("verdict") if row["kind"] == "judged"]
    learnable = [row for row in judged if not row["dataset"].endswith("-shuffled")]

    return [
        claim("flops_error_max", error("flops"), "<=", 0.05),
        claim("seconds_error_max", error("seconds"), "<=", 0.15),
        claim("schedule_against_grid", max(row["ratio"] for row in of("grid")), "<=", 1.02),
        claim("schedule_seconds", max(row["seconds"] for row in of("grid")), "<", 1.0),
        claim("schedules_in_grid", min(row["schedules"] for row in of("grid")), ">=", 200),
        claim("schedule_run_against_best_run", worst, "<=", 1.10),
        claim("plan_1e9_ms", of("billion")[0]["ms"], "<=", 50.0),
        claim("flop_counting_overhead", max(row["more"] / row["seconds"] for row in of("counting")), "<=", 0.005),
        claim("verdict_accuracy", statistics.mean(row["right_after_labels"] for row in judged), ">=", 0.9),
        claim("verdict_accuracy_pilot_of_pool", statistics.mean(row["right_after_pool"] for row in judged), ">=", 0.9),
        claim(
            "verdict_accuracy_unless_shuffled",
            statistics.mean(row["right_after_labels"] for row in learnable),
            ">=",
            0.9,
        ),
        claim("verdict_data_sets", len({row["dataset"] for row in judged}), ">=", 10),
    ]


def main() -> None:
    """Make what is missing, or a part again, and write."""
    parser = argparse.ArgumentParser(description="The planner against what runs came to.")
    parser.add_argument("--part", choices=PARTS, help="make this part again, and write nothing but its rows")
    asked = parser.parse_args().part
    be_quiet()
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    if asked:
        rows_of(asked, again=True)
        return
    rows = [row for part in PARTS for row in rows_of(part, again=False)]
    schedules = [row for row in rows if row["part"] == "schedule"]
    efficiency, worth = prior(schedules)
    worst, table = worst_schedule(schedules)
    claims = claims_of(rows, worst)
    fitted = {**vars(efficiency), "frugal_worth": worth}
    path = write_results("planner", "python -m benchmarks.planner", rows, claims, fitted=fitted, schedules=table)
    print(*claims, fitted, *table, path, sep="\n")


if __name__ == "__main__":
    main()
