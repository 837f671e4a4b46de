"""Queries as files that people fill in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from al_lightning.errors import BadLabelFile, PoolError
from al_lightning.history import Reason
from al_lightning.oracles.label_cell import Language, check_classes, plain_classes
from al_lightning.oracles.label_file import Reader, Row, as_csv, as_json_lines
from al_lightning.oracles.oracle import LabelRequest
from al_lightning.oracles.statements import Decisions, Statement
from al_lightning.oracles.votes import answers
from al_lightning.run.durable import move, write_aside
from al_lightning.seeds import generator

Columns = Mapping[int, Mapping[str, Any]] | Callable[[int], Mapping[str, Any]]

_NAME = re.compile(r"round-(?P<round>[0-9]{3,})(?:\.(?P<who>[^.]+))?\.(?P<kind>csv|jsonl)")
_PENDING = "pending"


@dataclass
class FileOracle:
    """Write each query as a CSV file, and JSON Lines beside it; people fill the ``label`` column of either.

    A cell holds a label, ``skip`` to refuse, or nothing: not answered yet. The run ends while answers are missing, and
    the same command goes on when they are there. A cell that is changed later, in whatever round's file, corrects the
    label. What people typed is never overwritten. Every row ends with a line break, the last one too: what may be half
    a number is refused.

    Args:
        folder: of the files; default: ``queries`` in the run folder.
        columns: what people see of a record beside its id and key: a function or mapping ``id -> {column: value}``.
        classes: class names, or how many classes there are; required for multilabel. Without it cells hold class
            numbers, and none is too large.
        annotators: how many people answer each record. Each fills a copy of the file, ``round-003.<name>.csv``, or
            rows with an ``annotator`` column. The label is what most of them say; a tie waits, and is named.
        adjudicator: the annotator whose word stands against all others.
        repeat: share of every query that is asked twice, for quality control. The second answer is paid for and
            decides nothing; how far the two agree is in the result.
        approve: whether a query waits, with its price, for ``al-lightning approve RUN`` before it goes out.
        score_ahead: whether the next candidates are scored while people answer, once a round and on the bill. They
            count as stale scores; what is queried later then depends on whether there was anything to wait for.

    Raises:
        ValueError: a setting out of its range.

    Example:
        >>> oracle = FileOracle("runs/people", classes=["cat", "dog"])  # doctest: +SKIP
    """

    folder: str | Path | None = None
    columns: Columns | None = None
    classes: int | Sequence[str] | None = None
    annotators: int = 1
    adjudicator: str | None = None
    repeat: float = 0.0
    approve: bool = False
    score_ahead: bool = False
    _request: LabelRequest | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_classes(self.classes)
        if self.annotators < 1:
            raise ValueError(f"FileOracle(annotators={self.annotators}): at least 1 has to answer a record.")
        if not 0 <= self.repeat <= 1:
            raise ValueError(f"FileOracle(repeat={self.repeat}): a share of the query, 0 to 1.")
        if self.adjudicator == "":
            raise ValueError("FileOracle(adjudicator=''): a name, as it stands in the annotator column or file name.")

    # ---- out ---------------------------------------------------------------------------------------------------

    def ask(self, request: LabelRequest) -> None:
        """Write the query's files, unless they are there."""
        self._request = request
        Language(task=request.task, classes=self.classes)  # refuses tasks no cell can hold, before anybody is asked
        folder, name = self._folder(request), f"round-{request.round:03d}"
        if self.approve and not (folder / f"{name}.csv").exists():
            name = f"{name}.{_PENDING}"
        elif not self.approve:
            release(folder, request.round)
        # The CSV is what counts as the query, and is written last: either all of it is there, or it is asked again.
        for kind, form in (("jsonl", as_json_lines), ("csv", as_csv)):
            path = folder / f"{name}.{kind}"
            if not path.exists():
                text = form(self._rows(request), asks=self.repeat > 0)
                write_aside(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]

    def _rows(self, request: LabelRequest) -> list[Row]:
        look = self.columns if callable(self.columns) else (self.columns or {}).get
        rows = [
            Row(id=int(i), key=key, columns=look(int(i)) or {})
            for i, key in zip(request.ids, request.keys, strict=True)
        ]
        rng = generator(0, request.round, "repeat")
        again = rng.permutation(len(rows))[: repeats(self.repeat, len(rows))]
        return rows + [Row(id=rows[k].id, key=rows[k].key, columns=rows[k].columns, ask=2) for k in again]

    def _folder(self, request: LabelRequest) -> Path:
        if self.folder is not None:
            return Path(self.folder)
        if request.folder is None:
            raise PoolError("FileOracle() keeps its files in the run folder, and there is none: pass folder=.")
        return request.folder

    # ---- in ----------------------------------------------------------------------------------------------------

    def collect(self) -> Mapping[int, Any]:
        """The labels that follow from what is filled in by now."""
        assert self._request is not None, "ask() comes before collect()"
        return answers(self, self._request)

    def said(self, request: LabelRequest) -> list[Statement]:
        """Every filled cell of every file, oldest round first.

        Raises:
            BadLabelFile: a file that is not what it should be.
        """
        language = Language(task=request.task, classes=self.classes)
        reader = Reader(language=language, queried=request.queried, key=request.key, size=request.size)
        return read_folder(self._folder(request), reader, home=request.folder.parent if request.folder else None)

    def rules(self) -> dict[str, Any]:
        """Return what ``al-lightning label``, ``status`` and ``approve`` need to know."""
        return {
            "classes": plain_classes(self.classes),
            "annotators": self.annotators,
            "adjudicator": self.adjudicator,
            "repeat": self.repeat,
            "folder": None if self.folder is None else str(Path(self.folder).resolve()),
        }

    def waits(self, request: LabelRequest, decisions: Decisions) -> Reason:
        """Return what people have to do: approve the query, fill in a file, or settle ties."""
        return waiting(
            self._folder(request),
            request,
            decisions,
            language=Language(task=request.task, classes=self.classes),
            annotators=self.annotators,
            adjudicator=self.adjudicator,
            repeats=repeats(self.repeat, len(request.ids)),
        )


