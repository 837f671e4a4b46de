"""Is the verdict right? Asked of data sets on which every way was run, negative controls among them.

Data sets are the protocols of the savings results, and smaller ones that are run here: clean ones, ones whose labels
are shuffled for 60 % of the records and for all of them, and pools a tenth larger than what is bought. The question is
always the same: which way to a model as good as ordinary active learning makes with B labels, half a point of accuracy
allowed, costs the least money?

What is right, from runs:

- ordinary active learning: its B labels and its seconds.
- this schedule: the frugal preset. Where its B labels are as good as m of ordinary active learning, it takes B * B / m,
  and as much more compute. At the preset's own ten rounds, however many the verdict would run.
- random labels, one training: between the numbers of random labels that were run, error falls as a power of labels; no
  fewer than the smallest that was run, no more than the pool holds.
- label everything: the pool, and one training on it.

A verdict is right where its way costs at most 5 % more than the cheapest, at the default prices and at three prices of
an hour beside labels.

What the verdict knows: the size of the pool, B, the recipe, the prices, what a record costs, and the labels of a pilot.
A pilot that trains on 1 % of the labels shows what a record costs for 1 % of the money of a training on all; here it is
read off a training on the machine that the money was measured on. What labels are worth is fitted to the savings
results without the data sets of the same source.

Of the pilot's labels it is asked whether they say anything (benchmarks/pilots.py). "1 % of the budget" is read twice:

- 1 % of B: of what is bought. 4 to 60 labels.
- 1 % of the pool: of what labelling everything would cost. 14 to 600 labels, up to a fifth of B. Most are fewer than
  the first round buys at random anyway; what is more is not put on the bill.

Twenty pilots each; how far a verdict is right is the share of pilots after which it is.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np

from al_lightning.cost.prices import Prices
from al_lightning.planning.efficiency import Efficiency
from al_lightning.planning.planner import Way
from al_lightning.planning.project import Project
from al_lightning.planning.signal import Reference
from al_lightning.planning.verdict import EVERYTHING, ORDINARY, RANDOM, THIS, verdict
from benchmarks.common import RESULTS, UNFINISHED
from benchmarks.pilots import Pilots, pilots
from benchmarks.protocols import FOR_VERDICTS, recipe, source_of
from benchmarks.savings import MAIN, Scale, labels_to_match, measure

Row = dict[str, Any]
SEEDS = range(3)
SAVINGS = (
    "letter",
    "banking77",
    "fashion-mnist",
    "inference-heavy",
    "pretrained",
    "long-tail",
    "fashion-mnist-resnet18",
)
METHODS = ("everything", "random", "baseline", "frugal")
REGIMES = (0.05, 0.5, 5.0)
"""Money of one training on the labels / money of the labels, beside the default prices; from dear labels to dear hours.
"""
EQUAL = 0.5
"""Points of accuracy that a way may stay below ordinary active learning's, and count as good."""
NEAR = 1.05
"""A way that costs at most so many times the cheapest is right."""


# ---- runs -------------------------------------------------------------------------------------------------------


