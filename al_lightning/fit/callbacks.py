"""The user's own callbacks over the fits of a run: each fit starts them as they were set, and what they collect stays.

docs/adr/0018 says which attribute is which.
"""

from __future__ import annotations

import copy
import dis
import inspect
import sys
from collections.abc import Iterator, Sized
from contextlib import suppress
from functools import cache
from numbers import Number
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

Memo = dict[int, Any]
_SCALARS = (type(None), bool, Number, str, bytes, torch.dtype, torch.device)
_COPIED = (Tensor, nn.Module, torch.optim.Optimizer)
_ABSENT = object()


def shared_by_fits(callback: Callback) -> bool:
    """Tell whether all fits of a run use this one object: the user's own, a ModelCheckpoint, or one that asks."""
    wish = getattr(callback, "al_shared", None)
    own = isinstance(callback, ModelCheckpoint) or not _is_lightnings(type(callback))
    return _runs_once(callback) or (own if wish is None else bool(wish))


def _runs_once(callback: Callback) -> bool:
    cli = sys.modules.get("lightning.pytorch.cli")
    return cli is not None and isinstance(callback, cli.SaveConfigCallback)


def attributes(thing: Any) -> dict[str, Any]:
    """Attributes of an object, those in ``__slots__`` too."""
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind) if hasattr(thing, name)]
    return {**{name: getattr(thing, name) for name in slots}, **getattr(thing, "__dict__", {})}


class UsersCallbacks:
    """Hold how the callbacks of a Trainer were set, so that every fit finds them so.

    Numbers, strings and None go back to what they were set to, tensors and modules to copies of them, and what
    Lightning's own classes keep, to what it was. Collections and all other objects are left alone: they go on growing
    from fit to fit. A callback that ends fits starts each of them anew in everything, since it may decide by what it
    has collected.
    """

    def __init__(self) -> None:
        self._set: dict[int, _AsSet] = {}
        self._warned: set[str] = set()
        self._had_a_run = False

    def begin(self, trainer: L.Trainer, fresh: L.Trainer, memo: Memo, *, has_run: bool) -> None:
        """Put them as they were set, for a fit of a fresh copy of the Trainer.

        Args:
            trainer: the user's.
            fresh: its copy.
            memo: what the copy has in the place of what, by ``id``.
            has_run: whether an earlier copy has run; before, they are as the user sets them.
        """
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        ours = [c for c in callbacks if shared_by_fits(c) and not (_runs_once(c) or getattr(c, "al_shared", False))]
        for was in self._set.values():
            was.refer({})
        has_run = has_run or self._had_a_run
        kept = self._set if has_run else {}
        shared = {key: value for key, value in memo.items() if value is not None and id(value) == key}
        self._set = {id(c): kept.get(id(c)) or _AsSet(c, {**shared, id(trainer): trainer}) for c in ours}
        for was in self._set.values():
            if was.changed and type(was.callback).__qualname__ not in self._warned:
                self._warned.add(type(was.callback).__qualname__)
                _say(was)
            if has_run:
                was.put()
            was.refer({**memo, id(trainer): fresh})

    def note_left(self) -> None:
        """Note how a run leaves them: what is different afterwards, the user has set anew."""
        self._had_a_run = True
        for was in self._set.values():
            was.note_left()


