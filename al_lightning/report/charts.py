"""The charts of a report: accuracy against cost, the bill, and what was picked when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from al_lightning.cost.ledger import PHASES
from al_lightning.report.groups import Group, half_width
from al_lightning.report.panels import SERIES, Draw, Panel
from al_lightning.report.plots import mean_curve
from al_lightning.report.runs import ReportedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vPX*<>"
# fmt: off
_PHASE = {"train": 0, "score": 1, "validate": 6, "aborted": 4, "embed": 2, "cluster": 3, "neighbours": 5, "select": 7,
          "agree": 8, "control": 9, "lost": 10, "preflight": 11}
# fmt: on
_TICKS = 1500  # more marks than that are drawn as pixels
_POINTS = 170  # height of a panel's axes
_BARS = 200  # more than that are drawn as one area: no gap between them could be seen


def phases_of(runs: Iterable[ReportedRun]) -> list[str]:
    """The phases that any of the runs has spent on, in the order of the ledger."""
    found = {phase for run in runs for phase in run.bill.lines}
    return [phase for phase in PHASES if phase in found]


def phase_colour(phase: str) -> str:
    """The colour of a phase of the ledger, the same in every chart."""
    return SERIES[_PHASE[phase]]


def group_colour(position: int) -> str:
    """The colour of a group of runs."""
    return SERIES[position % len(SERIES)]


def _prefixes(axis: Any) -> None:
    """Ticks as 250, 10 k, 1.5 M; never as powers, which would be formulas."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    small = axis.get_view_interval()[1] < 1000  # seconds are no milliseconds
    axis.set_major_formatter("{x:g}" if small else EngFormatter())
    axis.set_minor_formatter(NullFormatter())


