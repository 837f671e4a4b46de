"""What a pool takes over from the LightningDataModule it wraps."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from al_lightning.errors import PoolError

HOOKS = ("transfer_batch_to_device", "on_before_batch_transfer", "on_after_batch_transfer")
_OPTIONS = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "drop_last",
    "timeout",
    "worker_init_fn",
    "prefetch_factor",
    "persistent_workers",
    "multiprocessing_context",
)


def defines(inner: L.LightningDataModule | None, name: str) -> bool:
    """Whether the user's DataModule has this loader or hook of its own."""
    return inner is not None and is_overridden(name, inner, L.LightningDataModule)


def training_loader(inner: L.LightningDataModule) -> DataLoader[Any]:
    """The user's training loader, whose dataset becomes the pool.

    Raises:
        PoolError: not one DataLoader, or a sampler that means nothing on the labelled part.
    """
    loader = inner.train_dataloader()
    if not isinstance(loader, DataLoader):
        raise PoolError(f"train_dataloader() returned {type(loader).__name__}; a pool needs one DataLoader.")
    sampler = loader.sampler
    whole = isinstance(sampler, RandomSampler | SequentialSampler) and len(sampler) == len(loader.dataset)  # type: ignore[arg-type]
    if not whole or getattr(sampler, "replacement", False) or loader.batch_size is None:
        raise PoolError(
            f"train_dataloader() uses a {type(sampler).__name__} of its own or a batch sampler, which cannot be "
            "carried over to the labelled part. Return a plain DataLoader, or wrap its dataset: "
            "PoolDataModule(dataset)."
        )
    return loader


def loader_options(loader: DataLoader[Any]) -> dict[str, Any]:
    """The settings of a loader that differ from DataLoader's own; some exclude each other when passed explicitly."""
    plain = DataLoader(loader.dataset)
    return {name: getattr(loader, name) for name in _OPTIONS if getattr(loader, name) != getattr(plain, name)}


def validation_records(inner: L.LightningDataModule | None) -> int:
    """Labelled records that the user's validation loaders read."""
    if inner is None or not defines(inner, "val_dataloader"):
        return 0
    return sum(len(loader.dataset) for loader in CombinedLoader(inner.val_dataloader()).flattened)


def validation_data(inner: L.LightningDataModule | None) -> Any:
    """The dataset of the user's validation loader; None where there is none, or more than one."""
    if inner is None or not defines(inner, "val_dataloader"):
        return None
    loaders = CombinedLoader(inner.val_dataloader()).flattened
    return loaders[0].dataset if len(loaders) == 1 else None


def size_of(data: Any) -> int:
    """Length of a map-style dataset; raises PoolError for one that has none, is empty, or is not map-style."""
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
