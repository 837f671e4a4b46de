"""Progress on a terminal: labels bought so far, and what the model is worth with them."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from al_lightning.history import RoundRecord


class RoundsBar:
    """A bar of labels, for one run or for several in turn.

    Args:
        console: where to.
        runs: how many there will be; more than one adds a bar of runs.
    """

    def __init__(self, console: Console, runs: int = 1) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[unit]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._all: TaskID | None = None
        if runs > 1:
            self._all = self._progress.add_task("all runs", total=runs, unit="runs", note="")
        self._one = self._progress.add_task("this run", total=None, unit="labels", note="")

    def __enter__(self) -> RoundsBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, name: str, target: int | None) -> None:
        """Start the bar of a run anew."""
        self._progress.reset(self._one, description=name, total=target, unit="labels", note="")

    def update(self, record: RoundRecord, target: int | None = None) -> None:
        """Show a round."""
        metrics = {name: value for name, value in record.metrics.items() if "loss" not in name} or record.metrics
        note = "  ".join([*(f"{name} {value:.3f}" for name, value in metrics.items()), *_against_plan(record)])
        total = None if target is None else float(max(target, record.labelled))
        self._progress.update(self._one, completed=record.labelled, total=total, note=note)

    def finish(self) -> None:
        """Count a run."""
        if self._all is not None:
            self._progress.advance(self._all)


def _against_plan(record: RoundRecord) -> list[str]:
    """Return what is spent, of what the run is foreseen to have spent at its end."""
    signs = {"rho": "ρ ", "money": ""}
    return [
        f"{sign}{record.cost[name]:.2f} of {record.forecast[name]:.2f}"
        for name, sign in signs.items()
        if name in record.cost and name in record.forecast
    ]
