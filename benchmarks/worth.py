"""What labels are worth, as benchmark runs have shown it: what the planner's defaults are fitted to."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.planning.efficiency import Efficiency, Observation, even, growing
from benchmarks.common import RESULTS
from benchmarks.protocols import source_of
from benchmarks.savings import labels_to_match

Row = dict[str, Any]
LEARN_SEEDS, CLAIM_SEEDS = range(3), range(3, 6)
"""Of schedules: what labels are worth is fitted to the first, the claim is about the second."""
RUN_ROUNDS = {"letter": (1, 2, 3, 4, 6, 8, 12, 16), "banking77": (1, 2, 3, 4, 6, 8, 12, 20)}
GROWN = {"letter": ((3, 2.0), (5, 1.8257), (9, 1.3529)), "banking77": ((3, 2.0), (4, 2.0), (9, 1.4))}
"""Rounds that grow, and by how much, to learn from."""


def _savings() -> dict[str, dict[str, Row]]:
    """Protocol -> method -> its line of the savings results."""
    found: dict[str, dict[str, Row]] = {}
    for path in sorted(Path(RESULTS).glob("savings-*.json")):
        lines = json.loads(path.read_text())["summary"]
        found[path.stem.removeprefix("savings-")] = {line["method"]: line for line in lines}
    return found


def observations() -> dict[str, list[Observation]]:
    """What the savings results have shown of rounds, weights reset and the whole pool scored, by protocol."""
    found: dict[str, list[Observation]] = {}
    for name, summary in _savings().items():
        base = summary["baseline"]
        for method in ("random", "round_sizes_only"):
            if method in summary:
                row = summary[method]
                worth = row["labels_to_match"] / base["labels_to_match"]
                seen = Observation(even(round(row["rounds"])), even(round(base["rounds"])), worth)
                found.setdefault(name, []).append(seen)
    return found


def frugal_worth(efficiency: Efficiency) -> dict[str, float]:
    """What a label is worth under the preset's other levers, by protocol."""
    found = {}
    for name, summary in _savings().items():
        ours, base = summary["frugal"], summary["baseline"]
        rounds = efficiency.worth(even(round(ours["rounds"]))) / efficiency.worth(even(round(base["rounds"])))
        found[name] = ours["labels_to_match"] / base["labels_to_match"] / rounds
    return found


def small_rounds(rows: Sequence[Row]) -> list[tuple[int, float]]:
    """Labels and the mean accuracy of the smallest rounds, as a curve that does not fall."""
    curves = [row["curve"] for row in rows if "curve" in row]
    mean = np.mean([[value for _, value in curve] for curve in curves], axis=0)
    return list(zip([n for n, _ in curves[0]], np.maximum.accumulate(mean).tolist(), strict=True))


def learnt_from(rows: Sequence[Row], name: str) -> list[Observation]:
    """What the schedules of a protocol have shown, beside its smallest rounds."""
    mine = [row for row in rows if row["protocol"] == name and row["seed"] in LEARN_SEEDS]
    shapes = [*((n, 1.0) for n in RUN_ROUNDS[name]), *GROWN[name]]
    small = even(max(RUN_ROUNDS[name]))
    points = small_rounds(mine)
    found = []
    for n, growth in shapes:
        own = [row["accuracy"] for row in mine if (row["rounds"], row["growth"]) == (n, growth)]
        matched = labels_to_match(points, statistics.mean(own))
        found.append(Observation(growing(n, growth), small, matched / points[-1][0]))
    return found


def prior(schedules: Sequence[Row], without: str = "") -> tuple[Efficiency, dict[str, float]]:
    """What labels are worth, and what they are under the preset's other levers by protocol.

    Args:
        schedules: rows of the schedules that were run.
        without: leaves out all that was learnt from this source of data.
    """
    seen = [o for name, some in observations().items() if source_of(name) != without for o in some]
    seen += [o for name in RUN_ROUNDS if source_of(name) != without for o in learnt_from(schedules, name)]
    efficiency = Efficiency.fit(seen)
    worth = {name: w for name, w in frugal_worth(efficiency).items() if source_of(name) != without}
    return efficiency, worth
