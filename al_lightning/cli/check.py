"""Options of the command against what their parts take: the option, its value and what is allowed, before all else.

The parts say it themselves, in the type hints of their arguments.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_lightning.errors import ActiveLearningError


class BadOption(ActiveLearningError):
    """An option of the command that no part accepts."""


_PLAIN: dict[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "text"),
    Path: (str, "a path"),
    type(None): (type(None), "null"),
}


def check(node: Any, option: str) -> None:
    """Check the settings of a part, and of parts inside it.

    Args:
        node: its configuration, as plain data.
        option: its name on the command line.

    Raises:
        BadOption: a setting the part does not have, or of another type than it takes.
    """
    from hydra.utils import get_object

    if isinstance(node, list):
        for i, inner in enumerate(node):
            check(inner, f"{option}[{i}]")
    if not isinstance(node, dict) or "_target_" not in node:
        return
    target = get_object(node["_target_"])
    hints, open_ended = _hints(target)
    for name, value in node.items():
        if name.startswith("_"):
            continue
        if name not in hints and not open_ended:
            raise BadOption(f"{option}.{name}={value!r}: no such option; allowed: {', '.join(hints)}.")
        check(value, f"{option}.{name}")
        if not fits(value, hints.get(name, Any)):
            raise BadOption(f"{option}.{name}={value!r}: allowed: {in_words(hints[name])}.")


def _hints(target: Any) -> tuple[dict[str, Any], bool]:
    parameters = inspect.signature(target).parameters.values()
    # A dataclass inherits fields whose hints are names of the module that its parent stands in.
    owner = target.__init__ if inspect.isclass(target) and not dataclasses.is_dataclass(target) else target
    try:
        hints = typing.get_type_hints(owner)
    except NameError:  # of a library that imports them for type checkers only
        hints = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind in named}, any(
        p.kind is p.VAR_KEYWORD for p in parameters
    )


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value can be what a type hint asks for; a part inside a part can."""
    if hint is Any or (isinstance(value, dict) and "_target_" in value):
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if hint in _PLAIN:
        if isinstance(value, float) and math.isnan(value):
            return False
        return isinstance(value, _PLAIN[hint][0]) and (hint is bool or not isinstance(value, bool))
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, dict)
    if inspect.isclass(kind) and issubclass(kind, Sequence | set):
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value if inner)
    return not isinstance(value, bool | int | float | str | list | dict | None) or not inspect.isclass(kind)


def in_words(hint: Any) -> str:
    """Return what a type hint asks for, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint][1]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(one) for one in inner))
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Sequence | set):
        return f"a list of {in_words(inner[0])}" if inner else "a list"
    return f"a {getattr(kind, '__name__', kind)}, by its _target_"
