"""How a benchmark says what it measured, where, and whether it holds."""

from __future__ import annotations

import json
import operator
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from al_lightning.report.environment import environment

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

    Normal approximation; rows are one per ``method`` and ``seed``, with ``accuracy`` (or another ``key``) in percent.
    """
    by = {(row["method"], row["seed"]): row[key] for row in rows}
    differences = [value - by[b, seed] for (method, seed), value in by.items() if method == a and (b, seed) in by]
    return statistics.mean(differences), 1.96 * statistics.stdev(differences) / len(differences) ** 0.5


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
