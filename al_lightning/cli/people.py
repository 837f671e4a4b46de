"""The verbs for people who label: ``status``, ``label``, ``approve`` and ``export``. None of them trains."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table

from al_lightning.cli.labelling import Labelling
from al_lightning.cli.say import no_collection, say, say_error
from al_lightning.errors import ActiveLearningError, BadLabelFile, PoolError
from al_lightning.oracles.file_oracle import pending, read_folder, release
from al_lightning.oracles.oracle import SKIP
from al_lightning.oracles.statements import Statement
from al_lightning.oracles.votes import agreement
from al_lightning.report.labels import Labelled, labelled_rows, write_csv, write_json_lines, write_parquet
from al_lightning.report.table import print_table, si
from al_lightning.run.durable import write_aside
from al_lightning.run.intake import Intake, next_step
from al_lightning.run.store import Store, read_run


def people(verb: str, arguments: Sequence[str]) -> int:
    """Do one of the verbs.

    Args:
        verb: one of :data:`VERBS`.
        arguments: of the command line, the verb excluded.

    Returns:
        Exit code: 0, or 1 for an error.
    """
    try:
        with no_collection():
            VERBS[verb](Console(), arguments)
    except ActiveLearningError as error:
        say_error(error)
        return 1
    return 0


def _parser(verb: str, does: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"al-lightning {verb}", description=does)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    return parser


# ---- status -----------------------------------------------------------------------------------------------------


def _status(console: Console, arguments: Sequence[str]) -> None:
    parser = _parser("status", "Where a run stands. The run is only read, also while another process works on it.")
    folder = parser.parse_args(arguments).run
    labelling = Labelling(folder, read_run(folder))
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in status(labelling):
        table.add_row(name, value)
    print_table(console, table)


def status(labelling: Labelling) -> list[tuple[str, str]]:
    """The rows of ``al-lightning status``."""
    saved = labelling.saved
    labelled = sum(value is not SKIP for value in saved.answers.values())
    flops, seconds = (sum(getattr(e, unit) for e in saved.entries) for unit in ("flops", "seconds"))
    rows = [
        ("run folder", str(labelling.folder)),
        ("round", str(len(saved.queries))),
        ("labelled", f"{labelled:,}"),
        ("waiting", f"{len(saved.open_ids):,}"),
        ("refused", f"{len(saved.answers) - labelled:,}"),
        ("spent", f"{si(flops)}FLOPs, {seconds:.1f} seconds"),
    ]
    trained = [*saved.rounds, *([saved.final] if saved.final else [])]
    if trained:
        last = trained[-1]
        rows.append(("ρ", f"{last.cost['rho']:.2f} after {'the final fit' if last.final else f'round {last.round}'}"))
        metrics = "  ".join(f"{name} {value:.3f}" for name, value in sorted(last.metrics.items()))
        rows.append(("metrics", metrics or "–"))
    rows.append(("next", _next(labelling)))
    rows += [("agreement", str(pair)) for pair in agreement(saved.statements, task=labelling.task)]
    if labelling.rules and "server" not in labelling.rules:
        rows += _in_the_files(labelling)
    return rows


def _next(labelling: Labelling) -> str:
    saved = labelling.saved
    if saved.step == "label" and saved.open_ids:
        return str(labelling.waits())
    if saved.step == "done":
        return f"nothing; the run ended: {saved.reasons[-1]}" if saved.reasons else "nothing; the run ended"
    does = {
        "query": "choose the next records",
        "label": "train on the labels there are",
        "train": "train on the labels there are",
        "decide": "decide whether to go on",
        "finish": "the final fit",
    }
    return f"{does.get(saved.step, saved.step)}: run the same command"


def _in_the_files(labelling: Labelling) -> list[tuple[str, str]]:
    """Return what people have typed and the run has not taken in yet."""
    try:
        since = _last_read(labelling.saved.statements)
        intake = labelling.intake(read_folder(labelling.queries, labelling.reader, home=labelling.folder, since=since))
    except PoolError as error:
        return [("in the files", str(error))]
    return [] if intake.empty else [("in the files", f"{_counts(intake)}, not taken in yet")]


def _last_read(statements: Sequence[Statement]) -> dict[str, float]:
    """Return when each file was last read, at the latest; two seconds for clocks that tell whole ones."""
    last: dict[str, str] = {}
    for s in statements:
        last[s.source] = max(s.at, last.get(s.source, ""))
    return {source: datetime.fromisoformat(at).timestamp() - 2 for source, at in last.items() if at}


def _counts(intake: Intake) -> str:
    refused = sum(value is SKIP for value in intake.answers.values())
    counts = {
        "new labels": len(intake.answers) - refused,
        "refusals": refused,
        "corrections": len(intake.corrections),
        "ties": sum(s.id in intake.decisions.ties for s in intake.statements),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or f"{len(intake.statements)} further answers"


# ---- label, approve, export -------------------------------------------------------------------------------------


class _Opened:
    """A run that exists already, opened to write to it."""

    def __init__(self, folder: Path) -> None:
        read_run(folder)  # no folder is made of what is none
        self.store = Store(folder)

    def __enter__(self) -> Store:
        return self.store

    def __exit__(self, *error: object) -> None:
        self.store.close()


def _label(console: Console, arguments: Sequence[str]) -> None:
    parser = _parser("label", "Bring a file of answers into a run, without training.")
    parser.add_argument("file", metavar="FILE", type=Path, help="CSV or JSON Lines with the columns id and label")
    options = parser.parse_args(arguments)
    with _Opened(options.run) as store:
        saved = store.load()
        labelling = Labelling(options.run, saved)
        if options.file.suffix.lower() not in (".csv", ".jsonl"):
            raise BadLabelFile(options.file, [f"{options.file.suffix or 'no suffix'}: allowed are .csv and .jsonl"])
        intake = labelling.intake(labelling.reader.read(options.file, source=os.path.realpath(options.file)))
        if not intake.empty:
            change = replace(intake.change(saved, next_step(saved, intake)), round=len(saved.queries))
            change = saved.placed(change)
            store.commit(change)
            saved.apply(change)
    say(console, f"{options.file}: {'nothing new' if intake.empty else _counts(intake)}. Next: {_next(labelling)}")


def _approve(console: Console, arguments: Sequence[str]) -> None:
    options = _parser("approve", "Let a query that waits for approval go out to people.").parse_args(arguments)
    with _Opened(options.run) as store:
        saved = store.load()
        labelling = Labelling(options.run, saved)
        round, approvals = len(saved.queries), saved.meta.get("approvals", [])
        waits = saved.step == "label" and pending(labelling.queries, round)
        known = next((a for a in approvals if saved.step == "label" and a["round"] == round), None)
        if not waits and known is None:
            raise ActiveLearningError(f"{options.run}: no query waits for approval. Next: {_next(labelling)}")
        if waits:
            at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            known = {"round": round, **labelling.waits().numbers, "who": _user(), "at": at}
            store.note("approvals", [*(a for a in approvals if a["round"] != round), known])
            release(labelling.queries, round)
    assert known is not None
    # Said again where it was approved before: a command that was killed right after can be given again.
    say(console, f"approved: {known['labels']} labels, {known['price']:.2f} {known['currency']}. {labelling.waits()}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _export(console: Console, arguments: Sequence[str]) -> None:
    parser = _parser("export", "The labelled records with where each label is from. The run is only read.")
    parser.add_argument("--format", choices=tuple(_FORMATS), default="csv")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="default: standard output, for text")
    options = parser.parse_args(arguments)
    labelled, write = labelled_rows(options.run), _FORMATS[options.format]
    if options.out is not None:
        write_aside(options.out, lambda file: write(labelled, file))
        say(console, f"{len(labelled.rows)} labelled records: {options.out}")
    elif options.format == "parquet":
        raise ActiveLearningError("Parquet is no text for a terminal: give the file, -o labels.parquet.")
    else:
        write(labelled, sys.stdout.buffer)


_FORMATS: dict[str, Callable[[Labelled, IO[bytes]], None]] = {
    "csv": write_csv,
    "jsonl": write_json_lines,
    "parquet": write_parquet,
}


VERBS: dict[str, Callable[[Console, Sequence[str]], None]] = {
    "status": _status,
    "label": _label,
    "approve": _approve,
    "export": _export,
}
"""What each does."""
