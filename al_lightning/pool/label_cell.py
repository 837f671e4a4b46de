"""What a cell that people fill in may hold, and what it means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from al_lightning.errors import PoolError
from al_lightning.pool.oracle import SKIP

TASKS = ("multiclass", "binary", "multilabel", "regression")
"""Tasks whose labels fit a cell."""


def words(value: str) -> str:
    """A cell's text in an error message: short, and nothing in it acts on a terminal."""
    shown = value if len(value) <= 60 else f"{value[:60]}..."
    return ascii(shown)


@dataclass(frozen=True, kw_only=True)
class Language:
    """How labels are written in a cell.

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
        """How many classes there are, if that is known."""
        if self.classes is None:
            return 2 if self.task == "binary" else None
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def allowed(self) -> str:
        """What a cell may hold, for messages."""
        if self.task == "regression":
            return "a number, several separated by ;, or skip"
        if self.names is not None:
            one = ", ".join(self.names[:30]) + (", ..." if len(self.names) > 30 else "")
        else:
            one = "class numbers 0, 1, ..." if self.count is None else f"class numbers 0 to {self.count - 1}"
        return f"{one}{', several separated by ;, none' if self.task == 'multilabel' else ''} or skip"

    def read(self, cell: str) -> Any:
        """The label a cell holds, SKIP, or None for an empty one.

        Raises:
            ValueError: it holds no label of this task.
        """
        text = cell.strip()
        if not text:
            return None
        if text.lower() == "skip":
            return SKIP
        if self.task == "regression":
            numbers = [self._number(part) for part in text.split(";")]
            return numbers if len(numbers) > 1 else numbers[0]
        if self.task != "multilabel":
            return self._class(text)
        chosen = set() if text.lower() == "none" else {self._class(part.strip()) for part in text.split(";")}
        return [int(c in chosen) for c in range(self.count or 0)]

    def write(self, value: Any) -> str:
        """A label as a cell; :meth:`read` reads it back."""
        if value is SKIP:
            return "skip"
        if self.task == "multilabel" and isinstance(value, list) and set(value) <= {0, 1}:
            return ";".join(self._name(i) for i, on in enumerate(value) if on) or "none"
        if isinstance(value, list):
            return ";".join(self._name(v) for v in value)
        return self._name(value)

    def _name(self, value: Any) -> str:
        if self.names is not None and isinstance(value, int) and 0 <= value < len(self.names):
            return self.names[value]
        return value if isinstance(value, str) else json.dumps(value)

    def _number(self, text: str) -> float:
        if not re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text):
            raise ValueError(text)
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number

    def _class(self, text: str) -> int:
        if self.names is not None:
            return self.names.index(text)  # a ValueError where it is none
        found = re.fullmatch(r"([0-9]{1,9})(\.0*)?", text)  # spreadsheets make 3.0 of 3
        if found is None or (self.count is not None and int(found[1]) >= self.count):
            raise ValueError(text)
        return int(found[1])


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
    twice = [name for name in classes if list(classes).count(name) > 1]
    if twice:
        raise ValueError(f"class name {twice[0]!r} is given twice: names are told apart by their text alone.")
