"""The demo's comparison on more seeds than a demo has time for: ``python -m benchmarks.demo``.

``al-lightning compare`` on digits with 20 seeds instead of 3; nothing else differs. Runs that are finished under
``runs/benchmarks/demo`` are read, not made again, so the command can be interrupted. The preset was
chosen on letter and banking77 (benchmarks/README.md), nothing on digits but the recipe.
"""

from __future__ import annotations

import json
import statistics
import sys

from al_lightning.cli.main import main as al_lightning
from benchmarks.common import UNFINISHED, claim, paired, write_results

SEEDS = range(20)
TAKEN = (
    "labels",
    "labels_bought",
    "accuracy",
    "rounds",
    "records_trained",
    "records_inferred",
    "flops",
    "flops_reference",
    "seconds",
    "seconds_reference",
    "money",
)


def main() -> None:
    """Compare and write."""
    out = UNFINISHED / "demo"
    code = al_lightning(["compare", f"seeds=[{','.join(map(str, SEEDS))}]", f"out={out}"])
    if code:
        sys.exit(code)
    found = json.loads((out / "compare.json").read_text())
    rows = [{name: row[name] for name in ("method", "seed", *TAKEN)} for row in found["rows"]]
    pairs = {"frugal_minus_ordinary": ("frugal", "ordinary"), "frugal_minus_clusters": ("frugal", "frugal_clusters")}
    differences = {name: paired(rows, *pair) for name, pair in pairs.items()}
    mean, half = differences["frugal_minus_ordinary"]

    def rho(method: str, unit: str) -> float:
        return statistics.mean(r[unit] / r[f"{unit}_reference"] for r in rows if r["method"] == method)

    claims = [
        claim("rho", rho("frugal", "flops"), "<=", 1.0),
        claim("rho_seconds", rho("frugal", "seconds"), "<=", 1.0),
        claim("rho_ordinary", rho("ordinary", "flops"), ">=", 8.0),
        claim("accuracy_difference", mean, ">=", -0.5),
        claim("accuracy_difference_ci_low", mean - half, ">=", -0.5),
    ]
    path = write_results("demo", "python -m benchmarks.demo", rows, claims, differences=differences)
    print(*claims, differences, path, sep="\n")


if __name__ == "__main__":
    main()
