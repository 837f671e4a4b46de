"""Reads the runs of a report from their folders, and refuses what no run wrote."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

from al_lightning.errors import ActiveLearningError
from al_lightning.report.runs import ReportedRun
from al_lightning.run.reading import checked, not_begun, read_run, reading
from al_lightning.run.schema import rows


def read(folder: Path) -> ReportedRun:
    """One run.

    Args:
        folder: the run folder; it is only read, also while another process works on it.

    Raises:
        ActiveLearningError: no run is there, it has not begun, or a newer version wrote it.
        DamagedFile: its database holds what no run wrote.
    """
    with checked(folder):
        saved = read_run(folder)
        if "config" not in saved.meta:
            raise not_begun(folder)
        with reading(folder) as db:
            numbers = tuple(int(round) for _, round, *_ in rows(db, "reason", folder))
            brought = any(source == "brought" for *_, source, _, _ in rows(db, "audit", folder))
        run = ReportedRun(folder, saved, "/".join(folder.resolve().parts[-2:]), brought, numbers)
        _check(run)
    return run


def find(paths: Sequence[Path]) -> tuple[list[ReportedRun], list[str]]:
    """The runs in folders: run folders, or folders of a sweep with runs anywhere below.

    Args:
        paths: of folders.

    Returns:
        The runs, and a sentence for each folder below one of ``paths`` whose run cannot be read.

    Raises:
        ActiveLearningError: a folder that is not there, holds no run, or is itself a run that cannot be read.
    """
    runs: dict[Path, ReportedRun] = {}
    left_out: list[str] = []
    for path in paths:
        if (path / "run.sqlite").exists():
            runs[path.resolve()] = read(path)
            continue
        below = sorted(found.parent for found in path.rglob("run.sqlite")) if path.is_dir() else []
        if not below:
            there = "it has no run.sqlite, nor has a folder below it" if path.is_dir() else "it has no run.sqlite"
            there += "" if path.exists() else ", for it does not exist"
            raise ActiveLearningError(
                f"{path} is no run folder: {there}. Give the run_dir of a run, or the folder of a sweep."
            )
        for folder in below:
            try:
                runs[folder.resolve()] = read(folder)
            except ActiveLearningError as error:
                left_out.append(str(error))
    if not runs:
        raise ActiveLearningError("no run can be read:\n" + "\n".join(f"  {sentence}" for sentence in left_out))
    return _named(list(runs.values())), left_out


def _named(runs: list[ReportedRun]) -> list[ReportedRun]:
    if len(runs) == 1:
        return runs
    folders = [run.folder.resolve() for run in runs]
    top = os.path.commonpath(folders)
    return [replace(run, name=os.path.relpath(folder, top)) for run, folder in zip(runs, folders, strict=True)]


def _check(run: ReportedRun) -> None:
    """Raise LookupError, TypeError or ValueError for what is missing, and for numbers and texts that are none."""
    saved = run.saved
    counted = not any(name.endswith("flops_unknown") for name in saved.meta)
    for record in run.trained:
        _finite(*(record.cost[name] for name in ("seconds", "money", "rho")), *[record.cost["flops"]][:counted])
        _numbers(record.round, record.labelled, record.queried, record.epochs, record.attempts)
        _numbers(record.candidates, record.stale, *record.metrics.values(), *record.cost.values())
        _numbers(*(x for x in (record.agreement, record.uncertainty, record.coverage) if x is not None))
        _texts(record.start, *record.metrics)
    for entry in saved.entries:
        _finite(entry.round, entry.records, entry.seconds, entry.bytes, *[entry.flops][:counted])
    for reason in saved.reasons:
        _texts(reason.kind, reason.sentence)
    for said in saved.statements:
        _numbers(said.id, said.ask)
        _texts(said.who, said.source, said.at)
    _numbers(*chain.from_iterable(saved.queries), *saved.answers)
    _texts(saved.step, *saved.keys.values())
    _finite(run.bill.money, *[run.bill.flops][:counted], run.pool_size, run.bill.prices.hour, *run.bill.kwh.values())
    _texts(run.bill.prices.currency, *run.settings)
    flight = saved.meta.get("in_flight") or dict.fromkeys(("records", "flops", "seconds"), 0)
    _finite(*(flight[name] for name in ("records", "seconds")), *[flight["flops"]][:counted])


def _numbers(*values: Any) -> None:
    wrong = [v for v in values if not isinstance(v, Real)]
    if wrong:
        raise TypeError(f"{wrong[0]!r} in the place of a number")


def _finite(*values: Any) -> None:
    _numbers(*values)
    wrong = [v for v in values if not math.isfinite(v)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} in the place of an amount")


def _texts(*values: Any) -> None:
    wrong = [v for v in values if not isinstance(v, str)]
    if wrong:
        raise TypeError(f"{wrong[0]!r} in the place of a text")
