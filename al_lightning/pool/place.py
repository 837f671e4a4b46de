"""Where a collate function puts the target: found by collating records with other targets, see docs/adr/0016."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import default_collate

from al_lightning.errors import OutputMismatch
from al_lightning.pool.batch_parts import Elsewhere, Path, collapsed, leaves, spell, without
from al_lightning.pool.fingerprint import digest
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.other_target import other_than

_RECORDS = 3
"""Of a batch that is collated to try; those that are read at most are twice as many."""
_SEEDS = 4
_INFER = (
    "Give the model an infer(batch) method that takes what it needs from the batch and returns "
    "al_lightning.scoring.Outputs(logits=...) or Outputs(scores=...)."
)
_GUESSES: tuple[tuple[Any, Any], ...] = (
    (0, 1),
    (0.0, 1.0),
    ([0, 1], [1, 0]),
    (torch.tensor([0, 1]), torch.tensor([1, 0])),
    ("a", "b"),
)
"""Pairs of labels to try where nobody knows any."""

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Place:
    """Hold where the target stands in a batch.

    Args:
        paths: of the parts that depend on it.
        problem: why that cannot be told; None where it can.
        label: that the user's ``attach`` took, to put items together while scoring; None where there is no ``attach``.
    """

    paths: tuple[Path, ...] = ()
    problem: str | None = None
    label: Any = None

    def check(self) -> None:
        """Raise OutputMismatch unless it is known."""
        if self.problem is not None:
            raise OutputMismatch(f"{self.problem} {_INFER}")

    def withheld(self, batch: Any, *, blank: bool = False) -> Any:
        """The batch without its target, everything else as it is.

        Args:
            batch: as it was collated.
            blank: whether None stands in the target's place instead.

        Raises:
            OutputMismatch: the target's place is not known, or the batch has another structure.
        """
        self.check()
        try:
            return without(batch, self.paths, blank=blank)
        except Elsewhere as error:
            raise OutputMismatch(
                f"collation puts the target into {self}, and the batch that the transfer hooks returned has another "
                f"structure: {error}. {_INFER}"
            ) from None

    def __str__(self) -> str:
        return ", ".join(map(spell, self.paths)) or "no part of the batch"


def place_of(data: Any, items: ItemFormat, collate: Collate | None, known: Any = None) -> Place | None:
    """Find the target's place in a batch; None where it stands as in an item.

    PyTorch's ``default_collate`` leaves it there. Any other function is tried on a few records: all that changes with
    their targets depends on these. Nothing else changes meanwhile, random generators included.

    Args:
        data: the records as scoring reads them.
        items: where the target sits in an item.
        collate: the user's collate function, or None for PyTorch's.
        known: a label that was bought, or None.
    """
    if items.attach is None and collate in (None, default_collate):
        return None
    return _Trial(data, items, collate or default_collate, known).place()


class _Trial:
    """A few records, and what a collate function makes of them."""

    def __init__(self, data: Any, items: ItemFormat, collate: Collate, known: Any) -> None:
        ids = np.unique(np.linspace(0, len(data) - 1, 2 * _RECORDS).astype(int)).tolist()
        with isolate_rng():
            rows = [data[i] for i in ids]
        self._rows = [rows[i % len(rows)] for i in range(2 * _RECORDS)]  # a small pool has to do
        self._items, self._collate, self._known = items, collate, known
        self._who = f"the collate function {_name_of(collate)}"

    def place(self) -> Place:
        """Try, and say what has been found."""
        why: Exception | None = None
        for own, others in self._choices():
            try:
                return self._found(own, others)
            except Exception as error:  # it is the user's function, and may well refuse what was made up
                why = why or error
        return Place(problem=f"where {self._who} puts the target cannot be tried out: {type(why).__name__}: {why}.")

    def _choices(self) -> Iterator[tuple[list[Any], list[list[Any]]]]:
        """Targets of the records, and other ones to try in their place."""
        n = len(self._rows)
        if self._items.attach is None:
            own = [self._items.place_of_target(self._items.shown(row, self._known)) for row in self._rows]
            yield own, [list(map(other_than, own)), [*own[1:_RECORDS], own[0], *own[_RECORDS:]]]
        labels = [] if self._known is None else [(self._known, other_than(self._known))]
        for a, b in [*labels, *_GUESSES]:
            yield [a] * n, [[b] * n]

    def _found(self, own: list[Any], others: list[list[Any]]) -> Place:
        first = self._leaves(own)
        unsteady = _differing(first, self._leaves(own))
        if unsteady:
            return Place(
                problem=f"{self._who} returns another batch each time in {_spelled(collapsed(unsteady, first))}, "
                "whatever the random seeds are, so where it puts the target cannot be told."
            )
        changed = self._changes(first, own, others)
        paths = collapsed(changed[0], {*first, *changed[0]})
        together = set[Path]().union(*changed)  # what only counts of objects show, for example
        if () not in collapsed(together, {*first, *together}):
            paths = collapsed(together, {*first, *together})
        mixed = self._of_both(first, own, together)
        if () in paths or mixed:
            where = _spelled(collapsed(mixed, first)) if mixed else "all of the batch"
            return Place(problem=f"{self._who} mixes inputs and targets, in {where}.")
        mixes = self._of_several(own, paths)
        if mixes is not None:
            return Place(
                problem=f"{self._who} mixes the records of a batch at random, as mixup does, in {mixes}, so no score "
                "would be that of one record. Mix in training_step."
            )
        return Place(paths, label=own[0] if self._items.attach else None)

    def _changes(self, first: Mapping[Path, Any], own: list[Any], others: list[list[Any]]) -> list[set[Path]]:
        """Return what changes with the targets, each time that others are tried; raises where none can be."""
        found: list[set[Path]] = []
        why: Exception = ValueError("no other target than those of the records is known")
        for targets in others:
            if digest(targets[:_RECORDS]) != digest(own[:_RECORDS]):
                try:
                    found.append(_differing(first, self._leaves(own, targets)))
                except Exception as error:
                    why = error
        if not found:
            raise why
        return found

    def _of_both(self, first: Mapping[Path, Any], own: list[Any], changed: set[Path]) -> set[Path]:
        """Return what changes with the inputs as well, where those keep their shapes."""
        rows, self._rows = self._rows, [self._other_input(row) for row in self._rows]
        try:
            return changed & set(first) & _differing(first, self._leaves(own))
        except Exception:  # then such inputs cannot be
            return set()
        finally:
            self._rows = rows

    def _other_input(self, item: Any) -> Any:
        other = other_than(item, text=False)
        return other if self._items.attach else self._items.replaced(other, self._items.place_of_target(item))

    def _of_several(self, own: Sequence[Any], paths: tuple[Path, ...]) -> str | None:
        """Return what of the inputs is made of several records, under one of a few random seeds."""

        def seen(rows: Sequence[int], seed: int) -> dict[str, Any]:
            return dict(_rows_of(without(self._batch(rows, own, seed), paths, blank=True), len(rows)))

        steady = seen(range(_RECORDS), 0)
        for seed in range(_SEEDS):
            here, there = seen(range(_RECORDS), seed), seen([0, *range(_RECORDS, 2 * _RECORDS - 1)], seed)
            for name, value in here.items():
                comparable = name in steady and name in there and value.shape == there[name].shape
                if comparable and digest(value) != digest(steady[name]) and digest(value[0]) != digest(there[name][0]):
                    return name
        return None

    def _batch(self, rows: Sequence[int], targets: Sequence[Any], seed: int = 0) -> Any:
        place = self._items.attached if self._items.attach else self._items.replaced
        items = [place(self._rows[i], targets[i]) for i in rows]
        with isolate_rng(), _generators_kept(self._collate):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            return self._collate(items)

    def _leaves(self, own: Sequence[Any], targets: Sequence[Any] | None = None) -> dict[Path, tuple[str, ...]]:
        batch = self._batch(range(_RECORDS), own if targets is None else targets)
        return leaves(batch, self._batch(range(_RECORDS - 1), own), _RECORDS)


def _rows_of(node: Any, records: int, name: str = "batch") -> Iterator[tuple[str, Any]]:
    """Arrays of a batch that have a row for each record."""
    if isinstance(node, Tensor | np.ndarray):
        if node.ndim and len(node) == records:
            yield name, node
    elif isinstance(node, Mapping):
        for key, part in node.items():
            yield from _rows_of(part, records, f"{name}[{key!r}]")
    elif isinstance(node, list | tuple):
        for i, part in enumerate(node):
            yield from _rows_of(part, records, f"{name}[{i}]")


def _differing(a: Mapping[Path, Any], b: Mapping[Path, Any]) -> set[Path]:
    return {path for path in {*a, *b} if a.get(path) != b.get(path)}


def _spelled(paths: Sequence[Path]) -> str:
    return ", ".join(map(spell, paths))


def _name_of(collate: Any) -> str:
    function = collate.func if isinstance(collate, partial) else collate
    return str(getattr(function, "__qualname__", type(function).__qualname__))


@contextmanager
def _generators_kept(collate: Any) -> Iterator[None]:
    """Have random generators that a collate function holds in the state they are in, before and after."""
    found = [value for owner in _owners(collate) for value in owner]
    restore: list[Callable[[], Any]] = []
    for held in found:
        if isinstance(held, torch.Generator | np.random.RandomState):
            generator: Any = held
            restore.append(partial(generator.set_state, generator.get_state()))
        elif isinstance(held, np.random.Generator):
            restore.append(partial(setattr, held.bit_generator, "state", held.bit_generator.state))
        elif isinstance(held, random.Random):
            restore.append(partial(held.setstate, held.getstate()))
    try:
        yield
    finally:
        for back in restore:
            back()


def _owners(collate: Any) -> Iterator[list[Any]]:
    """Yield what a function, a method or an object can reach directly."""
    if isinstance(collate, partial):
        yield [*collate.args, *collate.keywords.values()]
        yield from _owners(collate.func)
    owner = getattr(collate, "__self__", collate)
    with suppress(TypeError):
        yield list(vars(owner).values())
    for cell in getattr(collate, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            yield [cell.cell_contents]
