"""What a cell that people fill in may hold, and what it means."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from al_lightning.errors import PoolError
from al_lightning.oracles.oracle import SKIP

TASKS = ("multiclass", "binary", "multilabel", "regression")
"""Tasks whose labels fit a cell."""


def words(value: str) -> str:
    """A cell's text in an error message: short, and nothing in it acts on a terminal."""
    shown = value if len(value) <= 60 else f"{value[:60]}..."
    return ascii(shown)


@dataclass(frozen=True, kw_only=True)
class Language:
    """Hold how labels are written in a cell.

    Args:
        task: of the pool.
        classes: class names, or how many there are, or None: class numbers without an upper end.
    """

    task: str
    classes: int | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise PoolError(
                f"labels of task={self.task!r} do not fit the cell of a file; allowed: {', '.join(TASKS)}. Pass "
                "another oracle, for example FunctionOracle(lambda id: ...)."
            )
        if self.task == "multilabel" and self.classes is None:
            raise PoolError("task='multilabel' has label lists as long as there are classes: pass classes=.")

    @property
    def names(self) -> tuple[str, ...] | None:
        """The class names, where classes are numbered None."""
        return None if self.classes is None or isinstance(self.classes, int) else tuple(self.classes)

    @property
    def count(self) -> int | None:
        """Return how many classes there are, if that is known."""
        if self.classes is None:
            return 2 if self.task == "binary" else None
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def allowed(self) -> str:
        """Return what a cell may hold, for messages."""
        if self.task == "regression":
            return "a number, several separated by ;, or skip"
        if self.names is not None:
            one = ", ".join(self.names[:30]) + (", ..." if len(self.names) > 30 else "")
        else:
            one = "class numbers 0, 1, ..." if self.count is None else f"class numbers 0 to {self.count - 1}"
        return f"{one}{', several separated by ;, none' if self.task == 'multilabel' else ''} or skip"

    def read(self, cell: str) -> Any:
        """Read the label in a cell: SKIP for a refusal, None where it is empty.

        Raises:
            ValueError: it holds no label of this task.
        """
        text = cell.strip()
        if not text:
            return None
        if text.lower() == "skip":
            return SKIP
        if self.task == "multilabel" and text.lower() == "none":
            return self._vector([])
        return self._label(text.split(";") if self.task in ("multilabel", "regression") else [text])

    def read_json(self, value: Any) -> Any:
        """Read the label in a JSON value: text as in a cell, a number, or a list of both.

        Raises:
            ValueError: it holds no label of this task.
        """
        if value is None or isinstance(value, str):
            return self.read(value or "")
        if isinstance(value, list):
            return self._label(value) if value or self.task != "multilabel" else self._vector([])
        return self._label([value])

    def write(self, value: Any) -> str:
        """Write a label as a cell; :meth:`read` reads it back."""
        written = self.write_json(value)
        parts = written if isinstance(written, list) else [written]
        return ";".join(part if isinstance(part, str) else json.dumps(part) for part in parts) or "none"

    def write_json(self, value: Any) -> Any:
        """Write a label as a JSON value; :meth:`read_json` reads it back."""
        if value is SKIP:
            return "skip"
        value = bare(value)
        if self.task == "multilabel":
            value = value if isinstance(value, list) else [value]
            if all(part in (0, 1) for part in value):
                value = [i for i, on in enumerate(value) if on]
        return [self._name(part) for part in value] if isinstance(value, list) else self._name(value)

    def _name(self, value: Any) -> Any:
        if self.task == "regression" or not isinstance(value, int | float) or not float(value).is_integer():
            return value
        names = self.names or ()
        return names[int(value)] if 0 <= value < len(names) else int(value)

    def _label(self, parts: Sequence[Any]) -> Any:
        if not parts:
            raise ValueError("no label")
        if self.task == "regression":
            numbers = [self._number(_text(part)) for part in parts]
            return numbers if len(numbers) > 1 else numbers[0]
        chosen = [self._class(part) for part in parts]
        if self.task == "multilabel":
            return self._vector(chosen)
        if len(chosen) != 1:
            raise ValueError(parts)
        return chosen[0]

    def _vector(self, chosen: Sequence[int]) -> list[int]:
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"a class is named twice: {chosen}")
        return [int(c in chosen) for c in range(self.count or 0)]

    def _number(self, text: str) -> float:
        if not re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text):
            raise ValueError(text)
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number

    def _class(self, part: Any) -> int:
        text = _text(part).strip()
        if self.names is not None:
            found = self._numbers.get(text, self._numbers.get(unguarded(text)))
            if found is None or (type(part) is int and part < len(self.names) and part != found):
                raise ValueError(part)  # a number of JSON that is one class by its name and another by its place
            return found
        match = re.fullmatch(r"([0-9]{1,9})(\.0*)?", text)  # spreadsheets make 3.0 of 3
        if match is None or (self.count is not None and int(match[1]) >= self.count):
            raise ValueError(part)
        return int(match[1])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names or ())}


def _text(part: Any) -> str:
    return part if isinstance(part, str) else json.dumps(part)


def bare(value: Any) -> Any:
    """Return what a cell can tell of a label: of an array its list, of a list of one number that number."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    while isinstance(value, list) and len(value) == 1 and not isinstance(value[0], dict):
        value = value[0]
    return value


def language_of(task: str, classes: int | Sequence[str] | None, labels: Iterable[Any]) -> Language | None:
    """Return how a run's labels are written in cells; None where they fit none.

    Args:
        task: of the pool.
        classes: as people were told them, if they were.
        labels: those that the run has; SKIP is none.
    """
    if task not in TASKS:
        return None
    flat = [value for value in map(bare, labels) if value is not SKIP] if task in ("multilabel", "regression") else []
    if not all(isinstance(part, int | float) for v in flat for part in (v if isinstance(v, list) else [v])):
        return None
    if task == "multilabel" and classes is None:
        if not flat:
            return None
        classes = max(len(value) if isinstance(value, list) else 1 for value in flat)
    return Language(task=task, classes=classes)


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of what spreadsheets take for formulas."""


def guarded(text: str) -> str:
    """Put a quote before text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def unguarded(text: str) -> str:
    """Take away the quote that :func:`guarded` has put there."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA) else text


def plain_classes(classes: int | Sequence[str] | None) -> int | list[str] | None:
    """Classes as JSON-able data."""
    return classes if classes is None or isinstance(classes, int) else list(classes)


def check_classes(classes: int | Sequence[str] | None) -> None:
    """Raise ValueError for classes whose names a cell could not tell apart."""
    if classes is None:
        return
    if isinstance(classes, int):
        if classes < 1:
            raise ValueError(f"classes={classes}: how many classes there are, 1 or more, or their names.")
        return
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes={classes!r}: a list of names, or how many there are.")
    wrong = [n for n in classes if n != n.strip() or not n or ";" in n or n.lower() in ("skip", "none")]
    if wrong:
        raise ValueError(f"class name {wrong[0]!r}: a name is not empty, skip or none, has no ; and no blanks around.")
    unwritable = [n for n in classes if "\0" in n or n.encode(errors="replace").decode() != n]
    if unwritable:
        raise ValueError(f"class name {unwritable[0]!r}: a name has no NUL, and no half of a character.")
    twice = [n for n, count in Counter(map(unguarded, classes)).items() if count > 1]
    if twice:
        raise ValueError(f"class name {twice[0]!r} is given twice: names are told apart by their text alone.")
