"""``write_report``: what runs came to, as one HTML page that needs no network, and as PNGs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from al_lightning import __version__
from al_lightning.errors import ActiveLearningError
from al_lightning.report import charts, classes, panels
from al_lightning.report.groups import Group, differences, grouped, half_width
from al_lightning.report.panels import Panel
from al_lightning.report.people import voices
from al_lightning.report.read import find
from al_lightning.report.records import Show, records
from al_lightning.report.runs import ReportedRun, main_metric
from al_lightning.report.table import si
from al_lightning.run.durable import write_aside
from al_lightning.run.reading import checked

if TYPE_CHECKING:
    from jinja2 import Environment

    from al_lightning.pool.datamodule import PoolDataModule

_UNITS = {"seconds": "s", "minutes": "min", "hours": "h"}
_IDS = 400  # of a round are listed; al-lightning export has them all

Legend = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Hold what was written.

    Args:
        page: the HTML file.
        pictures: the PNGs beside it.
        left_out: a sentence for each run of a sweep that could not be read.
    """

    page: Path
    pictures: tuple[Path, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """Panels of one section, drawn together as one PNG."""

    name: str
    panels: list[Panel]
    legend: Legend


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    metric: str | None = None,
    pool: PoolDataModule | None = None,
    show: Show | None = None,
) -> Report:
    """Write ``report.html`` and its PNGs. Runs are only read, also while they are worked on.

    One run gets its whole story; several are compared, runs that differ in their seed alone as one line with a band.

    Args:
        folders: run folders, or folders of sweeps.
        out: the folder to write to; made if it does not exist.
        metric: what counts as accuracy, a name that the module logs; default: the first that is no loss.
        pool: the data of the one run, to show records and the pool's own class balance; nothing is built from what a
            run folder holds.
        show: what the model sees of a record -> a picture or a text; default: images and text as they are.

    Raises:
        ActiveLearningError: no run is there, it has not begun, or a newer version wrote it; the metric was never
            logged.
        DamagedFile: a run's database holds what no run wrote.
        PoolChanged: the data is not the run's.
        CannotWrite: the disk is full, or ``out`` cannot be written.
    """
    runs, left_out = find([Path(folder) for folder in folders])
    if pool is not None and len(runs) > 1:
        raise ActiveLearningError(f"records are shown in the report of one run, and {len(runs)} were given. Give one.")
    metric = main_metric(runs, metric)
    if len(runs) == 1:
        context, drawn = _one(runs[0], metric, pool, show)
    else:
        context, drawn = _several(runs, metric)
    html = _render({**context, "metric": metric, "left_out": left_out}, drawn)
    out = Path(out)
    pictures = []
    for chart in drawn:
        picture = panels.png(chart.panels, chart.legend)
        path = out / f"{chart.name}.png"
        write_aside(path, lambda file, picture=picture: file.write(picture))  # type: ignore[misc]
        pictures.append(path)
    page = out / "report.html"
    write_aside(page, lambda file: file.write(html.encode()))
    return Report(page=page, pictures=tuple(pictures), left_out=tuple(left_out))


# ---- one run ----------------------------------------------------------------------------------------------------


def _one(
    run: ReportedRun, metric: str | None, pool: PoolDataModule | None, show: Show | None
) -> tuple[dict[str, Any], list[_Chart]]:
    if pool is not None:
        with checked(run.folder):
            pool.check_fingerprint(run.saved.meta["fingerprint"])
    known = [] if pool is None else classes.sampled_labels(pool)
    with checked(run.folder):
        found, people = classes.balance(run, known), voices(run)
    shown, source = records(run, pool, show)
    drawn = []
    if run.curve(metric):
        group = Group(name=run.name, runs=(run,), settings={})
        drawn.append(_Chart(name="accuracy", panels=charts.curves([group], str(metric), _currency([run])), legend=[]))
    if run.bill.lines:
        legend = [(phase, charts.phase_colour(phase)) for phase in run.bill.lines]
        drawn.append(_Chart(name="bill", panels=charts.bills(run), legend=legend))
    if run.saved.queries:
        drawn.append(_Chart(name="picks", panels=[charts.picks(run)], legend=[]))
    if found is not None:
        drawn.append(_Chart(name="classes", panels=[classes.panel(found)], legend=[]))
    context = {
        "title": run.name,
        "run": run,
        "rounds": _rounds(run),
        "balance": found,
        "shown": shown,
        "shown_source": source,
        "decisions": _decisions([run]),
        "people": people,
        "settings": run.settings,
        "most_ids": _IDS,
    }
    return context, drawn


def _rounds(run: ReportedRun) -> list[dict[str, Any]]:
    """A row per query and final fit: what was asked and answered, and what was trained on it."""
    rows: list[dict[str, Any]] = []
    trained = {record.round: record for record in run.saved.rounds}
    for round, ids in enumerate(run.saved.queries, start=1):
        answers = [i for i in ids if i in run.saved.answers]
        labels = [i for i in answers if i in run.labels]
        counts = {"queried": len(ids), "answered": len(labels), "refused": len(answers) - len(labels)}
        rows.append({"name": str(round), "ids": ids, **counts, "record": trained.get(round)})
    if run.saved.final is not None:
        rows.append({"name": "final fit", "ids": [], "record": run.saved.final})
    return rows


