"""A plan as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from al_lightning.planning.efficiency import REFERENCE_ROUNDS
from al_lightning.report.table import print_table, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from al_lightning.planning.planned import Planned
    from al_lightning.planning.planner import Plan

MOST_LINES = 24
"""Rounds that are printed one by one; of more, the first and the last ones."""


def print_plan(console: Console, planned: Planned) -> None:
    """Print it: what labels say, the verdict, then the rounds, the trade-off, the levers, and what all rests on."""
    chosen, currency = planned.schedule, planned.project.prices.currency
    if (signal := planned.verdict.signal) is not None:
        style = "bold" if signal.finding == "nothing" else None
        console.print(signal.sentence, style=style, markup=False, highlight=False, soft_wrap=True)
    shape = f"{chosen.rounds} rounds" + (f", each {chosen.growth:.3g} times the last" if chosen.growth != 1 else "")
    for table in (
        _ways(planned, currency),
        _rounds(chosen.plan, f"this schedule, {shape}", currency),
        _trade_off(planned, currency),
        _levers(planned, currency),
    ):
        if table.row_count:
            print_table(console, table)
    lines = [f"{planned.project.labels:,} labels of {planned.project.pool:,}, {planned.project.epochs} epochs"]
    lines += [*planned.about]
    lines += [f"{a.name} = {a.value:g} {a.unit}, a default: {a.source}" for a in planned.project.assumptions]
    e = planned.efficiency
    lines += [
        f"labels: random ones are worth {e.random:g} of those a model of all labels picks, maturity {e.maturity:g}, "
        f"{chosen.way.worth:g} under these levers (docs/bill.md)"
    ]
    _say(console, "It rests on", lines)
    console.print(planned.run, markup=False, highlight=False, soft_wrap=True)


def _say(console: Console, title: str, lines: Iterable[str]) -> None:
    console.print(f"{title}:", highlight=False, markup=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _table(title: str, columns: Sequence[str], caption: str = "") -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, caption=caption or None, box=box.SIMPLE, title_justify="left", caption_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _ways(planned: Planned, currency: str) -> Table:
    verdict = planned.verdict
    caption = "\n".join([f"Cheapest: {verdict.choice}. It would be another one with", *verdict.changes])
    if not verdict.changes:
        caption = f"Cheapest: {verdict.choice}, whatever a label or an hour costs."
    title = f"Ways to a model as good as {planned.project.labels:,} labels make in {REFERENCE_ROUNDS} ordinary rounds"
    table = _table(
        title, ("way", "rounds", "labels", "hours", "ρ", f"labels {currency}", "compute", "other", "all"), caption
    )
    for name, plan in verdict.plans.items():
        if plan is None:
            table.add_row(name, *["–"] * 7, "would be one round")
            continue
        rounds = sum(r.labels > 0 for r in plan.rounds)
        table.add_row(name, str(rounds), *_cells(plan), style="bold" if name == verdict.choice else None)
    return table


def _cells(plan: Plan) -> list[str]:
    rho = "–" if plan.bill.rho is None else f"{plan.bill.rho:.2f}"
    money = (plan.label_money, plan.compute_money, plan.other_money, plan.money)
    return [f"{plan.labels:,}", _hours(plan.elapsed_hours), rho, *map(_money, money)]


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _money(money: float) -> str:
    return f"{money:,.2f}" if money >= 0.1 or money == 0 else f"{money:.2g}"


def _rounds(plan: Plan, title: str, currency: str) -> Table:
    columns = (
        "round",
        "labels",
        "labelled",
        "inferred",
        "trained",
        "FLOPs",
        "hours",
        f"labels {currency}",
        "compute",
        "all",
    )
    table = _table(title[0].upper() + title[1:], columns)
    cut = len(plan.rounds) > MOST_LINES
    shown = [*plan.rounds[: MOST_LINES // 2], None, *plan.rounds[-MOST_LINES // 2 :]] if cut else plan.rounds
    for r in shown:
        if r is None:
            table.add_row(*["…"] * len(columns))
            continue
        counts = [f"{n:,}" for n in (r.labels, r.labelled, r.inferred, r.trained)]
        money = map(_money, (r.label_money, r.compute_money, r.money))
        table.add_row("final" if r.final else str(r.round), *counts, si(r.flops), _hours(r.hours), *money)
    return table


def _trade_off(planned: Planned, currency: str) -> Table:
    table = _table(
        "More rounds take fewer labels and more compute",
        ("rounds", "labels", "hours", "ρ", f"labels {currency}", "compute", "other", "all"),
    )
    cheapest = min((s.money for s in planned.trade_off), default=0.0)
    for s in planned.trade_off:
        table.add_row(str(s.rounds), *_cells(s.plan), style="bold" if s.money == cheapest else None)
    return table


def _levers(planned: Planned, currency: str) -> Table:
    table = _table(
        "What each lever saves, and when it pays",
        ("lever", "FLOPs saved", f"{currency} saved", "pays while it costs fewer labels than"),
    )
    for lever in planned.levers:
        table.add_row(lever.name, si(lever.flops), _money(lever.money), f"{lever.labels:,.0f} ({lever.share:.1%})")
    return table