# ---- accuracy ---------------------------------------------------------------------------------------------------


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which so much time is legible, and its seconds."""
    return next(((n, s) for n, s in (("hours", 3600.0), ("minutes", 60.0)) if seconds >= 2 * s), ("seconds", 1.0))


def curves(groups: Sequence[Group], metric: str, currency: str) -> list[Panel]:
    """Accuracy against labels, FLOPs, time and money. A band is the 95 % confidence interval of a mean over runs."""
    rows = [[{"curve": run.curve(metric)} for run in group.runs if run.curve(metric)] for group in groups]
    points = [point for own in rows for row in own for point in row["curve"]]
    unit, seconds = time_unit(max(point["seconds"] for point in points))
    scales = {"labels": 1.0, "flops": 1.0, "seconds": seconds, "money": 1.0}
    names = {"labels": "labels from the pool", "flops": "FLOPs", "seconds": f"{unit} of compute", "money": currency}
    best = max(point["accuracy"] for point in points)
    panels = []
    for x, name in names.items():

        def draw(axes: Axes, x: str = x) -> None:
            for i, own in enumerate(rows):
                if own:
                    _curve(axes, own, x, scales[x], group_colour(i), _MARKERS[i % len(_MARKERS)])
            axes.set_xlabel(names[x])
            axes.set_ylabel(metric)
            ends = [row["curve"][-1][x] for own in rows for row in own]
            if max(ends) > 3 * min(ends) > 0:
                axes.set_xscale("log")
            else:
                axes.locator_params(axis="x", nbins=6)
            _prefixes(axes.xaxis)

        low, high = (f(point[x] for point in points) / scales[x] for f in (min, max))
        alt = f"{metric} against {name}, from {low:,.4g} to {high:,.4g}; the best value is {best:.4g}."
        panels.append(Panel(name=f"accuracy-{x}", title=f"{metric} against {name}", alt=alt, draw=draw))
    return panels


def _curve(axes: Axes, rows: Sequence[dict[str, Any]], x: str, scale: float, colour: str, marker: str) -> None:
    if len(rows) > 1:
        faint = min(0.3, 2 / len(rows))  # many runs are a shade behind their mean
        for row in rows:
            xs, ys = ([point[name] for point in row["curve"]] for name in (x, "accuracy"))
            axes.plot(np.array(xs) / scale, ys, color=colour, linewidth=0.7, alpha=faint)
    mean_x, mean, sd = mean_curve(rows, x)
    mean_x = mean_x / scale
    axes.plot(mean_x, mean, color=colour, marker=marker, markersize=4, linewidth=1.8)
    if len(rows) > 1:
        half = half_width(sd, len(rows))
        axes.fill_between(mean_x, mean - half, mean + half, color=colour, alpha=0.25, linewidth=0)
        if len(mean_x) == 1:
            axes.errorbar(mean_x, mean, yerr=half, color=colour, capsize=3)
    if any(row["curve"][-1]["final"] for row in rows):
        axes.plot(mean_x[-1], mean[-1], color=colour, marker="*", markersize=11)


# ---- the bill ---------------------------------------------------------------------------------------------------


def bills(run: ReportedRun) -> list[Panel]:
    """Return what each round cost, stacked by phase, in FLOPs and in time, and in money where the run has prices."""
    phases = list(run.bill.lines)
    rounds = sorted({entry.round for entry in run.saved.entries})
    unit, seconds = time_unit(run.bill.seconds)
    place = {round: i for i, round in enumerate(rounds)}
    stacks = {name: {phase: np.zeros(len(rounds)) for phase in phases} for name in ("flops", "seconds")}
    for entry in run.saved.entries:
        stacks["flops"][entry.phase][place[entry.round]] += entry.flops
        stacks["seconds"][entry.phase][place[entry.round]] += entry.seconds / seconds
    colours = [phase_colour(phase) for phase in phases]
    dearest = max(phases, key=lambda phase: run.bill.lines[phase].flops)
    panels = [
        Panel(
            name="bill-flops",
            title="FLOPs by round and phase",
            alt=f"FLOPs of {len(rounds)} rounds, stacked by phase; most go to {dearest}.",
            draw=_stacked(rounds, stacks["flops"], colours, "FLOPs", prefixes=True),
        ),
        Panel(
            name="bill-seconds",
            title=f"Compute time by round and phase, {unit}",
            alt=f"{unit} of {len(rounds)} rounds, stacked by phase.",
            draw=_stacked(rounds, stacks["seconds"], colours, unit),
        ),
    ]
    if run.prices is not None and run.trained:
        panels.append(_money(run))
    return panels


def _money(run: ReportedRun) -> Panel:
    assert run.prices is not None
    names, labels, compute, paid = [], [], [], (0.0, 0.0)
    for record in run.trained:
        now = run.label_money(record), record.cost["seconds"] / 3600 * run.prices.hour
        names.append("final" if record.final else str(record.round))
        labels.append(now[0] - paid[0])
        compute.append(now[1] - paid[1])
        paid = now
    return Panel(
        name="bill-money",
        title=f"{run.prices.currency} by round: labels and compute",
        alt=f"Money by round: {paid[0]:,.2f} for labels and {paid[1]:,.4f} for compute in all.",
        draw=_stacked(names, {"labels": labels, "compute": compute}, [SERIES[2], SERIES[0]], run.prices.currency),
    )


def _stacked(
    names: Sequence[Any], stacks: dict[str, Any], colours: Sequence[str], unit: str, prefixes: bool = False
) -> Draw:
    def draw(axes: Axes) -> None:
        at, bottom = np.arange(len(names)), np.zeros(len(names))
        for values, colour in zip(stacks.values(), colours, strict=True):
            top = bottom + np.asarray(values, dtype=float)
            if len(names) <= _BARS:
                axes.bar(at, top - bottom, bottom=bottom, color=colour, width=0.8)
            else:
                axes.fill_between(at, bottom, top, color=colour, step="mid", linewidth=0)
            bottom = top
        every = max(1, math.ceil(len(names) / 12))
        axes.set_xticks(at[::every], [str(name) for name in names[::every]])
        axes.set_xlim(-0.6, max(len(names), 4) - 0.4)  # one bar is no wall
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        if prefixes:
            _prefixes(axes.yaxis)

    return draw


def group_bills(groups: Sequence[Group]) -> list[Panel]:
    """Return what the runs of each group cost on average, stacked by phase."""
    phases = phases_of(run for group in groups for run in group.runs)
    longest = max(run.bill.seconds for group in groups for run in group.runs)
    unit, seconds = time_unit(longest)
    panels = []
    for name, scale, title in (("flops", 1.0, "FLOPs"), ("seconds", seconds, f"Compute time, {unit}")):
        means = {
            phase: [
                np.mean([getattr(run.bill.lines[phase], name) if phase in run.bill.lines else 0 for run in group.runs])
                / scale
                for group in groups
            ]
            for phase in phases
        }

        def draw(axes: Axes, means: dict[str, Any] = means, title: str = title, name: str = name) -> None:
            at, left = np.arange(len(groups)), np.zeros(len(groups))
            for phase, values in means.items():
                axes.barh(at, values, left=left, color=phase_colour(phase), height=0.75)
                left = left + np.array(values)
            axes.set_yticks(at, [_short(group.name) for group in groups])
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(title)
            if name == "flops":
                _prefixes(axes.xaxis)

        alt = f"{title} of {len(groups)} configurations by phase, mean over runs."
        panels.append(Panel(name=f"bill-{name}", title=f"{title}, by phase", alt=alt, draw=draw))
    return panels


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"


# ---- what was picked --------------------------------------------------------------------------------------------


def picks(run: ReportedRun) -> Panel:
    """Return which ids were picked in which round."""
    queries = run.saved.queries
    count = sum(map(len, queries))

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        marks = np.array([(i, round, i in run.labels) for round, ids in enumerate(queries, 1) for i in ids])
        for labelled, colour in ((1, SERIES[0]), (0, SERIES[4])):
            at, rounds, _ = marks[marks[:, 2] == labelled].T
            if count <= _TICKS:
                axes.vlines(at, rounds - 0.4, rounds + 0.4, color=colour, linewidth=0.8)
            else:
                height = max(1.0, 0.8 * _POINTS / len(queries))
                axes.plot(at, rounds, "|", color=colour, markersize=height, markeredgewidth=0.8, rasterized=True)
        axes.set_xlim(-0.5, run.pool_size - 0.5)
        axes.set_ylim(len(queries) + 0.6, 0.4)
        axes.set_xlabel("id: position in the pool")
        axes.set_ylabel("round")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False)

    alt = f"{count:,} ids of a pool of {run.pool_size:,}, picked in {len(queries)} rounds; the table has them by round."
    return Panel(name="picks", title="Which ids were picked in which round", alt=alt, draw=draw)
