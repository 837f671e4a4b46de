"""How a benchmark says what it measured, where, and whether it holds."""

from __future__ import annotations

import json
import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L

from al_lightning.report.environment import environment
from al_lightning.report.groups import half_width

RESULTS = Path(__file__).parent / "results"
UNFINISHED = Path(__file__).parents[1] / "runs" / "benchmarks"

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


def claim(name: str, value: float, op: str, target: float) -> dict[str, Any]:
    """``value op target``, and whether it holds; a NaN never does."""
    return {"name": name, "value": value, "op": op, "target": target, "holds": bool(_OPERATORS[op](value, target))}


def barebones_trainer(max_epochs: int) -> L.Trainer:
    """A Trainer that only trains: no logger, no checkpoints, nothing on the screen."""
    return L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def paired(rows: Sequence[Mapping[str, Any]], a: str, b: str, key: str = "accuracy") -> tuple[float, float]:
    """Mean of the accuracy of method a minus that of b over the seeds both have, and its 95 % interval's half-width.

    By Student's t: at three seeds the interval is twice as wide as a normal one. Rows are one per ``method`` and
    ``seed``, with ``accuracy`` (or another ``key``) in percent.
    """
    by = {(row["method"], row["seed"]): row[key] for row in rows}
    differences = [value - by[b, seed] for (method, seed), value in by.items() if method == a and (b, seed) in by]
    return statistics.mean(differences), float(half_width(statistics.stdev(differences), len(differences)))


class Share(NamedTuple):
    """A ratio of two means, and its 95 % interval; infinite where the lower mean may be 0."""

    value: float
    low: float
    high: float


def gain_kept(
    rows: Sequence[Mapping[str, Any]], method: str, best: str, floor: str = "random", key: str = "accuracy"
) -> Share:
    """Return the share that a method keeps of what another gains over random labels, with Fieller's 95 % interval.

    A share of one seed is worth little where the gain is small, so means are divided, not shares averaged. The interval
    holds every share whose paired difference is not told from 0 by Student's t (Fieller, 1954).

    Args:
        rows: one per ``method`` and ``seed``.
        method: whose share.
        best: whose gain is 1.
        floor: what both are held against.
        key: what is compared.
    """
    by = {(row["method"], row["seed"]): row[key] for row in rows}
    seeds = [seed for m, seed in by if m == floor and (method, seed) in by and (best, seed) in by]
    gain = [by[best, s] - by[floor, s] for s in seeds]
    kept = [by[method, s] - by[floor, s] for s in seeds]
    n, mean_gain, mean_kept = len(seeds), statistics.mean(gain), statistics.mean(kept)
    value = mean_kept / mean_gain if mean_gain else math.nan
    # (mean_kept - share * mean_gain)^2 = t^2 / n * variance(kept - share * gain), a quadratic in the share
    squared = [float(half_width(math.sqrt(v), n)) ** 2 for v in (statistics.variance(gain), statistics.variance(kept))]
    both = math.prod(squared) ** 0.5 * _correlation(gain, kept)
    a, b, c = mean_gain**2 - squared[0], mean_kept * mean_gain - both, mean_kept**2 - squared[1]
    if mean_gain <= 0 or a <= 0:
        return Share(value, -math.inf, math.inf)
    root = math.sqrt(max(0.0, b**2 - a * c))
    return Share(value, (b - root) / a, (b + root) / a)


def _correlation(x: Sequence[float], y: Sequence[float]) -> float:
    return statistics.correlation(x, y) if min(statistics.pstdev(x), statistics.pstdev(y)) > 0 else 0.0


def write_results(
    name: str,
    command: str,
    rows: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    *,
    folder: Path = RESULTS,
    **extra: Any,
) -> Path:
    """Write ``results/<name>.json``, a row a line, whole or not at all.

    Args:
        name: of the benchmark, and of its file.
        command: what writes this file, as typed from the root of the source tree.
        rows: raw measurements, one per seed and setting.
        claims: what :func:`claim` returned.
        folder: where to.
        **extra: further JSON-able keys, for example what was chosen.
    """
    head = {"benchmark": name, "command": command, "environment": environment(), **extra}
    fields = [f"{_json(key)}: {_json(value)}" for key, value in head.items()]
    fields += [f"{_json(key)}: [\n  {_lines(value)}\n ]" for key, value in (("claims", claims), ("rows", rows))]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    aside = path.with_suffix(".json.tmp")
    aside.write_text("{\n " + ",\n ".join(fields) + "\n}\n")
    aside.replace(path)
    return path


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _lines(values: Sequence[Mapping[str, Any]]) -> str:
    return ",\n  ".join(_json(value) for value in values)