def runs(name: str) -> list[Row]:
    """Every way, every seed: read from the savings results or the planner's own, or made here."""
    if name in SAVINGS:
        rows = json.loads((RESULTS / f"savings-{name}.json").read_text())["rows"]
        return [row for row in rows if row["method"] in METHODS]
    protocol, rows = FOR_VERDICTS[name], []
    scale = Scale(protocol.labels, protocol.first, protocol.step, SEEDS, {m: MAIN[m] for m in METHODS})
    half = replace(scale, labels=scale.labels // 2)
    known = [row for row in _known() if row["dataset"] == name]
    if len(known) == len(SEEDS) * (len(METHODS) + 1):
        return [{key: value for key, value in row.items() if key not in ("part", "kind", "dataset")} for row in known]
    for seed in SEEDS:
        for method, size in (("random", half), *((m, scale) for m in METHODS)):
            folder = UNFINISHED / f"verdict-{name}" / f"{method}-{size.labels}" / f"seed-{seed}"
            row = measure(name, size, method, seed, folder)
            kept = {key: value for key, value in row.items() if key not in ("settings", "environment", "phases")}
            rows.append({**kept, "scored_flops": row["phases"].get("score", 0.0)})
            print(name, method, size.labels, seed, row["accuracy"], file=sys.stderr, flush=True)
    return rows


def _known() -> list[Row]:
    """Runs that the results file has; they are not made again."""
    path = RESULTS / "planner.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if row["part"] == "verdict" and row["kind"] == "run"]


@dataclass(frozen=True)
class Measured:
    """What the runs of a data set came to: means over seeds.

    Args:
        pool: records to label.
        labels: B.
        needed: labels that each way takes.
        trainings: seconds of each way / those of one training on B labels, each run beside a training that was timed in
            the same run: machines were not equally busy.
        training: seconds of one training on B labels.
        train: FLOPs of a record's forward and backward pass.
        forward: those of inferring it.
    """

    pool: int
    labels: int
    needed: dict[str, float]
    trainings: dict[str, float]
    training: float
    train: float
    forward: float

    @classmethod
    def of(cls, rows: Sequence[Row], epochs: int) -> Measured:
        """From the runs of a data set."""
        by: dict[tuple[str, float], list[Row]] = {}
        most = {m: max(row["labels"] for row in rows if row["method"] == m) for m in METHODS}
        for row in rows:
            # A long tail's pool differs by the seed.
            size = most["everything"] if row["method"] == "everything" else row["labels"]
            by.setdefault((row["method"], size), []).append(row)

        def mean(method: str, key: str) -> float:
            return statistics.mean(row[key] for row in by[method, most[method]])

        def trainings(method: str, needed: float) -> float:
            timed = (row["seconds"] / row["seconds_reference"] for row in by[method, most[method]])
            return statistics.mean(timed) * needed / labels

        pool, labels = mean("everything", "labels"), most["baseline"]
        points = rising([row["curve"] for row in by["baseline", labels]])
        matched = labels_to_match(points, mean("frugal", "accuracy") + EQUAL)
        frugal = min(labels * labels / matched, pool)
        tried = sorted(
            (statistics.mean(row["labels"] for row in some), statistics.mean(row["accuracy"] for row in some))
            for (method, _), some in by.items()
            if method in ("random", "everything")
        )
        tried.insert(0, points[0])  # ordinary active learning begins with random labels, too
        at_random = random_labels(tried, mean("baseline", "accuracy") - EQUAL)
        base = by["baseline", labels][0]
        scored = base["scored_flops"] if "scored_flops" in base else base["phases"]["score"]
        return cls(
            pool=round(pool),
            labels=labels,
            needed={EVERYTHING: pool, RANDOM: at_random, ORDINARY: labels, THIS: frugal},
            trainings={
                EVERYTHING: trainings("everything", pool),
                RANDOM: trainings("random", at_random),
                ORDINARY: trainings("baseline", labels),
                THIS: trainings("frugal", frugal),
            },
            training=mean("random", "seconds_reference"),
            train=mean("random", "flops_reference") / (labels * epochs),
            forward=scored / base["records_inferred"],
        )

    def money(self, prices: Prices) -> dict[str, float]:
        """What each way costs."""
        training = self.training / 3600 * prices.hour
        return {way: n * prices.label + self.trainings[way] * training for way, n in self.needed.items()}


def rising(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Labels and the mean accuracy of runs that had as many, as a curve that does not fall."""
    seen: dict[float, list[float]] = {}
    for labels, accuracy in chain.from_iterable(curves):
        seen.setdefault(labels, []).append(accuracy)
    means = np.maximum.accumulate([statistics.mean(seen[labels]) for labels in sorted(seen)])
    return list(zip(sorted(seen), means.tolist(), strict=True))


def random_labels(tried: Sequence[tuple[float, float]], accuracy: float) -> float:
    """Random labels that an accuracy takes: error falls as a power of labels between the numbers that were tried.

    Args:
        tried: labels and accuracy in percent, ascending.
        accuracy: to be reached; what takes more or fewer labels than were tried is not extrapolated.
    """
    if accuracy <= tried[0][1]:
        return tried[0][0]
    for (n0, a0), (n1, a1) in pairwise(tried):
        if a0 < accuracy <= a1:
            share = math.log((100 - accuracy) / (100 - a0)) / math.log((100 - a1) / (100 - a0))
            return n0 * (n1 / n0) ** share
    return tried[-1][0]


# ---- verdicts ---------------------------------------------------------------------------------------------------


def prices_of(found: Measured) -> dict[str, Prices]:
    """The default prices, and hours that make one training cost so much beside its labels."""
    label = Prices().label
    return {"default": Prices()} | {
        f"a training {regime:g} times its labels": Prices(hour=regime * found.labels * label * 3600 / found.training)
        for regime in REGIMES
    }


def judge(
    name: str, found: Measured, way: Way, efficiency: Efficiency, after: Mapping[str, Pilots] | None = None
) -> list[Row]:
    """The verdict at every price beside what is right.

    Args:
        name: of the protocol.
        found: what its runs came to.
        way: the preset's.
        efficiency: what labels are worth.
        after: the pilots of each reading of the budget; none: the labels are not looked at.
    """
    epochs, rows = recipe(name)["epochs"], []
    for about, prices in prices_of(found).items():
        money = found.money(prices)
        per_record = found.training / (found.labels * epochs)
        project = Project(
            pool=found.pool,
            labels=found.labels,
            epochs=epochs,
            forward=found.forward,
            train=found.train,
            forward_seconds=per_record * found.forward / found.train,
            train_seconds=per_record,
            prices=prices,
        )
        said = verdict(project, way, efficiency)
        cheapest = min(money, key=lambda w: money[w])

        def right(choice: str, money: dict[str, float] = money, cheapest: str = cheapest) -> bool:
            return money[choice] <= NEAR * money[cheapest]

        after_pilot = {}
        for reading, made in (after or {}).items():
            kinds = {s.finding: s for s in made.signals}
            choices = {finding: verdict(project, way, efficiency, s).choice for finding, s in kinds.items()}
            after_pilot[f"right_after_{reading}"] = statistics.mean(right(choices[s.finding]) for s in made.signals)
        rows.append(
            {
                "part": "verdict",
                "kind": "judged",
                "dataset": name,
                "prices": about,
                "verdict": said.choice,
                "cheapest": cheapest,
                "over_cheapest": money[said.choice] / money[cheapest],
                "right": right(said.choice),
                **after_pilot,
                **{f"money, {w}": m for w, m in money.items()},
            }
        )
    return rows


def verdicts(
    way: Way,
    prior: Callable[[str], tuple[Efficiency, dict[str, float]]],
    references: Mapping[str, Reference],
) -> list[Row]:
    """The runs, and the verdicts on them.

    Args:
        way: the preset's.
        prior: source of data -> what labels are worth by all but it.
        references: source of data -> what its labels look like.
    """
    rows = []
    for name in (*SAVINGS, *FOR_VERDICTS):
        made = runs(name)
        efficiency, worth = prior(source_of(name))
        found = Measured.of(made, recipe(name)["epochs"])
        if name in FOR_VERDICTS:
            rows += [{"part": "verdict", "kind": "run", "dataset": name, **row} for row in made]
        others = [reference for source, reference in references.items() if source != source_of(name)]
        after = pilots(name, others)
        rows += [{"part": "verdict", "kind": "pilot", "dataset": name, **made.to_json()} for made in after.values()]
        rows += judge(name, found, replace(way, worth=statistics.mean(worth.values())), efficiency, after)
    return rows
