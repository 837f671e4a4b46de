"""What a pool takes over from the LightningDataModule it wraps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from al_lightning.errors import PoolError

HOOKS = ("transfer_batch_to_device", "on_before_batch_transfer", "on_after_batch_transfer")
_OPTIONS = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "drop_last",
    "timeout",
    "worker_init_fn",
    "pin_memory_device",
    "in_order",
    "prefetch_factor",
    "persistent_workers",
    "multiprocessing_context",
)
_ITS_OWN = ("__iter__", "__len__", "_get_iterator", "_index_sampler", "_auto_collation")
_SUBCLASS = (
    "give a subclass of PoolDataModule a train_dataloader() of its own, on the labelled part that "
    "super().train_dataloader() loads: docs/datamodules.md"
)


def defines(inner: L.LightningDataModule | None, name: str) -> bool:
    """Return whether the user's DataModule has this loader or hook of its own."""
    return inner is not None and is_overridden(name, inner, L.LightningDataModule)


def training_loader(inner: L.LightningDataModule, *, any_sampler: bool = False) -> DataLoader[Any]:
    """The user's training loader, whose dataset becomes the pool.

    Args:
        inner: their DataModule.
        any_sampler: the pool has a way of its own to sample the labelled part, so theirs need not be carried over.

    Raises:
        PoolError: not one DataLoader, no map-style dataset, or a way to load that means nothing on the labelled part.
    """
    loader = inner.train_dataloader()
    if not isinstance(loader, DataLoader):
        raise PoolError(
            f"train_dataloader() returned {type(loader).__name__}; a pool needs one DataLoader. Wrap the dataset that "
            f"is to be labelled, PoolDataModule(dataset); for further streams {_SUBCLASS}."
        )
    size = size_of(loader.dataset)
    own = [name for name in _ITS_OWN if getattr(type(loader), name, None) is not getattr(DataLoader, name, None)]
    if own:
        raise _not_carried_over(type(loader), f"{own[0]} of its own")
    if any_sampler:
        return loader
    batches = loader.batch_sampler
    if batches is None:
        raise PoolError(
            "train_dataloader() has batch_size=None: its dataset serves batches, and a pool needs records. Serve one "
            "record per id, and give the DataLoader a batch_size."
        )
    if type(batches) is not BatchSampler:
        raise _not_carried_over(type(batches), "a batch sampler of its own")
    sampler = batches.sampler
    if (
        type(sampler) not in (RandomSampler, SequentialSampler)
        or len(sampler) != size  # type: ignore[arg-type]
        or getattr(sampler, "replacement", False)
    ):
        raise _not_carried_over(type(sampler), "a sampler of its own")
    return loader


def _not_carried_over(kind: type, what: str) -> PoolError:
    return PoolError(
        f"train_dataloader() uses a {kind.__name__}, {what}, which cannot be carried over to the labelled part. Return "
        f"a plain DataLoader, wrap its dataset, PoolDataModule(dataset), or {_SUBCLASS}."
    )


def batch_size(loader: DataLoader[Any]) -> int | None:
    """Records of a batch; None where its batch sampler does not say."""
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)


def shuffles(loader: DataLoader[Any]) -> bool:
    """Return whether the loader has records in another order each epoch."""
    return not isinstance(getattr(loader.batch_sampler, "sampler", loader.sampler), SequentialSampler)


def loader_options(loader: DataLoader[Any]) -> dict[str, Any]:
    """The settings of a loader that differ from DataLoader's own; some exclude each other when passed explicitly."""
    plain = DataLoader(loader.dataset)
    found = {name: getattr(loader, name, None) for name in _OPTIONS}
    found["drop_last"] = getattr(loader.batch_sampler, "drop_last", loader.drop_last)
    return {name: value for name, value in found.items() if value != getattr(plain, name, None)}


