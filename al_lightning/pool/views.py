"""The views a dataset is read through: what is labelled, and what is to be inferred."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from al_lightning.pool.items import ItemFormat


def read(data: Any, ids: Sequence[int]) -> list[Any]:
    """Items of ``data`` at ``ids``, in one call where the dataset offers ``__getitems__``."""
    many = getattr(data, "__getitems__", None)
    return many(ids) if many is not None else [data[i] for i in ids]


class LabelledView(Dataset[Any]):
    """The labelled records as a dataset of their own, each item carrying the label that was bought for it.

    Args:
        data: the user's dataset (its train view).
        ids: ids to serve, ``(n,)``; may repeat (replay).
        labels: one bought label per entry of ``ids``.
        items: where the target sits.
    """

    def __init__(self, data: Any, ids: Sequence[int], labels: Sequence[Any], items: ItemFormat) -> None:
        self.data, self.ids, self.labels, self.items = data, ids, labels, items
        with isolate_rng():  # items may be augmented: what a fit draws is the user's
            self.example = data[self.ids[0]]
        items.check(self.example)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Any:
        return self.items.attached(self.data[self.ids[position]], self.labels[position])

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        items = read(self.data, [self.ids[p] for p in positions])
        attached = self.items.attached
        return [attached(item, self.labels[p]) for item, p in zip(items, positions, strict=True)]


class BatchLabels(LabelledView):
    """The same, with labels put in a batch at a time: an epoch costs what the user's own DataLoader costs.

    Only for items that PyTorch's ``default_collate`` stacks anyway, see :func:`for_training`. The dataset's own targets
    are left out of collation, which pays for looking up the bought ones.
    """

    def __init__(self, data: Any, ids: Sequence[int], labels: Sequence[Any], items: ItemFormat) -> None:
        super().__init__(data, ids, labels, items)
        like = default_collate([items.fitted(self.labels[0], items.place_of_target(self.example))])
        given = _stacked(self.labels)
        self.stacked = torch.from_numpy(given).to(like.dtype).numpy()
        if self.stacked.shape[1:] != like.shape[1:]:
            raise ValueError("labels of another shape than targets have")
        if not like.dtype.is_floating_point and not np.array_equal(self.stacked, given):
            raise ValueError("labels with fractions in the place of whole numbers")

    def __getitems__(self, positions: Sequence[int]) -> Any:
        ids = self.ids
        return positions, read(self.data, [ids[p] for p in positions])

    def collate(self, fetched: tuple[Sequence[int], list[Any]]) -> Any:
        """Return what ``default_collate`` makes of the items once their targets are the bought labels."""
        positions, items = fetched
        labels = torch.from_numpy(self.stacked[positions])
        first = items[0]
        if isinstance(first, dict):
            key = self.items.target_key
            rest = {k: default_collate([item[k] for item in items]) for k in first if k != key}
            return {**rest, key: labels}
        if len(first) == 2:
            return [default_collate([item[0] for item in items]), labels]
        return [*default_collate([tuple(item[:-1]) for item in items]), labels]


def _stacked(labels: Sequence[Any]) -> np.ndarray:
    """``(n, ...)``; raises ValueError or RuntimeError for labels of several shapes."""
    if isinstance(labels[0], Tensor | np.ndarray):
        return torch.stack([torch.as_tensor(label) for label in labels]).numpy()
    return np.asarray(labels)


def for_training(view: LabelledView, collate: Callable[..., Any] | None) -> tuple[Dataset[Any], Any]:
    """The dataset and collate function to train with: a batch at a time where that is the same, else item by item.

    Args:
        view: what to train on.
        collate: the user's collate function, or None for PyTorch's.
    """
    ordinary = type(view.example) in (tuple, list, dict) and collate in (None, default_collate)
    if ordinary and view.items.attach is None:
        target = view.items.fitted(view.labels[0], view.items.place_of_target(view.example))
        if isinstance(target, int | float | np.number | np.ndarray | Tensor):
            try:
                batched = BatchLabels(view.data, view.ids, view.labels, view.items)
            except (TypeError, ValueError, RuntimeError):  # item by item, the label at fault can be named
                return view, collate
            return batched, batched.collate
    return view, collate


class IndexedView(Dataset[Any]):
    """The full dataset with every item's id beside it: scores can never land on the wrong record.

    It is indexed by id, so it goes with ``sampler=ids``.

    Args:
        data: the user's dataset (its eval view).
        shown: makes of an item what is collated, see :meth:`ItemFormat.shown`; None leaves it as it is.
    """

    def __init__(self, data: Any, shown: Callable[[Any], Any] | None = None) -> None:
        self.data, self._shown = data, shown

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, id: int) -> tuple[int, Any]:
        item = self.data[id]
        return id, item if self._shown is None else self._shown(item)

    def __getitems__(self, ids: Sequence[int]) -> Any:
        items = read(self.data, ids)
        return ids, items if self._shown is None else list(map(self._shown, items))


class IndexedCollate:
    """The user's collate function on the items, the ids beside the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None) -> None:
        self._collate = collate or default_collate

    def __call__(self, fetched: tuple[Sequence[int], list[Any]]) -> tuple[Tensor, Any]:
        ids, items = fetched
        return torch.tensor(ids, dtype=torch.int64), self._collate(items)


class IndexedTensors(IndexedView):
    """The same for a TensorDataset, whose records are taken a batch at a time: several times as fast as one by one."""

    def __getitems__(self, ids: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        index = torch.tensor(ids, dtype=torch.int64)
        return index, [tensor[index] for tensor in self.data.tensors]

    @staticmethod
    def collate(fetched: tuple[Tensor, list[Tensor]]) -> tuple[Tensor, list[Tensor]]:
        """They are what ``default_collate`` makes of the items."""
        return fetched


def loader_for_scoring(
    data: Any,
    ids: Sequence[int] | np.ndarray,
    batch: int,
    options: Mapping[str, Any],
    shown: Callable[[Any], Any] | None = None,
) -> DataLoader:
    """``(ids, batch)`` for exactly these ids, in this order.

    Args:
        data: the user's dataset (its eval view), indexed by id.
        ids: ``(n,)``.
        batch: records of a batch.
        options: further settings of the loader; what would leave records out or mix them is ignored.
        shown: makes of an item what is collated; None leaves it as it is.
    """
    view, collate = for_scoring(data, options.get("collate_fn"), shown)
    kept = {name: value for name, value in options.items() if name not in ("collate_fn", "drop_last")}
    return DataLoader(
        view, batch_size=batch, shuffle=False, collate_fn=collate, sampler=np.asarray(ids).tolist(), **kept
    )


def for_scoring(
    data: Any, collate: Callable[..., Any] | None, shown: Callable[[Any], Any] | None = None
) -> tuple[IndexedView, Callable[..., Any]]:
    """The dataset and collate function to score with: a batch at a time where that is the same, else item by item.

    Args:
        data: the user's dataset (its eval view).
        collate: the user's collate function, or None for PyTorch's.
        shown: makes of an item what is collated; None leaves it as it is.
    """
    if type(data) is TensorDataset and collate in (None, default_collate):  # a subclass may serve other items
        tensors = IndexedTensors(data)
        return tensors, tensors.collate
    return IndexedView(data, shown), IndexedCollate(collate)
