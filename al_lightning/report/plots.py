"""A comparison as curves: accuracy against labels, and against compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
_COLOURS = ("#7f7f7f", "#c49c00", "#c0392b", "#1f77b4", "#138d5a", "#8e44ad", "#e67e22")
_MARKERS = ("s", "D", "o", "^", "v", "P", "X")


def mean_curve(rows: Sequence[Row], x: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean x, mean accuracy and its standard deviation, point by point over seeds.

    Args:
        rows: of one method, each with a ``curve`` of points ``{"labels", "accuracy", "flops"}``. The longest curves
            are cut to the shortest.
        x: ``"labels"`` (of several points at one number of labels the last counts) or ``"flops"``.
    """
    curves = [row["curve"] for row in rows]
    if x == "labels":
        curves = [list({point["labels"]: point for point in curve}.values()) for curve in curves]
    shortest = min(map(len, curves))
    xs = np.array([[point[x] for point in curve[:shortest]] for curve in curves], dtype=float)
    ys = np.array([[point["accuracy"] for point in curve[:shortest]] for curve in curves], dtype=float)
    sd = ys.std(axis=0, ddof=1) if len(ys) > 1 else np.zeros(shortest)
    return xs.mean(axis=0), ys.mean(axis=0), sd


def _draw(axes: Axes, x: np.ndarray, y: np.ndarray, sd: np.ndarray, colour: str, marker: str, name: str) -> None:
    if len(x) == 1:
        axes.errorbar(x, y, yerr=sd, color=colour, marker=marker, markersize=8, capsize=3, linestyle="", label=name)
        return
    axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.8, label=name)
    axes.fill_between(x, y - sd, y + sd, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x[-1], y[-1], color=colour, marker=marker, markersize=8)


def plot_comparison(rows: Sequence[Row], path: Path, *, unit: float, labels: int, title: str = "") -> Path:
    """Draw the two panels and write a PNG.

    Args:
        rows: one per method and seed: ``method``, ``labels`` and ``curve``.
        path: of the PNG.
        unit: FLOPs of one training on ``labels`` labels, the unit of the compute axis.
        labels: number of labels that the methods share; one that has more is drawn as a line across.
        title: above both.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for i, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        own = [row for row in rows if row["method"] == method]
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        x, y, sd = mean_curve(own, "labels")
        if x[-1] > labels:
            left.axhline(y[-1], color=colour, linestyle="--", linewidth=1.3)
            left.text(0, y[-1], f" {method}: {x[-1]:,.0f} labels", color=colour, va="bottom", fontsize=9)
        else:
            _draw(left, x, y, sd, colour, marker, method)
        x, y, sd = mean_curve(own, "flops")
        _draw(right, x / unit, y, sd, colour, marker, method)
    _dress(left, right, rows, labels)
    if title:
        figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _dress(left: Axes, right: Axes, rows: Sequence[Row], labels: int) -> None:
    best = max(point["accuracy"] for row in rows for point in row["curve"])
    worst = min(row["curve"][-1]["accuracy"] for row in rows)
    left.set_ylim(max(0.0, worst - 4 * max(2.0, best - worst)), min(100.0, best + 1.0))
    left.set_xlim(0, labels * 1.04)
    left.set_xlabel("labels bought from the pool")
    left.set_ylabel("test accuracy, %")
    right.set_xscale("log")
    right.axvline(1, color="black", linewidth=1, linestyle=":")
    right.annotate("ρ = 1", (1, 0), (4, 6), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=9)
    right.set_xlabel(f"compute so far / one training on {labels:,} labels (FLOPs)")
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    drawn = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True))
    right.legend([drawn[name] for name in methods], methods, loc="lower right", frameon=True, fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
