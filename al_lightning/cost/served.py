"""How many records the batches of a fit hold: what the loaders' samplers asked the datasets for, whatever shape it has.

A batch of sequences, of images in a list, or of flat tokens does not say how many records it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from al_lightning.pool.views import LabelledView


def batch_length(batch: Any) -> int:
    """Guess the records of a collated batch by the first length found in a tensor, going into dicts, tuples and lists.

    A last resort, for loaders that are not PyTorch's: nothing else is known of what those serve.
    """
    if isinstance(batch, Tensor | np.ndarray):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if hasattr(batch, "values") else batch
    if isinstance(parts, str | bytes) or not hasattr(parts, "__iter__"):
        return 0
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], str):
        return len(batch)
    return next((n for n in map(batch_length, parts) if n), 0)


class _Asked:
    """A loader's sampler in one of the loader's passes, and how many records each batch of it asks for.

    Args:
        sampler: of batches, or of items where the loader does not batch.
        dataset: that the loader reads.
    """

    def __init__(self, sampler: Iterable[Any], dataset: Any) -> None:
        self.sampler, self.dataset = sampler, dataset
        self.sizes: list[int] = []
        self._taken = 0

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        self.sizes, self._taken = [], 0  # workers that persist begin another pass with the same iterator
        return self._noted(iter(self.sampler))

    def _noted(self, indices: Iterator[Any]) -> Iterator[Any]:
        for index in indices:
            self.sizes.append(len(index) if isinstance(index, list | tuple | np.ndarray) else 1)
            yield index

    def take(self, batches: int) -> int:
        """Records of the pass's first so many batches, without those taken before."""
        before, self._taken = self._taken, max(self._taken, batches)
        return sum(self.sizes[before : self._taken])


def _watch(loader: DataLoader[Any]) -> None:
    """Have the loader's iterators note what they ask for, as ``iterator.asked``; the loader stays as it is."""
    make = loader._get_iterator

    def noting() -> Any:
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        own = vars(loader)[name]
        asked = _Asked(own, loader.dataset)
        vars(loader)[name] = asked  # DataLoader lets nobody set it, and looks at it only while an iterator is made
        try:
            iterator: Any = make()
        finally:
            vars(loader)[name] = own
        if isinstance(loader.dataset, IterableDataset):
            _look_at_items(iterator, asked)
        iterator.asked = asked
        return iterator

    loader._get_iterator = noting  # type: ignore[method-assign]


def _look_at_items(iterator: Any, asked: _Asked) -> None:
    """Note the items of a stream: its last batch is smaller than was asked for. What workers read is not seen."""
    fetcher = getattr(iterator, "_dataset_fetcher", None)
    if fetcher is None or not fetcher.auto_collation:
        return
    collate: Callable[[Any], Any] = fetcher.collate_fn

    def counted(items: Any) -> Any:
        asked.sizes[-1] = len(items)
        return collate(items)

    fetcher.collate_fn = counted


class ServedRecords:
    """Watches loaders, and tells how many records a loop has been served.

    Where some of the loaders serve what is labelled, as beside a stream of unlabelled records, those records count.
    """

    def __init__(self) -> None:
        self._watched: list[DataLoader[Any]] = []
        self._seen: dict[int, list[Any]] = {}

    def watch(self, loader: Any) -> None:
        """Watch a loader, once."""
        if isinstance(loader, DataLoader) and "_get_iterator" not in vars(loader):
            _watch(loader)
            self._watched.append(loader)

    def close(self) -> None:
        """Leave the loaders as they were."""
        while self._watched:
            del self._watched.pop()._get_iterator
        self._seen.clear()

    def take(self, loop: Any) -> int | None:
        """Records that a loop of Lightning's has fetched for its steps since it was asked last; None: nobody knows."""
        iterators: list[Any] = loop._combined_loader._iterator.iterators
        if not all(hasattr(iterator, "asked") for iterator in iterators):
            return None
        ahead = len(getattr(loop._data_fetcher, "batches", ()))  # fetched already, for the steps after
        past = [i for i in self._seen.get(id(loop), []) if not any(i is now for now in iterators)]
        self._seen[id(loop)] = list(
            iterators
        )  # a loader that is begun again, or was the last one, has another next time
        taken = [(i.asked.dataset, i.asked.take(i._num_yielded)) for i in past]
        taken += [(i.asked.dataset, i.asked.take(i._num_yielded - ahead)) for i in iterators]
        labelled = [records for dataset, records in taken if _is_labelled(dataset)]
        return sum(labelled or [records for _, records in taken])


def _is_labelled(dataset: Any) -> bool:
    while dataset is not None and not isinstance(dataset, LabelledView):
        dataset = getattr(dataset, "dataset", None)  # of a Subset and its like
    return dataset is not None


@contextmanager
def served_by(loader: Any) -> Iterator[Iterator[tuple[Any, int]]]:
    """Yield a loader's batches, each with the number of its records."""
    served = ServedRecords()
    served.watch(loader)
    try:
        yield _counted(iter(loader))
    finally:
        served.close()


def _counted(iterator: Any) -> Iterator[tuple[Any, int]]:
    for batch in iterator:
        yield batch, iterator.asked.take(iterator._num_yielded) if hasattr(iterator, "asked") else batch_length(batch)