class _AsSet:
    """One callback, or an object of its own, as it was set."""

    def __init__(self, callback: Any, memo: Memo) -> None:
        self.callback, self._shared = callback, memo
        self._kind: Any = callback.__class__
        self._ends_fits = _ends_fits(self._kind)
        self._names = set(attributes(callback))
        self._values, self._copies = dict[str, Any](), dict[str, Any]()
        once = dict(memo)  # for all: an optimiser and what it optimises are copied together
        self._left: dict[str, Any] = {}
        for name, value in attributes(callback).items():
            if _is_scalar(value) or isinstance(value, Callback | L.Trainer):
                self._values[name] = value
            elif self._is_copied(name, value):
                self._copy(name, value, once)

    def _is_copied(self, name: str, value: Any) -> bool:
        if id(value) in self._shared:
            return False
        return self._ends_fits or isinstance(value, _COPIED) or name in _of_lightning(self._kind)

    def _copy(self, name: str, value: Any, memo: Memo) -> None:
        with suppress(Exception):  # a lock, an open file, a tensor with a graph: it is used as it is
            self._copies[name] = copy.deepcopy(value, memo)

    @property
    def changed(self) -> list[str]:
        """Attributes in which a fit has left something that the next one will not find."""
        now = attributes(self.callback)
        return [name for name, value in now.items() if self._is_lost(name, value)]

    def _is_lost(self, name: str, value: Any) -> bool:
        if name in _of_lightning(self._kind) | _begun_by_itself(self._kind):
            return False
        before = self._values.get(name, self._copies.get(name, _ABSENT))
        if before is _ABSENT and name not in self._names:
            before = getattr(type(self.callback), name, _ABSENT)  # a counter that begins at the class's own
        if _is_number(before):
            return _is_number(value) and not _same(value, before)
        return self._ends_fits and _is_collection(before) and len(value) != len(before)

    def note_left(self) -> None:
        self._left = {name: value for name, value in attributes(self.callback).items() if _is_scalar(value)}

    def refer(self, memo: Memo) -> None:
        """Have it refer to what a copy of the Trainer has in the place of the user's Trainer and callbacks."""
        for name, value in self._values.items():
            if isinstance(value, Callback | L.Trainer):
                _assign(self.callback, name, memo.get(id(value), value))

    def put(self) -> None:
        """Put it as it was set."""
        for name, value in self._left.items():
            now = attributes(self.callback).get(name, _ABSENT)
            if name in self._values and _is_scalar(now) and not _same(now, value):
                self._values[name] = now
        self._left = {}
        for name, value in attributes(self.callback).items():
            if not self._stays(name, value):
                _remove(self.callback, name)
        copies = copy.deepcopy(self._copies, dict(self._shared))
        for name, value in {**self._values, **copies}.items():
            if not (value is None and self._stays(name, attributes(self.callback).get(name))):
                _assign(self.callback, name, value)

    def _stays(self, name: str, value: Any) -> bool:
        """Return whether a fit leaves this to the next one."""
        if name in self._names and self._values.get(name, _ABSENT) is not None:
            return name not in self._values and name not in self._copies
        return not self._ends_fits and _is_collection(value) and name not in _of_lightning(self._kind)


def _say(was: _AsSet) -> None:
    name = type(was.callback).__name__
    listed = ", ".join(f"{name}.{attribute}" for attribute in was.changed)
    rank_zero_warn(
        f"{listed}: every fit starts with the value you set, so that what one fit counts does not act on the next, and "
        "after the run the last fit's value stands there, not one of all fits. Set al_shared = True on the callback to "
        "carry everything over from fit to fit, or al_shared = False to have all of it copied, in silence.",
        stacklevel=3,
    )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, _SCALARS) or (isinstance(value, tuple) and bool(value) and all(map(_is_scalar, value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def _is_collection(value: Any) -> bool:
    return isinstance(value, Sized) and not isinstance(value, str | bytes | nn.Module)


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(a == b) or (a != a and b != b)


def _assign(thing: Any, name: str, value: Any) -> None:
    if name in getattr(thing, "__dict__", {}) or name not in {n for kind in type(thing).__mro__ for n in _slots(kind)}:
        thing.__dict__[name] = value  # no property is in the way
    else:
        object.__setattr__(thing, name, value)


def _remove(thing: Any, name: str) -> None:
    if name in getattr(thing, "__dict__", {}):
        del thing.__dict__[name]
    else:
        object.__delattr__(thing, name)


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    named = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in named if name not in ("__dict__", "__weakref__")]


def _is_lightnings(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "lightning"


def _code(kind: type) -> Iterator[Any]:
    for member in vars(kind).values():
        function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
        if hasattr(function, "__code__"):
            yield function.__code__


@cache
def _ends_fits(kind: type) -> bool:
    """Return whether code of the user's in this class says ``should_stop``."""
    users = [k for k in kind.__mro__ if k is not object and not _is_lightnings(k)]
    return any("should_stop" in code.co_names for k in users for code in _code(k))


@cache
def _of_lightning(kind: type) -> frozenset[str]:
    """Attributes that Lightning's own classes among the bases set."""
    lightnings = [k for k in kind.__mro__ if _is_lightnings(k)]
    return frozenset().union(*(_named(code, "STORE_ATTR") for k in lightnings for code in _code(k)))


@cache
def _begun_by_itself(kind: type) -> frozenset[str]:
    """Attributes that the class sets as a fit starts, whatever they were: nobody takes them for those of all fits."""
    hooks = [inspect.unwrap(getattr(kind, name)).__code__ for name in ("setup", "on_fit_start", "on_train_start")]
    return frozenset().union(*(_named(code, "STORE_ATTR") - _named(code, "LOAD_ATTR") for code in hooks))


def _named(code: Any, operation: str) -> set[str]:
    return {step.argval for step in dis.get_instructions(code) if step.opname == operation}
