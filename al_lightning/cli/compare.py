"""``al-lightning compare``: several methods, same model, same labels, same recipe; every cost on one table."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from al_lightning.callbacks.loggers import closing
from al_lightning.cli.build import (
    BadOption,
    Parts,
    be_quiet,
    build,
    compose_config,
    evaluate,
    part,
)
from al_lightning.cli.progress import RoundsBar
from al_lightning.cli.say import say_error
from al_lightning.errors import ActiveLearningError, Interrupted, UnknownFlops
from al_lightning.history import RoundRecord
from al_lightning.report.environment import environment
from al_lightning.report.plots import plot_comparison
from al_lightning.report.table import comparison_table, print_table, summarise
from al_lightning.run.describe import differing
from al_lightning.run.interrupts import stoppable

USAGE = """\
usage: al-lightning compare [option=value ...]

  methods=[...]  files in conf/experiment; default: {methods}
  seeds=[0,1,2]  one run per method and seed
  out=runs/demo  where runs, compare.json and compare.png go; runs that are finished there are not made again
  metric=NAME    what counts as accuracy, logged by the model's test_step; default: {metric}

Every other option goes to the runs: labels=200, data=..., trainer.max_epochs=10, prices.hour=1.5.
al-lightning run --help lists them."""

_NOT_THE_RUN = ("about", "logger", "out", "prices", "run_dir")
"""Keys that may differ between a finished run and the comparison that reads it."""


def compare(arguments: Sequence[str]) -> int:
    """Compare, and write and print what came of it.

    Args:
        arguments: overrides, the verb excluded.

    Returns:
        Exit code: 0, 1 for an error of this library or of the configuration, 130 after Ctrl-C, 143
        after SIGTERM.
    """
    from hydra.errors import HydraException

    be_quiet()
    warnings.filterwarnings("ignore", "classes .* have no labelled record")  # it is among each run's reasons
    try:
        comparison = Comparison.of(arguments)
        if comparison is None:
            return 0
        with stoppable(f"{comparison.out}; finished runs are kept"):
            comparison.run(Console())
    except (ActiveLearningError, HydraException) as error:
        say_error(error)
        return 1
    except Interrupted as stop:
        return int(stop.code)  # type: ignore[arg-type]
    return 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold what is compared.

    Args:
        methods: names of experiments.
        seeds: one run per method and seed.
        out: folder of the runs and of the results.
        metric: what counts as accuracy.
        overrides: of every run.
        command: as typed.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    metric: str
    overrides: tuple[str, ...]
    command: str

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Comparison | None:
        """Read a command line; None after ``--help``."""
        default = compose_config("compare", [])
        if any(a in ("-h", "--help") for a in arguments):
            print(USAGE.format(methods=f"[{','.join(default.methods)}]", metric=default.metric))
            return None
        own = [a for a in arguments if a.split("=")[0] in default]
        cfg = compose_config("compare", own)
        command = " ".join(["al-lightning compare", *arguments])
        others = tuple(a for a in arguments if a not in own)
        return cls(
            methods=tuple(cfg.methods),
            seeds=tuple(cfg.seeds),
            out=Path(cfg.out),
            metric=cfg.metric,
            overrides=others,
            command=command,
        )

    def config(self, method: str, seed: int) -> DictConfig:
        """The configuration of one run."""
        folder = self.out / method / f"seed-{seed}"
        fixed = [f"experiment={method}", "logger=none", f"seed={seed}", f"run_dir='{folder}'"]
        return compose_config("run", [*fixed, *self.overrides])

    def run(self, console: Console) -> Path:
        """Make every run that is not there yet, then report.

        Args:
            console: shows progress, the table and where the files are.

        Returns:
            Path of ``compare.json``.
        """
        # Seed by seed, method by method, so that a machine that slows down slows all methods.
        runs = [(method, self.config(method, seed)) for seed in self.seeds for method in self.methods]
        rows, reused = [], 0
        with RoundsBar(console, runs=len(runs)) as bar:
            for method, cfg in runs:
                measured = _Measured(cfg, method, self.metric, bar)
                rows.append(measured.row())
                reused += measured.reused
                bar.finish()
        return self._report(console, rows, runs[0][1], reused)

    def _report(self, console: Console, rows: list[dict[str, Any]], cfg: DictConfig, reused: int) -> Path:
        rows.sort(key=lambda row: (self.methods.index(row["method"]), row["seed"]))
        summary = summarise(rows)
        about = {method: self.config(method, self.seeds[0]).about for method in self.methods}
        prices = part(cfg, "prices")
        result = {
            "command": self.command,
            "environment": environment(),
            "prices": {"label": prices.label, "hour": prices.hour, "currency": prices.currency},
            "methods": about,
            "rows": rows,
            "summary": summary,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "compare.json"
        _write(path, result)
        fewest = min(rows, key=lambda row: row["labels"])
        title = f"{len(self.seeds)} seeds, {fewest['labels']:,} labels, same model and recipe"
        picture = plot_comparison(
            rows, self.out / "compare.png", unit=fewest["flops_reference"], labels=fewest["labels"], title=title
        )
        validation = fewest["labels_bought"] - fewest["labels"]
        caption = (
            f"labels: {validation} of them for validation; money: {prices}\n"
            "ρ: all compute / one training on the labels a method ended with, in FLOPs and in seconds"
        )
        print_table(console, comparison_table(summary, caption=caption))
        for method, line in about.items():
            console.print(f"  {method}: {line}", highlight=False, markup=False, soft_wrap=True)
        if reused:
            note = f"{reused} of {len(rows)} runs were finished before: read from {self.out}, not measured again."
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        console.print(f"{path}\n{picture}", highlight=False, markup=False, soft_wrap=True)
        return path


class _Measured:
    """One run of a comparison, made or read, as a row."""

    def __init__(self, cfg: DictConfig, method: str, metric: str, bar: RoundsBar) -> None:
        self._cfg, self._method, self._metric, self._bar = cfg, method, metric, bar
        self._folder = Path(cfg.run_dir)
        self._points = self._folder / "curve.json"
        self.curve: list[dict[str, Any]] = json.loads(self._points.read_text()) if self._points.exists() else []
        self.reused = False
        self._check_settings()

    def _check_settings(self) -> None:
        """Refuse to read a run that was made with other settings."""
        now: Any = OmegaConf.to_container(self._cfg, resolve=True)
        now = {key: value for key, value in now.items() if key not in _NOT_THE_RUN}
        path = self._folder / "settings.json"
        if not path.exists():
            _write(path, now)
            return
        wrong = differing(json.loads(path.read_text()), now)
        if wrong:
            changes = "\n".join(f"  {k}: {a!r} there, {b!r} now" for k, (a, b) in wrong.items())
            raise BadOption(
                f"{self._folder} was made with other settings:\n{changes}\nDelete the folder, or choose another out=."
            )

    def row(self) -> dict[str, Any]:
        """Run, or read, and measure."""
        parts: Parts | None = None

        def on_round(record: RoundRecord, model: L.LightningModule) -> None:
            assert parts is not None
            self._bar.update(record)
            self._add(record, self._accuracy(parts._replace(model=model)))

        parts = build(self._cfg, on_round)
        fresh = len(self.curve)
        self._bar.begin(
            f"{self._method}, seed {self._cfg.seed}", parts.pool.size if not self._cfg.get("stop") else self._cfg.labels
        )
        with closing(parts.loggers):
            result = parts.fit()
            if not result.bill.knows_flops:
                raise UnknownFlops("a comparison of compute", result.bill.flops_unknown)
            last = result.history[-1]
            if not self.curve or self.curve[-1]["flops"] != last.cost["flops"]:
                # Killed after a fit and before its point was written: the delivered weights are still there.
                self._add(last, self._accuracy(parts))
        self.reused = len(self.curve) == fresh
        self._bar.update(last)
        bill = result.bill.to_json()
        taken = ("records_trained", "records_inferred", "flops", "flops_reference", "rho", "seconds")
        more = ("seconds_reference", "rho_seconds", "money")
        return {
            "method": self._method,
            "seed": self._cfg.seed,
            "labels": len(result.labelled),
            "labels_bought": bill["labels"],
            "accuracy": self.curve[-1]["accuracy"],
            "rounds": sum(not record.final for record in result.history),
            **{name: bill[name] for name in (*taken, *more)},
            "phases": bill["phases"],
            "reason": str(result.reason),
            "curve": self.curve,
        }

    def _accuracy(self, parts: Parts) -> float:
        metrics = evaluate(parts)
        if self._metric not in metrics:
            raise BadOption(f"metric={self._metric}: not among {', '.join(metrics) or 'no metrics'} of the test data.")
        return 100 * metrics[self._metric]

    def _add(self, record: RoundRecord, accuracy: float) -> None:
        self.curve.append(
            {
                "labels": record.labelled,
                "accuracy": accuracy,
                "flops": record.cost["flops"],
                "seconds": record.cost["seconds"],
                "final": record.final,
            }
        )
        _write(self._points, self.curve)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    aside.replace(path)
