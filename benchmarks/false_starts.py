"""How often StallDetection finds a false start, what that costs a healthy run, and whether the run is rescued.

    python -m benchmarks.false_starts tune     # development seeds: thresholds and recipes are chosen
    python -m benchmarks.false_starts          # other seeds, other test records; writes results/false_starts.json

Every run of the suite (see ``false_start_suite.py``) is made *watched*, and where it is found a second time, *left
alone*, from the same seeds. What is not found is not touched, so the watched run is the one left alone as well.

- A run is a **false start** if, left alone, it ends 3 points or more below the median of the healthy ones on its data
  set, whatever was planted. A found run that is none is a **false abort**.
- **Budget**: the FLOPs of a healthy run left alone. A false start is found within the share of it that had been spent,
  the control included; on average, and, as a claim of its own, at the 90th percentile.
- **Cost**: FLOPs that a healthy run spends more when it is watched: the control, and restarts that were for nothing.
- **Rescued**: ends no more than a point below the healthy median. A fresh selection comes on top of the labels already
  paid; the rows have them.

Rows that are finished under ``runs/benchmarks`` are read, not made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from al_lightning import ActiveLearner, PoolDataModule, StallDetection, WarmStart
from al_lightning.cli.build import be_quiet
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.query import Margin
from al_lightning.result import Result
from al_lightning.run.store import Store
from al_lightning.stop import FalseStart
from benchmarks.common import UNFINISHED, barebones_trainer, claim, write_results
from benchmarks.false_start_suite import (
    DAMAGED,
    DEVELOPMENT,
    EPOCHS,
    FAMILIES,
    HEALTHY,
    PROBLEMS,
    SEEDS,
    Frozen,
    Given,
    Numbered,
    Sizes,
    plant,
)

Row = dict[str, Any]

POINTS = 3.0
"""A run that ends so far below the healthy median is a false start."""
NEAR = 1.0
"""A rescued run may end so far below it."""
RULE: dict[str, Any] = {
    "monitor": "train_loss",
    "reference": "chance",
    "min_delta": 0.1,
    "patience": 0.5,
    "accuracy": "val_acc",  # of FalseStart, beside StallDetection
}


def run(name: str, family: str, seed: int, rules: list[Any]) -> tuple[Result, float, list[Row]]:
    """One run, the accuracy it ends with, in percent, and the stalls that were found in it."""
    p, planted = PROBLEMS[name], plant(name, family, seed)
    found = planted.records
    trainer = barebones_trainer(EPOCHS)
    trainer.check_val_every_n_epoch, trainer.num_sanity_val_steps = EPOCHS, 0
    policy = WarmStart("reset")
    with tempfile.TemporaryDirectory() as folder:
        learner = ActiveLearner(
            trainer,
            query=Margin(),
            round_size=Sizes(p.first, p.step, p.rounds),
            run_dir=Path(folder) / "run",
            fit=Frozen(policy, planted.freeze) if planted.freeze else policy,
            stop=rules,
            oracle=FunctionOracle(planted.label),
            initial=Given(planted.initial),
            stop_set=p.stop,
            seed=seed,
        )
        pool = PoolDataModule(
            Numbered(found.y),
            task="multiclass",
            val=Numbered(found.y_val, len(found.y)),
            features=found.x.numpy(),
            batch_size=len(found.y),  # see Perceptron
            eval_batch_size=1024,
        )
        result = learner.fit(planted.model, datamodule=pool)
        stalls = found_in(result.run_dir)
    with torch.inference_mode():
        rows = len(found.y) + len(found.y_val) + torch.arange(len(found.y_test))
        right = planted.model.eval()(rows).argmax(1) == found.y_test
    return result, round(100 * float(right.double().mean()), 3), stalls


def found_in(run_dir: Path) -> list[Row]:
    """The stalls of a run: why, what had been spent by then, and what was done."""
    with closing(Store(run_dir)) as store:
        reasons = store.load().reasons
    return [
        {"sentence": str(r), **{key: r.numbers[key] for key in ("cause", "spent", "remedy") if key in r.numbers}}
        for r in reasons
        if r.kind == "stall"
    ]


def measure(name: str, family: str, seed: int) -> Row:
    """A run watched and, where it was found, left alone."""
    within = {setting: value for setting, value in RULE.items() if setting != "accuracy"}
    rules = [StallDetection(**within), FalseStart(RULE["accuracy"], control=PROBLEMS[name].control)]
    watched, accuracy, stalls = run(name, family, seed, rules)
    lines, flops = watched.bill.lines, watched.bill.flops
    row: Row = {"dataset": name, "family": family, "seed": seed, "found": bool(stalls)}
    if not stalls:
        control = lines["control"].flops
        return row | {"accuracy": accuracy, "flops": flops - control, "cost": control / (flops - control)}
    alone, alone_accuracy, _ = run(name, family, seed, [])
    return row | {
        "accuracy": alone_accuracy,
        "flops": alone.bill.flops,
        "cost": flops / alone.bill.flops - 1,
        **stalls[0],
        "remedies": [stall.get("remedy", "gave_up") for stall in stalls],
        "rescued_accuracy": accuracy,
        "labels": len(alone.labelled),
        "rescued_labels": len(watched.labelled),
    }


def measured(name: str, family: str, seed: int) -> Row:
    """A row, read where it is there already."""
    path = UNFINISHED / "false_starts" / f"{name}-{family}-{seed}.json"
    settings = json.loads(json.dumps({"rule": RULE, "problem": [*vars(PROBLEMS[name]).values()][1:]}))
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.pop("settings", None) != settings:
        found = json.loads(json.dumps(measure(name, family, seed)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps({**found, "settings": settings}))
        path.with_suffix(".tmp").replace(path)
    return found


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows with what they come to beside the healthy runs of their data set."""
    found = []
    for name in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == name]
        healthy = [row for row in own if row["family"] == "healthy"]
        level, budget = median(r["accuracy"] for r in healthy), median(r["flops"] for r in healthy)
        for row in own:
            more: Row = {"false_start": row["accuracy"] <= level - POINTS, "below": round(level - row["accuracy"], 3)}
            if row["found"]:
                more |= {"found_at": round(row["spent"] / budget, 4)}
                more |= {"rescued": row["rescued_accuracy"] >= level - NEAR and "gave_up" not in row["remedies"]}
                more |= {"rescued_below": round(level - row["rescued_accuracy"], 3)}
            found.append({k: round(v, 5) if k == "cost" else v for k, v in row.items()} | more)
    return found


