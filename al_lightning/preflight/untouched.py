"""Leave everything as it was: weights, buffers, random generators, and what objects hold."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn

from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.preflight.collected import attributes, collected_by

_DEEP = 3
"""How many objects deep random generators are looked for."""
_MANY = 1000
"""A container of more is data, in which no generators are looked for."""
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


def _tensors(model: nn.Module) -> Callable[[], None]:
    """Return how to give all tensors of a module the values they have now."""
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
    """Leave the pool, the user's DataModule, what the user's code collects and every random generator as they are.

    Args:
        pool: whose attributes stay.
        others: objects of the user's whose code runs meanwhile.
    """
    restore = [attributes(pool), *collected_by([*others, pool.inner, *pool.datasets, *pool.loader.values()])]
    if pool.inner is not None:
        restore.append(attributes(pool.inner))
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
    restore = [*(attributes(module) for module in model.modules()), _tensors(model), *map(_restoring, own)]
    try:
        yield model
    finally:
        for put_back in restore:
            put_back()


def _means_a_module(value: Any) -> bool:
    cells = getattr(value, "__closure__", None) or ()
    return any(isinstance(cell.cell_contents, nn.Module) for cell in cells)


def _copied(model: L.LightningModule, shared: Iterable[Any]) -> L.LightningModule | None:
    if any(_means_a_module(value) for module in model.modules() for value in vars(module).values()):
        return None  # a function that was put into the module works with this one, not with a copy
    try:
        return copy.deepcopy(model, {id(value): value for value in shared})
    except Exception:  # locks, open files, weights made by hooks: anything may refuse
        return None
