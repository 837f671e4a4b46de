"""Whether what is taken for the target is what the module learns from: asked where an item has several candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from al_lightning.errors import PoolError
from al_lightning.fit.plan import Weights
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.fingerprint import digest
from al_lightning.pool.state import PoolState


def relabel(pool: PoolDataModule, labels: Mapping[int, Any]) -> None:
    """Give a pool these labels and no others."""
    pool.state = PoolState(pool.size)
    pool.state.query(labels)
    pool.state.answer(labels)


def check_target(
    pool: PoolDataModule, labels: Mapping[int, Any], initial: Weights, trained: Callable[[], Weights]
) -> None:
    """Train on a batch with the records' labels, and with each other's: something must come out differently.

    Items of two elements, or with a key or a function for the target, are taken at their word.

    Args:
        pool: the records; its labels are put back.
        labels: of a few.
        initial: weights before a step.
        trained: weights after one, from those and with the same seeds each time.

    Raises:
        PoolError: the module trains the same whatever the last element of an item is.
    """
    several = pool.items.elements(pool.eval_data[0])
    own = list(labels.values())
    others = [*own[1:], *own[:1]]
    if several < 3 or all(digest(a) == digest(b) for a, b in zip(own, others, strict=True)):
        return
    once = trained()
    if _same(once, initial):  # no step was taken, or one of size zero
        return
    try:
        relabel(pool, dict(zip(labels, others, strict=True)))
        again = trained()
    finally:
        relabel(pool, labels)
    if _same(once, again):
        raise PoolError(
            f"the last of the {several} elements of an item is taken for its target, {own[0]!r} in one of them, and "
            "training_step makes the same of it whatever it is: the target must be another element. Let items end with "
            "it, or pass PoolDataModule(attach=...), a function (item, label) -> item that knows its place, and an "
            "oracle that knows the labels, such as FunctionOracle(lambda id: ...)."
        )


def _same(a: Weights, b: Weights) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)
