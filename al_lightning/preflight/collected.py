"""What the user's code collects: in objects, in their classes, and in lists and counters around their functions."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

PutBack = Callable[[], object]
_LIBRARIES = {"torch", "lightning", "al_lightning", "numpy", "builtins", "abc", "typing", "collections"}
"""Packages whose code collects nothing of the user's."""
_PLAIN = (int, float, str, bool, tuple, type(None))
"""Values that code replaces; a container is changed in its place."""


def attributes(owner: Any) -> PutBack:
    """Return how to give an object the attributes it has now, and its lists, dicts and sets what they hold now."""
    values = dict(vars(owner))
    inside = [*contents(values.values())]

    def restore() -> None:
        vars(owner).clear()
        vars(owner).update(values)
        for put_back in inside:
            put_back()

    return restore


def collected_by(things: Iterable[Any]) -> Iterator[PutBack]:
    """Yield how to give back what classes and functions of the user's hold now, as a counter, or losses in a notebook.

    Args:
        things: objects of the user's: their classes and functions are looked at, and what lies around those.
    """
    things = list(things)
    classes = {cls for thing in things for cls in type(thing).__mro__ if _is_users(cls)}
    for cls in classes:
        data = {name: value for name, value in vars(cls).items() if not name.startswith("__") and _is_data(value)}
        yield partial(_put_data, cls, data)
        yield from contents(data.values())
    for function in {f for owner in (*things, *classes) for f in _functions_of(owner)}:
        yield from _around(function)


def contents(values: Iterable[Any]) -> Iterator[PutBack]:
    """Yield how to give those of the values that are lists, dicts or sets what they hold now."""
    for value in values:
        if isinstance(value, list | dict | set):
            yield partial(_refill, value, value.copy())


def _is_users(code: Any) -> bool:
    return (code.__module__ or "builtins").split(".")[0] not in _LIBRARIES


def _is_data(value: Any) -> bool:
    return not (callable(value) or hasattr(type(value), "__get__"))


def _put_data(cls: type, data: Mapping[str, Any]) -> None:
    for name in [name for name, value in vars(cls).items() if not name.startswith("__") and _is_data(value)]:
        if name not in data:
            delattr(cls, name)
    for name, value in data.items():
        if vars(cls).get(name) is not value:
            setattr(cls, name, value)


def _refill(live: Any, before: Any) -> None:
    live.clear()
    live.extend(before) if isinstance(live, list) else live.update(before)


def _functions_of(owner: Any) -> Iterator[types.FunctionType]:
    for value in (owner, *getattr(owner, "__dict__", {}).values()):
        function = getattr(value, "__func__", value)
        if isinstance(function, types.FunctionType) and _is_users(function):
            yield function


def _around(function: types.FunctionType) -> Iterator[PutBack]:
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # nothing is in it yet
            continue
        if isinstance(value, _PLAIN):
            yield partial(setattr, cell, "cell_contents", value)
        yield from contents([value])
    names = function.__globals__
    for name in (name for name in function.__code__.co_names if name in names):
        if isinstance(names[name], _PLAIN):
            yield partial(names.__setitem__, name, names[name])
        yield from contents([names[name]])
