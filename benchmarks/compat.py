"""Whether what trains in Lightning trains here unchanged, and what cannot work is refused before anything is spent.

    OMP_NUM_THREADS=1 python -m benchmarks.compat

- *shapes*: every module, data and Trainer of the tests' table, held against plain Lightning on the same records.
- *mistakes*: every mistake of the tests' table: refused by name, and how many labels and steps it had cost by then.
- *rho*: presets that keep a rho, with Trainers that validate seldom, often, and in the middle of an epoch, and with
  picks that compare records by themselves.
- *preflight*: seconds of the rehearsal before a run on the handwritten digits, the median of each preset's runs.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from al_lightning.cli.build import be_quiet, build, compose_config, register_resolvers
from al_lightning.errors import ActiveLearningError
from benchmarks.common import claim, write_results
from tests.compat.harness import outcome
from tests.compat.mistakes import MISTAKES, refused
from tests.compat.more_shapes import MORE_SHAPES
from tests.compat.shapes import SHAPES

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.compat"
PRESETS = {
    "frugal": ["experiment=frugal"],
    "frugal, 1.5 trainings": ["experiment=frugal", "fit.rho=1.48", "round_size.rounds=10", "candidates.spend=0.3"],
    "frugal, 2 trainings": ["experiment=frugal", "fit.rho=1.98", "round_size.rounds=14", "candidates.spend=0.4"],
    "frugal_clusters": ["experiment=frugal_clusters"],
    "proxy": ["experiment=proxy"],
}
PICKS: dict[str, list[str]] = {
    "k-center": ["query=kcenter"],
    "k-means": ["query=kmeans", "fit.rho=1.48"],
    "BADGE": ["query=badge"],
    "TypiClust": ["query=typiclust"],
    "TypiClust, 9 trainings": ["query=typiclust", "fit.rho=9"],
    "ProbCover, 3 trainings": ["query=prob_cover", "fit.rho=2.98"],
    "density": ["query=information_density"],
    "k-means at first": ["initial=kmeans"],
    "k-means at first, 1.5 trainings": ["initial=kmeans", "fit.rho=1.48"],
    "TypiClust at first, 2 trainings": ["initial=typiclust", "fit.rho=1.98"],
    "SEALS, 2 trainings": ["candidates=seals", "fit.rho=1.98"],
    "coverage, 2.5 trainings": ["stop=pool_covered", "fit.rho=2.48"],
}
"""Picks and measures that compare records by themselves; on top of ``frugal``."""
CADENCES: dict[str, list[str]] = {
    "as the preset": [],
    "every epoch": ["trainer.callbacks=[]", "+trainer.check_val_every_n_epoch=1"],
    "every third epoch": ["trainer.callbacks=[]", "+trainer.check_val_every_n_epoch=3"],
    "twice an epoch": ["trainer.callbacks=[]", "+trainer.check_val_every_n_epoch=1", "+trainer.val_check_interval=0.5"],
    "seldom": ["trainer.callbacks=[]", "+trainer.check_val_every_n_epoch=1000"],
}
LABELS = (60, 120, 400)
Row = dict[str, Any]


def shapes() -> Iterator[Row]:
    """Hold every shape against plain Lightning."""
    for shape in [*SHAPES, *MORE_SHAPES]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = outcome(shape, Path(folder))
                yield {"part": "shapes", "name": shape.name, "identical": not found.broken, "broken": found.broken}
            except Exception as error:
                yield {"part": "shapes", "name": shape.name, "identical": False, "broken": [repr(error)[:200]]}


def mistakes() -> Iterator[Row]:
    """Make every mistake."""
    for mistake in MISTAKES:
        found = refused(mistake)
        yield {
            "part": "mistakes",
            "name": mistake.name,
            "refused_before_spending": found.refused,
            "labels": found.labels,
            "steps": found.steps,
            "raw": found.error is not None and not isinstance(found.error, ActiveLearningError),
        }


def rho() -> Iterator[Row]:
    """Run every preset with every cadence; a refusal in advance keeps rho too."""
    picks = [(f"frugal, {name}", ["experiment=frugal", *chosen], ["as the preset"]) for name, chosen in PICKS.items()]
    for preset, chosen, cadences in [*((name, chosen, CADENCES) for name, chosen in PRESETS.items()), *picks]:
        for cadence in cadences:
            for labels in LABELS:
                row = {"part": "rho", "preset": preset, "cadence": cadence, "labels": labels}
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        yield {**row, **_run([*chosen, *CADENCES[cadence], f"labels={labels}"], Path(folder))}
                    except ActiveLearningError as error:
                        yield {**row, "refused": str(error)[:200]}


def _run(overrides: list[str], folder: Path) -> Row:
    cfg = compose_config("run", ["logger=none", *overrides])
    cfg.run_dir = str(folder / "run")
    parts = build(cfg)
    result = parts.fit()
    lines = result.bill.lines
    assert result.bill.rho is not None
    return {
        "asked": cfg.fit.rho,
        "rho": result.bill.rho,
        "preflight_seconds": lines["preflight"].seconds if "preflight" in lines else 0.0,
    }


def main(arguments: list[str]) -> None:
    """Make all parts and write the results."""
    if arguments:
        raise SystemExit(f"no arguments are taken: {COMMAND}")
    be_quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    register_resolvers()
    rows: list[Row] = []
    for part in (shapes, mistakes, rho):
        for row in part():
            print(row, flush=True)
            rows.append(row)
    write_results("compat", COMMAND, rows, claims_of(rows))


def claims_of(rows: list[Row]) -> list[Row]:
    """Claims, each decided before the rows were made."""
    of = {part: [row for row in rows if row["part"] == part] for part in ("shapes", "mistakes", "rho")}
    ran = [row for row in of["rho"] if "rho" in row]
    return [
        claim("shapes", len(of["shapes"]), ">=", 60),
        claim("shapes_identical_share", _share(of["shapes"], "identical"), "==", 1),
        claim("mistakes", len(of["mistakes"]), ">=", 40),
        claim("refused_before_spending_share", _share(of["mistakes"], "refused_before_spending"), "==", 1),
        claim("raw_errors", sum(row["raw"] for row in of["mistakes"]), "==", 0),
        claim("rho_overshoot_max", max(row["rho"] - row["asked"] for row in ran), "<=", 0.02),
        claim("preflight_seconds", max(_preflights(ran).values()), "<=", 1),
    ]


def _preflights(ran: list[Row]) -> dict[str, float]:
    """Return the median seconds of each preset's rehearsals: one of eighty may be another program's turn."""
    found: dict[str, list[float]] = {}
    for row in ran:
        found.setdefault(row["preset"], []).append(row["preflight_seconds"])
    return {preset: median(seconds) for preset, seconds in found.items()}


def _share(rows: list[Row], key: str) -> float:
    return sum(bool(row[key]) for row in rows) / len(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
