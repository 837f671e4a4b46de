"""The parts of a batch, whatever it is made of: where they stand, what they hold, and the batch without some."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterable, Mapping, MutableMapping
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from al_lightning.pool.fingerprint import digest


class Kind(Enum):
    """Hold how a part stands in what it is a part of."""

    KEY = "key of a mapping"
    PART = "part of a tuple or list"
    NAME = "attribute of an object"
    EACH = "one of as many as there are records"


Step = tuple[Kind, Any]
Path = tuple[Step, ...]
_LEAVES = (Tensor, np.ndarray, np.generic, PackedSequence, nn.Module, type, str, bytes, int, float, type(None))


def spell(path: Path) -> str:
    """Write a path as an expression, for example ``batch[1]["labels"]``."""
    forms = {Kind.KEY: "[{!r}]", Kind.PART: "[{}]", Kind.NAME: ".{}", Kind.EACH: "[i]"}
    return "batch" + "".join(forms[kind].format(name) for kind, name in path)


def leaves(batch: Any, smaller: Any, records: int) -> dict[Path, tuple[str, ...]]:
    """List what a batch holds: path -> fingerprints of what stands there, one or, in a list of records, several.

    Args:
        batch: of several records.
        smaller: made of one record less; a list that is shorter by one there has a part for each record.
        records: in ``batch``.
    """
    found: dict[Path, tuple[str, ...]] = {}
    _collect(batch, smaller, records, (), found)
    return found


def _collect(node: Any, smaller: Any, records: int, path: Path, found: dict[Path, tuple[str, ...]]) -> None:
    steps = _steps(node)
    if steps is None:
        found[path] = (*found.get(path, ()), _fingerprint(node))
        return
    others = dict(_steps(smaller) or ())
    each = isinstance(node, list | tuple) and (len(node), len(others)) == (records, records - 1) and records > 1
    for step, child in steps:
        beside = others.get(step, next(iter(others.values()), None) if each else None)
        _collect(child, beside, records, (*path, (Kind.EACH, None) if each else step), found)


def _steps(node: Any) -> list[tuple[Step, Any]] | None:
    """The parts of a node with the steps that lead to them; None where it has none."""
    if isinstance(node, _LEAVES) or callable(node) or hasattr(node, "tobytes"):
        return None
    if is_keyed(node):
        return [((Kind.KEY, key), node[key]) for key in _keys(node)]
    if isinstance(node, list | tuple):
        return [((Kind.PART, i), part) for i, part in enumerate(node)]
    if dataclasses.is_dataclass(node):
        return [((Kind.NAME, f.name), getattr(node, f.name)) for f in dataclasses.fields(node)]
    return [((Kind.NAME, name), value) for name, value in vars(node).items()] if hasattr(node, "__dict__") else None


def is_keyed(node: Any) -> bool:
    """Return whether parts are read by key: a mapping, or an object that behaves like one, as batches of graphs do."""
    return isinstance(node, Mapping) or all(hasattr(node, name) for name in ("keys", "__getitem__", "__delitem__"))


def _keys(node: Any) -> list[Any]:
    return list(node.keys() if callable(node.keys) else node.keys)


def _fingerprint(value: Any) -> str:
    if isinstance(value, Tensor) and value.is_nested:
        value = list(value.unbind())
    elif isinstance(value, Tensor) and value.is_sparse:
        value = value.to_dense()
    elif isinstance(value, PackedSequence):
        value = [value.data, value.batch_sizes, value.sorted_indices]
    elif not isinstance(value, _LEAVES) and not hasattr(value, "tobytes"):
        try:
            value = pickle.dumps(value)
        except Exception:  # then it is unlike anything, itself included
            value = repr(object())
    return digest(value)


def collapsed(paths: Iterable[Path], everything: Iterable[Path]) -> tuple[Path, ...]:
    """Replace the paths of all parts of something by its own.

    Args:
        paths: of leaves.
        everything: paths of all leaves there are.
    """
    paths, everything = set(paths), set(everything)
    others = everything - paths
    kept = {path[:depth] for path in others for depth in range(len(path) + 1)}  # what holds something else, too
    found = {next((p for d in range(len(path) + 1) if (p := path[:d]) not in kept), path) for path in paths}
    return tuple(sorted(found, key=spell))


class Elsewhere(Exception):
    """A batch has no part where one is expected."""


def without(node: Any, paths: Iterable[Path], *, blank: bool = False) -> Any:
    """Take parts out of a batch, which stays as it is; what remains keeps its type.

    A tuple or list that loses a part is a tuple of the others, or the one that is left. An attribute of an object
    becomes None.

    Args:
        node: the batch.
        paths: of what is taken out.
        blank: whether None is put in the place of every part instead.

    Raises:
        Elsewhere: there is no such part.
    """
    below: dict[Step, list[Path]] = {}
    for step, *rest in paths:
        below.setdefault(step, []).append(tuple(rest))
    if not below:
        return node
    kind = next(iter(below))[0]
    if kind is Kind.EACH and isinstance(node, list | tuple):
        (rests,) = below.values()
        return [without(part, rests, blank=blank) for part in node]
    if kind is Kind.KEY and is_keyed(node):
        return _without_keys(node, below, blank)
    if kind is Kind.PART and isinstance(node, list | tuple):
        return _without_parts(node, below, blank)
    if kind is Kind.NAME and all(hasattr(node, name) for _, name in below):
        made = copy.copy(node)
        for (_, name), rests in below.items():
            left = None if () in rests else without(getattr(node, name), rests, blank=blank)
            object.__setattr__(made, name, left)
        return made
    raise Elsewhere(f"a {type(node).__name__} has no {kind.value} {next(iter(below))[1]!r}")


def _without_keys(node: Any, below: Mapping[Step, list[Path]], blank: bool) -> Any:
    made = copy.copy(node) if isinstance(node, MutableMapping) or not isinstance(node, Mapping) else dict(node)
    for (_, key), rests in below.items():
        if key not in _keys(node):
            raise Elsewhere(f"the {type(node).__name__} has the keys {_keys(node)}, and not {key!r}")
        if () not in rests:
            made[key] = without(node[key], rests, blank=blank)
        elif blank:
            made[key] = None
        else:
            del made[key]
    return made


def _without_parts(node: Any, below: Mapping[Step, list[Path]], blank: bool) -> Any:
    parts, gone = list(node), set()
    for (_, place), rests in below.items():
        if not -len(parts) <= place < len(parts):
            raise Elsewhere(f"the {type(node).__name__} has {len(parts)} parts, and not number {place}")
        if () in rests:
            gone.add(place % len(parts))
        else:
            parts[place] = without(parts[place], rests, blank=blank)
    if blank or not gone:
        made = [None if i in gone else part for i, part in enumerate(parts)]
        return type(node)._make(made) if hasattr(node, "_make") else type(node)(made)
    left = [part for i, part in enumerate(parts) if i not in gone]
    return left[0] if len(left) == 1 else tuple(left)
