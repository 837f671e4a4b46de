"""How a label enters and leaves a dataset item, and the two views a dataset is read through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from al_lightning.errors import PoolError

Attach = Callable[[Any, Any], Any]


def _like(example: Any) -> Callable[[Any], Any]:
    """Return a converter to the type the dataset uses for its own targets, so that collation sees no difference."""
    if isinstance(example, Tensor):
        dtype = example.dtype
        return lambda label: torch.as_tensor(label, dtype=dtype)
    if isinstance(example, np.ndarray | np.generic):
        kind = example.dtype
        return lambda label: np.asarray(label, dtype=kind)[()]
    return lambda label: label


def _replace_last(item: Any, label: Any) -> Any:
    if hasattr(item, "_make"):  # a namedtuple
        return item._make((*item[:-1], label))
    return [*item[:-1], label] if isinstance(item, list) else (*item[:-1], label)


@dataclass(frozen=True)
class ItemFormat:
    """Where the target sits in a dataset item.

    Args:
        target_key: key of the target in a dict item; None for tuples, whose last element it is.
        attach: the user's own ``attach(item, label) -> item``; then nothing is assumed about the item.
    """

    target_key: str | None = None
    attach: Attach | None = None

    def check(self, item: Any) -> None:
        """Raise :class:`PoolError` if labels could not be attached to such an item."""
        if self.attach is not None:
            return
        if isinstance(item, Mapping):
            if self.target_key is None:
                raise PoolError(
                    f"items are dicts with keys {sorted(map(str, item))}: say which key holds the label with "
                    "PoolDataModule(target_key=...)."
                )
        elif not (isinstance(item, tuple | list) and len(item) >= 2):
            raise PoolError(
                f"items are {type(item).__name__}, in which no label has a place. Pass PoolDataModule(attach=...), a "
                "function (item, label) -> item. Without it items are tuples (..., target) or dicts with target_key."
            )

    def target(self, item: Any) -> Any:
        """The label that the dataset itself holds, as plain JSON-able data.

        Raises:
            PoolError: the dataset holds none.
        """
        if isinstance(item, Mapping) and self.target_key in item:
            value = item[self.target_key]
        elif self.attach is None and isinstance(item, tuple | list) and len(item) >= 2:
            value = item[-1]
        else:
            raise PoolError(
                "the dataset holds no labels to answer queries with. Pass another oracle, for example "
                "FunctionOracle(lambda id: ...)."
            )
        return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value

    def without_target(self, item: Any) -> Any:
        """The item (or batch) without its target: what a model gets to see.

        Raises:
            PoolError: with a custom ``attach`` and a tuple, where nothing says which element is the target.
        """
        if isinstance(item, Mapping):
            return {key: value for key, value in item.items() if key != self.target_key}
        if isinstance(item, tuple | list) and len(item) >= 2:
            if self.attach is not None:
                raise PoolError(
                    f"the batch is a {type(item).__name__} of {len(item)} and attach= is custom, so which elements "
                    "forward takes is unknown. Give the model an infer(batch) method that returns "
                    "al_lightning.Outputs(logits=...)."
                )
            return item[0] if len(item) == 2 else tuple(item[:-1])
        if isinstance(item, tuple | list) and len(item) == 1:
            return item[0]
        return item

    def attacher(self, example: Any) -> tuple[Callable[[Any], Any], Attach]:
        """``(convert, attach)``: convert a stored label once, attach it to an item each time it is read."""
        self.check(example)
        if self.attach is not None:
            return (lambda label: label), self.attach
        if isinstance(example, Mapping):
            key = self.target_key
            return _like(example.get(key)), lambda item, label: {**item, key: label}
        return _like(example[-1]), _replace_last


def read(data: Any, ids: Sequence[int]) -> list[Any]:
    """Items of ``data`` at ``ids``, in one call where the dataset offers ``__getitems__``."""
    many = getattr(data, "__getitems__", None)
    return many(list(ids)) if many is not None else [data[i] for i in ids]


class LabelledView(Dataset[Any]):
    """The labelled records as a dataset of their own, each item carrying the label that was bought for it.

    Args:
        data: the user's dataset (its train view).
        ids: ids to serve, ``(n,)``; may repeat (replay).
        labels: one bought label per entry of ``ids``.
        items: where the target sits.
    """

    def __init__(self, data: Any, ids: Sequence[int], labels: Sequence[Any], items: ItemFormat) -> None:
        self.data = data
        self.ids = [int(i) for i in ids]
        self._items = items
        self._raw = list(labels)
        self._prepare()

    def _prepare(self) -> None:
        # Converted once: per-item work decides whether an epoch is as fast as the user's own DataLoader.
        convert, self._attach = self._items.attacher(self.data[self.ids[0]] if self.ids else (None, None))
        self._labels = [convert(label) for label in self._raw]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_attach", "_labels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Any:
        return self._attach(self.data[self.ids[position]], self._labels[position])

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        ids, labels, attach = self.ids, self._labels, self._attach
        items = read(self.data, [ids[p] for p in positions])
        if attach is _replace_last and items and type(items[0]) is tuple:
            return [(*item[:-1], labels[p]) for item, p in zip(items, positions, strict=True)]
        return [attach(item, labels[p]) for item, p in zip(items, positions, strict=True)]


class IndexedView(Dataset[Any]):
    """The full dataset with every item's id beside it: scores can never land on the wrong record.

    It is indexed by id, so it goes with ``sampler=ids``.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, id: int) -> tuple[int, Any]:
        return id, self.data[id]

    def __getitems__(self, ids: Sequence[int]) -> list[tuple[int, Any]]:
        return list(zip(ids, read(self.data, ids), strict=True))


class IndexedCollate:
    """The user's collate function on the items, the ids beside the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None) -> None:
        self._collate = collate or default_collate

    def __call__(self, pairs: list[tuple[int, Any]]) -> tuple[Tensor, Any]:
        ids, items = zip(*pairs, strict=True)
        return torch.tensor(ids, dtype=torch.int64), self._collate(list(items))
