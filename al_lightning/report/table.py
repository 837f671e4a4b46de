"""A comparison as a table: one row per method, mean ± standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Summary = Mapping[str, Mapping[str, Mapping[str, float]]]
"""``{method: {quantity: {"mean": ..., "sd": ...}}}``; no ``sd`` where there is one seed."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation of every number, by method, in the order methods first appear.

    Args:
        rows: one per method and seed, each with ``method`` and ``seed``. A quantity that some seed lacks is left out.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        names = [n for n in own[0] if n != "seed" and all(isinstance(row[n], int | float) for row in own)]
        summary[method] = {}
        for name in names:
            values = [row[name] for row in own]
            spread = {"sd": stdev(values)} if len(values) > 1 else {}
            summary[method][name] = {"mean": mean(values), **spread}
    return summary


def si(value: float) -> str:
    """Three digits and a prefix: ``388 M``."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            digits = 0 if value >= 100 * factor else 1 if value >= 10 * factor else 2
            return f"{value / factor:.{digits}f} {prefix}"
    return f"{value:.0f}"


def _accuracy(quantity: Mapping[str, float]) -> str:
    sd = f" ± {quantity['sd']:.2f}" if "sd" in quantity else ""
    return f"{quantity['mean']:.2f}{sd}"


def _whole(quantity: Mapping[str, float]) -> str:
    return f"{quantity['mean']:,.0f}"


COLUMNS: dict[str, tuple[str, Any]] = {
    "accuracy %": ("accuracy", _accuracy),
    "labels": ("labels_bought", _whole),
    "trained": ("records_trained", _whole),
    "inferred": ("records_inferred", _whole),
    "FLOPs": ("flops", lambda q: si(q["mean"])),
    "seconds": ("seconds", lambda q: f"{q['mean']:.1f}"),
    "money": ("money", lambda q: f"{q['mean']:.2f}"),
    "ρ": ("rho", lambda q: f"{q['mean']:.2f}"),
    "ρ (s)": ("rho_seconds", lambda q: f"{q['mean']:.2f}"),
}
"""Column title -> (quantity, how it is written)."""


def cells(summary: Summary) -> list[list[str]]:
    """The table as text: per method its name, then one cell per column."""
    rows = []
    for method, quantities in summary.items():
        written = [form(quantities[name]) if name in quantities else "–" for name, form in COLUMNS.values()]
        rows.append([method, *written])
    return rows


def comparison_table(summary: Summary, *, caption: str = "") -> Table:
    """The table for a terminal.

    Args:
        summary: from :func:`summarise`.
        caption: below it.
    """
    from rich import box
    from rich.table import Table

    table = Table(caption=caption, box=box.SIMPLE, caption_justify="left")
    table.add_column("method", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in cells(summary):
        table.add_row(*row)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print it whole: on a narrow terminal lines wrap, no number is cut short."""
    from rich.console import Console
    from rich.measure import Measurement

    natural = Measurement.get(console, console.options.update(width=1000), table).maximum
    Console(file=console.file, width=max(natural, console.width)).print(table)
