"""The recipe, chosen before anything is compared: the cheapest single training that trains well.

rho divides by one training on the final labels, so a recipe that trains longer than it needs flatters it. Two stages:

1. A grid of batch size, learning rate, epochs and schedule trains on B random labels, a few seeds each. It stops at
   batches of 16: smaller ones cost the same FLOPs and more seconds.
2. For each number of epochs, the two best settings that are near the best of all train again, on many seeds that the
   grid never saw. A few seeds cannot tell 0.2 points from luck: the best would look better than it is, and the
   recipe be longer than it needs to be.

Of the finalists, a setting is good when its mean accuracy is within ``TOLERANCE`` points of the best. The cheapest good
one is the recipe: fewest records trained, then fewest optimiser steps, then the higher accuracy.

Accuracy is on records that are neither trained on nor in the test split, all of them or the first ``HELD_OUT``: more
than the validation records a run would buy, so that the choice is not noise. A seed's test records are not read. On
letter every seed uses the split of seed 0, which no comparison reports.

    python -m benchmarks.recipe letter
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from math import ceil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import lightning as L
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from al_lightning.cli.problems import SCHEDULES, Classifier, digits
from benchmarks.common import UNFINISHED, claim, write_results
from benchmarks.protocols import PROTOCOLS, pool_and_test

TOLERANCE = 0.2
"""Points of accuracy below the best at which a setting is still good."""
NEAR = 1.0
"""Points of accuracy below the best of the grid at which a setting may be a finalist."""
HELD_OUT = 10_000
GRID_SEEDS = range(2)
FINAL_SEEDS = range(20, 32)

Data = Dataset[tuple[torch.Tensor, ...]]
Row = dict[str, Any]


@dataclass(frozen=True, order=True)
class Setting:
    """One point of the grid."""

    epochs: int
    batch: int
    learning_rate: float
    schedule: str


@dataclass(frozen=True)
class Problem:
    """What a recipe is searched for.

    Args:
        labels: B, the records one training gets.
        data: seed -> B random records to train on, and the records to score on, no test record among them.
        model: setting -> fresh model.
        grid: the settings.
        seeds: of the finalists' runs.
        grid_seeds: of the grid's runs; none: every setting is a finalist.
        trainer: further settings of the Trainer.
    """

    labels: int
    data: Callable[[int], tuple[Data, Data]]
    model: Callable[..., L.LightningModule]
    grid: tuple[Setting, ...]
    seeds: range = FINAL_SEEDS
    grid_seeds: range = GRID_SEEDS
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def steps(self, setting: Setting) -> int:
        """Optimiser steps of one training."""
        return setting.epochs * ceil(self.labels / setting.batch)


def _grid(*axes: Iterable[Any]) -> tuple[Setting, ...]:
    return tuple(Setting(*point) for point in product(*axes))


def _digits(seed: int) -> tuple[Data, Data]:
    splits = digits(seed)
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed)).tolist()
    return Subset(splits.train, order[:400]), ConcatDataset([Subset(splits.train, order[400:]), splits.val])


def _of(name: str, grid: tuple[Setting, ...], seeds: range = FINAL_SEEDS, grid_seeds: range = GRID_SEEDS) -> Problem:
    protocol = PROTOCOLS[name]

    def random_labels(seed: int) -> tuple[Data, Data]:
        pool, _ = pool_and_test(name, 0)
        x, y = pool.tensors
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        bought, held_out = order[: protocol.labels], order[protocol.labels :][:HELD_OUT]
        return TensorDataset(x[bought], y[bought]), TensorDataset(x[held_out], y[held_out])

    return Problem(protocol.labels, random_labels, protocol.model, grid, seeds, grid_seeds, protocol.trainer)


PROBLEMS = {
    "digits": Problem(
        labels=400,
        data=_digits,
        model=partial(Classifier, 64, 10),
        grid=_grid((6, 9, 12, 16, 24, 40), (16, 32, 64), (1e-2, 3e-2, 1e-1), SCHEDULES),
        seeds=range(100, 120),
    ),
    "letter": _of("letter", _grid((12, 16, 20, 24, 30), (32, 64), (4e-3, 8e-3, 1.6e-2), SCHEDULES)),
    "banking77": _of("banking77", _grid((4, 6, 8, 10, 15), (32, 64), (2e-3, 4e-3, 8e-3), SCHEDULES)),
    "fashion-mnist": _of("fashion-mnist", _grid((5, 8, 12), (32, 64), (2e-3, 4e-3), SCHEDULES), range(20, 26)),
    "pretrained": _of("pretrained", _grid((3, 5), (32,), (2e-4, 4e-4, 8e-4), ("onecycle",)), range(20, 23), range(0)),
    "fashion-mnist-resnet18": _of(
        "fashion-mnist-resnet18",
        _grid((4, 6, 9, 13), (64,), (1e-3, 2e-3, 4e-3), ("onecycle",)),
        range(20, 23),
        range(0),
    ),
    # Five epochs at most: what the protocol is about is scoring.
    "inference-heavy": _of("inference-heavy", _grid((3, 4, 5), (16, 32), (2e-3, 4e-3), SCHEDULES), range(20, 26)),
}


def train(problem: Problem, setting: Setting, seed: int) -> Row:
    """Train once, and score."""
    records, held_out = problem.data(seed)
    L.seed_everything(seed, verbose=False)
    model = problem.model(learning_rate=setting.learning_rate, schedule=setting.schedule)
    settings = {"accelerator": "cpu", **problem.trainer}
    trainer = L.Trainer(max_epochs=setting.epochs, devices=1, barebones=True, **settings)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # nothing is logged or validated here: on purpose
        trainer.fit(model, DataLoader(records, setting.batch, shuffle=True))
    seconds = time.perf_counter() - start
    right = total = 0
    model.to(trainer.strategy.root_device).eval()  # Lightning takes it back to the CPU
    with torch.inference_mode():
        for x, y in DataLoader(held_out, 512):
            right += int((model(x.to(model.device)).argmax(dim=1).cpu() == y).sum())
            total += len(y)
    return {**asdict(setting), "seed": seed, "accuracy": round(100 * right / total, 4), "seconds": round(seconds, 3)}


def measure(problem: Problem, runs: Iterable[tuple[Setting, int]], path: Path) -> Iterator[Row]:
    """A row per run: read from ``path`` when it is there, else trained and appended to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {_key(row): row for row in known}
    with path.open("a") as file:
        for setting, seed in runs:
            key = _key({**asdict(setting), "seed": seed})
            if key not in done:
                done[key] = train(problem, setting, seed)
                print(json.dumps(done[key]), file=file, flush=True)
            yield done[key]