# ---- several ----------------------------------------------------------------------------------------------------


def _several(runs: list[ReportedRun], metric: str | None) -> tuple[dict[str, Any], list[_Chart]]:
    groups = grouped(runs)
    drawn = []
    if any(run.curve(metric) for run in runs):
        legend = [(group.name, charts.group_colour(i)) for i, group in enumerate(groups)]
        drawn.append(_Chart(name="accuracy", panels=charts.curves(groups, str(metric), _currency(runs)), legend=legend))
    phases = charts.phases_of(runs)
    if phases:
        legend = [(phase, charts.phase_colour(phase)) for phase in phases]
        drawn.append(_Chart(name="bill", panels=charts.group_bills(groups), legend=legend))
    context = {
        "title": f"{len(runs)} runs, {len(groups)} configurations",
        "runs": [
            {"run": run, "group": group.name, "cells": _row(run, metric)} for group in groups for run in group.runs
        ],
        "groups": [_summary(group, metric, charts.group_colour(i)) for i, group in enumerate(groups)],
        "differences": differences(groups),
        "decisions": _decisions(runs),
    }
    return context, drawn


QUANTITIES = ("metric", "labels", "flops", "seconds", "money", "rho")
"""What a comparison shows of every run, in the order of its columns."""


def _row(run: ReportedRun, metric: str | None) -> dict[str, float | None]:
    curve, bill = run.curve(metric), run.bill
    last = run.trained[-1].cost if run.trained else {}
    return {
        "metric": curve[-1]["accuracy"] if curve else None,
        "labels": len(run.labels),
        "flops": bill.flops,
        "seconds": bill.seconds,
        "money": bill.money if run.prices else last.get("money"),
        "rho": bill.rho or last.get("rho") or None,
    }


def _summary(group: Group, metric: str | None, colour: str) -> dict[str, Any]:
    """Mean and half a 95 % confidence interval of every quantity that all runs of a group have."""
    rows = [_row(run, metric) for run in group.runs]
    cells: dict[str, Any] = {}
    for name in QUANTITIES:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        half = half_width(stdev(known), len(known)) if len(known) > 1 else None
        cells[name] = {"mean": fmean(known), "half": half} if len(known) == len(values) else None
    finished = sum(run.standing[0] == "finished" for run in group.runs)
    return {"name": group.name, "n": len(rows), "finished": finished, "cells": cells, "colour": colour}


# ---- both -------------------------------------------------------------------------------------------------------


def _currency(runs: Sequence[ReportedRun]) -> str:
    found = {run.prices.currency for run in runs if run.prices}
    return found.pop() if len(found) == 1 else "money"


def _decisions(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Every stop, abort and restart with its reason; and fits that took more than one attempt."""
    rows = []
    for run in runs:
        for round, reason in zip(run.reason_rounds, run.saved.reasons, strict=False):
            numbers = reason.numbers if isinstance(reason.numbers, dict) else {"numbers": reason.numbers}
            rows.append(
                {"run": run.name, "round": round, "kind": reason.kind, "sentence": reason.sentence, "numbers": numbers}
            )
        for record in run.trained:
            if record.attempts > 1:
                what = f"trained in {record.attempts} attempts, the last one from weights drawn anew"
                rows.append(
                    {"run": run.name, "round": record.round, "kind": "restart", "sentence": what, "numbers": {}}
                )
    return rows


def _render(context: dict[str, Any], drawn: Sequence[_Chart]) -> str:
    from markupsafe import Markup

    found = {
        chart.name: {
            "panels": [{"panel": panel, "svg": Markup(panels.svg(panel))} for panel in chart.panels],
            "legend": chart.legend,
        }
        for chart in drawn
    }
    kind = "run.html" if "run" in context else "runs.html"
    return _environment().get_template(kind).render(**context, charts=found, version=__version__)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Whatever comes from a run folder is text: autoescape is what keeps it so.
    environment = Environment(
        loader=PackageLoader("al_lightning.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=_shown, theme=lambda colour: f"s{panels.SERIES.index(colour)}", compact=_compact)
    return environment


def _shown(value: float, form: str) -> str:
    """A number as people read it: ``metric``, ``count``, ``si``, ``money``, ``duration``, ``percent``, ``half``."""
    if math.isnan(value):
        return "unknown"
    if form == "duration":
        unit, seconds = charts.time_unit(value)
        return f"{value / seconds:,.3g} {_UNITS[unit]}"
    if form == "count":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    if form == "money":
        return f"{value:,.2f}" if value >= 1 or not value else f"{value:.3g}"
    half = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return {"si": si(value), "percent": f"{value:.1%}", "half": half}.get(form, f"{value:,.4g}")


def _compact(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