def share(rows: Sequence[Row], key: str) -> float:
    """Share of the rows for which it is true; NaN where there are none."""
    return mean(bool(row[key]) for row in rows) if rows else float("nan")


def table(rows: Sequence[Row]) -> list[Row]:
    """Per family, over all data sets."""
    lines = []
    for family in [family for family in FAMILIES if any(row["family"] == family for row in rows)]:
        own = [row for row in rows if row["family"] == family]
        bad = [row for row in own if row["false_start"]]
        caught = [row for row in bad if row["found"]]
        line: Row = {"family": family, "runs": len(own), "below": round(median(r["below"] for r in own), 2)}
        line |= {"false_starts": len(bad), "found": len(caught)}
        line |= {"false_aborts": sum(r["found"] for r in own if not r["false_start"])}
        line |= {"causes": {c: sum(r.get("cause") == c for r in own) for c in {r["cause"] for r in own if r["found"]}}}
        if caught:
            line |= {"found_at": round(median(r["found_at"] for r in caught), 4)}
            line |= {"rescued": sum(r["rescued"] for r in caught)}
        lines.append(line)
    return lines


def claims_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The claims, of judged rows."""
    bad, fine = ([r for r in rows if r["false_start"] is value] for value in (True, False))
    caught = [r for r in bad if r["found"]]
    by_family = [share(own, "found") for f in DAMAGED if (own := [r for r in bad if r["family"] == f])]
    return [
        claim("runs", len(rows), ">=", 300),
        claim("datasets", len({r["dataset"] for r in rows}), ">=", 3),
        claim("families_with_false_starts", len(by_family), ">=", len(DAMAGED)),
        claim("recall", share(bad, "found"), ">=", 0.9),
        claim("recall_worst_family", min(by_family), ">=", 0.7),
        claim("false_abort_rate", share(fine, "found"), "<=", 0.05),
        claim("found_within_budget_share", mean(r["found_at"] for r in caught), "<=", 0.10),
        claim("found_within_budget_share_p90", float(np.quantile([r["found_at"] for r in caught], 0.9)), "<=", 0.10),
        claim("healthy_run_cost_share", mean(r["cost"] for r in rows if r["family"] in HEALTHY), "<=", 0.03),
        claim("rescued_share", share(caught, "rescued"), ">=", 0.8),
    ]


def main() -> None:
    """Measure, and write the results, or print them for the development seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["tune"])
    tune = parser.parse_args().what == "tune"
    torch.set_num_threads(1)
    be_quiet()
    warnings.filterwarnings("ignore", ".*have no labelled record after round")
    rows: list[Row] = []
    for seed in DEVELOPMENT if tune else SEEDS:
        for name in PROBLEMS:
            rows += [measured(name, family, seed) for family in FAMILIES]
        found = judged(rows)
        claims, lines = claims_of(found), table(found)
        print(seed, *(found if tune else ()), *lines, *claims, sep="\n", flush=True)
        if not tune:
            write_results("false_starts", "python -m benchmarks.false_starts", found, claims, table=lines, rule=RULE)


if __name__ == "__main__":
    main()