def _key(row: Row) -> tuple[Any, ...]:
    return (*(row[name] for name in Setting.__dataclass_fields__), row["seed"])


def accuracies(rows: Iterable[Row]) -> dict[Setting, list[float]]:
    """The accuracy of every seed, by setting."""
    found: dict[Setting, list[float]] = {}
    for row in rows:
        setting = Setting(*(row[name] for name in Setting.__dataclass_fields__))
        found.setdefault(setting, []).append(row["accuracy"])
    return found


def shortlist(rows: Iterable[Row]) -> list[Setting]:
    """For each number of epochs, the two best settings of the grid that are near the best of all."""
    means = _means(rows)
    ranked = sorted((s for s in means if means[s] >= max(means.values()) - NEAR), key=lambda s: -means[s])
    return [s for s in sorted(ranked) if s in [r for r in ranked if r.epochs == s.epochs][:2]]


def choose(problem: Problem, rows: Iterable[Row]) -> tuple[Setting, Setting]:
    """The recipe, and the setting with the best mean accuracy."""
    means = _means(rows)
    best = max(means, key=lambda s: means[s])
    good = [s for s in means if means[s] >= means[best] - TOLERANCE - 1e-9]
    return min(good, key=lambda s: (s.epochs, problem.steps(s), -means[s])), best


def _means(rows: Iterable[Row]) -> dict[Setting, float]:
    return {setting: mean(values) for setting, values in accuracies(rows).items()}


def summarise(problem: Problem, rows: Iterable[Row]) -> list[Row]:
    """Per finalist, cheapest first: mean accuracy, and points below the best with the standard error over seeds."""
    rows = list(rows)
    (_, best), found, table = choose(problem, rows), accuracies(rows), []
    for setting, values in sorted(found.items()):
        gaps = [b - v for b, v in zip(found[best], values, strict=True)]
        error = stdev(gaps) / len(gaps) ** 0.5
        numbers = {"accuracy": mean(values), "points_below_best": mean(gaps), "standard_error": error}
        table.append(
            {**asdict(setting), "steps": problem.steps(setting)} | {k: round(v, 3) for k, v in numbers.items()}
        )
    return table


def search(name: str) -> bool:
    """Measure both stages, choose, write the results; returns whether every claim holds."""
    problem = PROBLEMS[name]
    path = UNFINISHED / f"recipe-{name}.jsonl"
    grid = list(measure(problem, product(problem.grid, problem.grid_seeds), path))
    finalists = shortlist(grid) if grid else problem.grid
    finals = list(measure(problem, product(finalists, problem.seeds), path))
    recipe, best = choose(problem, finals)
    means = _means(finals)
    cheaper = [means[best] - means[s] for s in means if s.epochs < recipe.epochs]
    claims = [claim("recipe_points_below_best", round(means[best] - means[recipe], 3), "<=", TOLERANCE)]
    if cheaper:
        claims.append(claim("fewer_epochs_points_below_best", round(min(cheaper), 3), ">", TOLERANCE))
    table = summarise(problem, finals)
    written = write_results(
        f"recipe-{name}",
        f"python -m benchmarks.recipe {name}",
        [{**row, "stage": "grid"} for row in grid] + [{**row, "stage": "final"} for row in finals],
        claims,
        recipe={**asdict(recipe), "labels": problem.labels, "steps": problem.steps(recipe)},
        finalists=table,
    )
    path.unlink()
    _report(table, claims, {best: "best", recipe: "recipe"})
    print(written)
    return all(c["holds"] for c in claims)


def _report(table: list[Row], claims: list[Row], marks: dict[Setting, str]) -> None:
    print("epochs batch    rate schedule  steps accuracy  below best")
    for r in table:
        mark = marks.get(Setting(*(r[name] for name in Setting.__dataclass_fields__)), "")
        print(
            f"{r['epochs']:>6} {r['batch']:>5} {r['learning_rate']:>7g} {r['schedule']:<9} {r['steps']:>5} "
            f"{r['accuracy']:>8.2f}  {r['points_below_best']:.2f} ± {r['standard_error']:.2f} {mark}"
        )
    for c in claims:
        print(f"{c['name']}: {c['value']} {c['op']} {c['target']}: {'holds' if c['holds'] else 'DOES NOT HOLD'}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problem", choices=sorted(PROBLEMS))
    name = parser.parse_args().problem
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return 0 if search(name) else 1


if __name__ == "__main__":
    sys.exit(main())
