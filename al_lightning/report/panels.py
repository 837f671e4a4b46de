"""Panels: small charts that stand alone as SVG in the colours of the page, or together as PNG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#24292f", "#d4d9df"
SERIES = (
    "#1f6fb2",
    "#c8590b",
    "#1a7f52",
    "#8250a8",
    "#c0303c",
    "#8f6a00",
    "#0b7f88",
    "#b83280",
    "#6b7280",
    "#7a4f2b",
    "#5a8f1a",
    "#33415c",
)
"""Colours on white; the page has another set for dark screens, see ``style.css``."""
_THEMED = {INK: "ink", GRID: "grid", **{colour: f"s{i}" for i, colour in enumerate(SERIES)}}
_SIZE = (4.5, 3.1)  # inches of a panel: its text is legible at the width of a phone

Draw = Callable[["Axes"], None]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart.

    Args:
        name: of its file and of its place in the page.
        title: above it.
        alt: what it shows, for those who do not see it.
        draw: draws it.
    """

    name: str
    title: str
    alt: str
    draw: Draw


# ---- drawing ----------------------------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context

    # Text is text: a name with $ in it is no formula.
    style: dict[Any, Any] = {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
    }
    with rc_context(style):
        yield


def _figure(rows: int, columns: int, legend: float = 0.0) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * _SIZE[0], rows * _SIZE[1] + legend), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def svg(panel: Panel) -> str:
    """The panel as an SVG element whose colours are the page's variables."""
    with _style():
        from matplotlib import rc_context

        figure = _figure(1, 1)
        axes = figure.subplots()
        panel.draw(axes)
        out = io.StringIO()
        with rc_context({"svg.hashsalt": panel.name}):
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, count=1, flags=re.DOTALL)
    for colour, name in _THEMED.items():
        text = text.replace(f": {colour}", f": var(--{name})")
    return text


def png(panels: Sequence[Panel], legend: Sequence[tuple[str, str]] = ()) -> bytes:
    """Panels side by side, two in a row, as a PNG on white.

    Args:
        panels: what to draw.
        legend: ``(name, colour)`` of what they have in common.
    """
    from matplotlib.patches import Patch

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with _style():
        lines = math.ceil(len(legend) / 2)
        figure = _figure(rows, columns, 0.25 * lines + 0.1)
        for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
            panel.draw(axes)
            axes.set_title(panel.title, loc="left")
        for spare in figure.axes[len(panels) :]:
            spare.set_axis_off()
        if legend:
            handles = [Patch(color=colour) for _, colour in legend]
            figure.legend(handles, [name[:60] for name, _ in legend], loc="outside lower center", ncols=2)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=130, facecolor="white")
    return out.getvalue()
