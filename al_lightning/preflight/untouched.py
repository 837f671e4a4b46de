"""Leave everything as it was: weights, buffers, random generators, and what objects hold."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn

from al_lightning.pool.datamodule import PoolDataModule

_DEEP = 3
"""How many objects deep random generators are looked for."""
_MANY = 1000
"""A container of more is data, in which no generators are looked for."""
_LIBRARIES = ("torch", "lightning", "al_lightning", "numpy", "builtins", "abc", "typing", "collections")
"""Whose classes hold no data of the user's."""
_LEAVES = (str, bytes, int, float, bool, Tensor, np.ndarray, np.generic, type, nn.Module)


def generators_in(roots: Iterable[Any]) -> list[Any]:
    """Random generators that objects hold, of torch, NumPy and Python: a sampler's, an augmentation's."""
    found: dict[int, Any] = {}
    seen: set[int] = set()

    def look(value: Any, depth: int) -> None:
        if value is None or isinstance(value, _LEAVES) or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
            found[id(value)] = value
        elif depth:
            for part in _parts(value):
                look(part, depth - 1)

    for root in roots:
        look(root, _DEEP)
    return list(found.values())


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values()) if len(value) < _MANY else ()
    if isinstance(value, list | tuple):
        return value if len(value) < _MANY else ()
    return list(getattr(value, "__dict__", {}).values())


def _restoring(generator: Any) -> Callable[[], None]:
    if isinstance(generator, np.random.Generator):
        bits, before = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", before)
    if isinstance(generator, random.Random):
        state = generator.getstate()
        return lambda: generator.setstate(state)
    kept = generator.get_state()
    return lambda: generator.set_state(kept)


def _global_generators() -> Callable[[], None]:
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)

    return restore


def _of_classes(things: Iterable[Any]) -> Iterator[Callable[[], None]]:
    """How to give the user's classes the data they hold now: counters and lists that all their objects share."""
    classes = {cls for thing in things for cls in type(thing).__mro__ if not cls.__module__.startswith(_LIBRARIES)}
    for cls in classes:
        data = {name: value for name, value in vars(cls).items() if not name.startswith("__") and _is_data(value)}
        yield partial(_put_data, cls, data, [(v, v.copy()) for v in data.values() if isinstance(v, list | dict | set)])


def _is_data(value: Any) -> bool:
    return not (callable(value) or hasattr(type(value), "__get__"))


def _put_data(cls: type, data: Mapping[str, Any], contents: list[tuple[Any, Any]]) -> None:
    for name in [name for name, value in vars(cls).items() if not name.startswith("__") and _is_data(value)]:
        if name not in data:
            delattr(cls, name)
    for name, value in data.items():
        if vars(cls).get(name) is not value:
            setattr(cls, name, value)
    for live, before in contents:
        _refill(live, before)


def _refill(live: Any, before: Any) -> None:
    if live != before:
        live.clear()
        live.extend(before) if isinstance(live, list) else live.update(before)


def _attributes(owner: Any) -> Callable[[], None]:
    """How to give an object the attributes it has now, and its lists, dicts and sets what they hold now."""
    values = dict(vars(owner))
    contents = [(value, value.copy()) for value in values.values() if isinstance(value, list | dict | set)]

    def restore() -> None:
        vars(owner).clear()
        vars(owner).update(values)
        for live, before in contents:
            live.clear()
            live.extend(before) if isinstance(live, list) else live.update(before)

    return restore


def _tensors(model: nn.Module) -> Callable[[], None]:
    """How to give all tensors of a module the values they have now."""
    named = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    kept = [(t, t.detach().clone(), t.requires_grad) for t in (*model.parameters(), *model.buffers(), *named)]

    @torch.no_grad()
    def restore() -> None:
        for live, before, requires_grad in kept:
            live.data = before
            live.grad = None
            if live.is_leaf:
                live.requires_grad_(requires_grad)

    return restore


@contextmanager
def untouched(pool: PoolDataModule, others: Iterable[Any]) -> Iterator[None]:
    """Leave the pool, the user's DataModule, data of the user's classes and every random generator as they are.

    Args:
        pool: whose attributes stay.
        others: objects of the user's; what their classes hold stays.
    """
    restore = [_attributes(pool), *_of_classes([*others, *pool.datasets])]
    if pool.inner is not None:
        restore.append(_attributes(pool.inner))
    restore += [_restoring(generator) for generator in generators_in([pool, *pool.datasets])]
    restore += [_global_generators()]
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


@contextmanager
def stand_in(model: L.LightningModule, shared: Iterable[Any]) -> Iterator[L.LightningModule]:
    """A copy of the module to rehearse with, or the module itself, restored after, where it cannot be copied.

    Args:
        model: weights, buffers and attributes stay as they are.
        shared: objects that a copy holds in common with it, such as datasets.
    """
    copied = _copied(model, shared)
    if copied is not None:
        yield copied
        return
    own = generators_in(list(vars(module).values()) for module in model.modules())
    restore = [*(_attributes(module) for module in model.modules()), _tensors(model), *map(_restoring, own)]
    try:
        yield model
    finally:
        for put_back in restore:
            put_back()


def _copied(model: L.LightningModule, shared: Iterable[Any]) -> L.LightningModule | None:
    try:
        return copy.deepcopy(model, {id(value): value for value in shared})
    except Exception:  # locks, open files, weights made by hooks: anything may refuse
        return None