def check_settings(loader: Mapping[str, Any]) -> None:
    """Raise PoolError for settings of a DataLoader that a pool cannot keep, or that there are none of."""
    given = {
        "dataset": "it is the first argument",
        "batch_size": "pass PoolDataModule(batch_size=...)",
        "sampler": _SUBCLASS,
        "batch_sampler": _SUBCLASS,
    }
    allowed = [name for name in inspect.signature(DataLoader).parameters if name not in given]
    for name in loader:
        if name not in allowed:
            way_out = given.get(name, f"allowed: {', '.join(allowed)}")
            raise PoolError(f"loader has {name!r}, which is no setting of a pool's loaders: {way_out}.")


def check_dataset(data: Any, name: str) -> None:
    """Raise PoolError where a dataset is expected and loaders are given, or several datasets."""
    if isinstance(data, DataLoader):
        raise PoolError(
            f"{name} is a DataLoader: pass its dataset, {name}=loader.dataset, and how it loads as "
            "PoolDataModule(batch_size=..., eval_batch_size=..., loader={...})."
        )
    if hasattr(data, "train_dataloader"):
        raise PoolError(
            f"{name} is a {type(data).__name__}: pass a dataset. A LightningDataModule is wrapped as "
            "PoolDataModule(data), once; a pool is not wrapped again."
        )
    several = list(data.values()) if isinstance(data, Mapping) else data if type(data) in (list, tuple) else []
    if isinstance(data, Mapping) or any(isinstance(part, Dataset | DataLoader) for part in several):
        raise PoolError(
            f"{name} is a {type(data).__name__} of {len(several)} datasets or loaders: pass one dataset, or wrap a "
            "LightningDataModule whose val_dataloader() or test_dataloader() returns them."
        )


def _loaders(inner: L.LightningDataModule | None) -> list[Any]:
    """The user's validation loaders."""
    if inner is None or not defines(inner, "val_dataloader"):
        return []
    found = CombinedLoader(inner.val_dataloader()).flattened
    return [loader for loader in found if loader not in ([], {})]  # Lightning takes them for no loaders


def validation_records(inner: L.LightningDataModule | None) -> int:
    """Labelled records that the user's validation loaders read.

    Raises:
        PoolError: they cannot be counted.
    """
    return sum(map(_records, _loaders(inner)))


def _records(loader: Any) -> int:
    dataset = getattr(loader, "dataset", None)
    counted = dataset if isinstance(dataset, IterableDataset) else getattr(loader, "sampler", None)
    try:
        return len(counted)  # type: ignore[arg-type]
    except TypeError:
        raise PoolError(
            f"val_dataloader() returned a {type(loader).__name__} of {type(dataset).__name__}, whose records cannot be "
            "counted, and labels that validation uses are on the bill: return DataLoaders of datasets with a __len__."
        ) from None


def validation_data(inner: L.LightningDataModule | None) -> Any:
    """The dataset of the user's validation loader; None where there is none, or more than one."""
    loaders = _loaders(inner)
    return loaders[0].dataset if len(loaders) == 1 else None


def size_of(data: Any, name: str = "data") -> int:
    """Length of a map-style dataset; raises PoolError for one that has none, is empty, or is not map-style."""
    check_dataset(data, name)
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        raise PoolError(f"{type(data).__name__} is not map-style: a pool needs __len__ and __getitem__.")
    try:
        size = len(data)
    except TypeError:
        raise PoolError(
            f"{type(data).__name__} has no length. A pool needs to know its ids: give the dataset a __len__."
        ) from None
    if size == 0:
        raise PoolError(f"{type(data).__name__} is empty: a pool needs at least one record.")
    return size


def first_of(data: Any) -> Any:
    """The record with id 0; raises PoolError where the dataset is not read by ids."""
    try:
        return data[0]
    except Exception as error:
        raise PoolError(
            f"record 0 of {type(data).__name__} cannot be read ({type(error).__name__}: {error}). A pool reads records "
            "by their ids, data[0] to data[len(data) - 1]."
        ) from error