def waiting(
    folder: Path,
    request: LabelRequest,
    decisions: Decisions,
    *,
    language: Language,
    annotators: int = 1,
    adjudicator: str | None = None,
    repeats: int = 0,
) -> Reason:
    """Return what people have to do before a run goes on, as a sentence and its numbers."""
    n, path = len(request.ids), folder / f"round-{request.round:03d}.csv"
    numbers: dict[str, Any] = {"labels": n, "file": str(path)}
    if pending(folder, request.round):
        price = (n + repeats) * request.prices.label
        run = request.folder.parent if request.folder else "RUN"
        return Reason(
            "approval",
            f"waiting for approval: {n} labels, price {price:.2f} {request.prices.currency} (see "
            f"{path.with_suffix(f'.{_PENDING}.csv')}): al-lightning approve {run}, then run the same command",
            {"labels": n, "price": price, "currency": request.prices.currency},
        )
    each = "" if annotators == 1 else f" as {annotators} people, each in a copy {path.stem}.NAME.csv"
    more, ties = ties_among(request, decisions, language=language, adjudicator=adjudicator)
    sentence = f"waiting for {n} labels: fill {path}{each}, then run the same command{more}"
    return Reason("waiting", sentence, {**numbers, **ties})


def ties_among(
    request: LabelRequest, decisions: Decisions, *, language: Language, adjudicator: str | None
) -> tuple[str, dict[str, Any]]:
    """A query's ties, as a sentence that goes on where another has ended, and their numbers; nothing where none is."""
    ties = {i: decisions.ties[i] for i in request.ids.tolist() if i in decisions.ties}
    if not ties:
        return "", {}
    said = [
        f"id {i} ({', '.join(f'{who}: {language.write(value)}' for who, value in people.items())})"
        for i, people in list(ties.items())[:5]
    ]
    more = "" if len(ties) <= 5 else f", and {len(ties) - 5} more"
    settles = f"{adjudicator} settles them" if adjudicator else "one of them changes the answer"
    return f". {len(ties)} are ties until {settles}: {', '.join(said)}{more}", {"ties": list(ties)}


def read_folder(
    folder: Path, reader: Reader, *, home: Path | None = None, since: Mapping[str, float] | None = None
) -> list[Statement]:
    """Every filled cell of the files in a folder of queries, round by round, the file that names nobody first.

    Args:
        folder: of the files.
        reader: of one file.
        home: folder that the files' names in statements are relative to, where they are inside it.
        since: name of a file in statements -> seconds since the epoch; one that has not changed since is left out.

    Raises:
        BadLabelFile: a file that is not what it should be, or whose name says nothing.
    """
    found: list[tuple[int, str, str, Path]] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith((".", "~")) or path.suffix.lower() not in (".csv", ".jsonl"):
            continue
        match = _NAME.fullmatch(path.name)
        if match is None:
            problem = (
                "its name says nothing; allowed: round-003.csv, round-003.NAME.csv, and the same with .jsonl. Rename "
                "it, or bring it in with al-lightning label RUN FILE"
            )
            raise BadLabelFile(path, [problem])
        if match["who"] != _PENDING:
            found.append((int(match["round"]), match["who"] or "", match["kind"], path))
    said: list[Statement] = []
    at = folder.resolve()  # a file that is a link is known by its own name, wherever it leads
    inside = home is not None and at.is_relative_to(home.resolve())
    for _, who, _, path in sorted(found):
        source = str((at / path.name).relative_to(home.resolve())) if inside and home else str(path)
        if since is None or source not in since or _changed(path) > since[source]:
            said += reader.read(path, who=who, source=source)
    return said


def _changed(path: Path) -> float:
    try:
        found = path.stat()
    except OSError:
        return math.inf  # whoever reads it says what is wrong
    return max(found.st_mtime, found.st_ctime)


def repeats(share: float, n: int) -> int:
    """Return how many of a query's records are asked twice: at least one where any are."""
    return max(round(share * n), int(share > 0 and n > 0))


def pending(folder: Path, round: int) -> bool:
    """Return whether the query of a round waits for approval."""
    name = f"round-{round:03d}"
    return (folder / f"{name}.{_PENDING}.csv").exists() and not (folder / f"{name}.csv").exists()


def release(folder: Path, round: int) -> list[Path]:
    """Let a query that waits for approval go out; the files that went.

    The CSV goes last: until it has, the query waits.
    """
    out = []
    for kind in ("jsonl", "csv"):
        pending, path = folder / f"round-{round:03d}.{_PENDING}.{kind}", folder / f"round-{round:03d}.{kind}"
        if pending.exists() and not path.exists():
            move(pending, path)
            out.append(path)
    return out
