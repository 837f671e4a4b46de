"""Lightning's finders: they train before a fit does, and write what they find into the module and the pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as L
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from al_lightning.errors import UnsupportedTrainer
from al_lightning.pool.datamodule import PoolDataModule

_RATES = ("lr", "learning_rate")
_MISSING = object()


def check_finders(trainer: L.Trainer, pool: PoolDataModule) -> None:
    """Refuse a finder that would search for nothing.

    Raises:
        UnsupportedTrainer: a batch size that the pool does not read, or several processes.
    """
    for finder in (c for c in trainer.callbacks if isinstance(c, BatchSizeFinder)):  # type: ignore[attr-defined]
        name = finder._batch_arg_name
        if name != "batch_size" and type(pool).train_dataloader is PoolDataModule.train_dataloader:
            raise UnsupportedTrainer(
                f"BatchSizeFinder(batch_arg_name={name!r}) sets a value that the pool's loaders do not read; allowed: "
                "'batch_size', which is PoolDataModule's."
            )
        if trainer.world_size > 1:
            raise UnsupportedTrainer(
                f"BatchSizeFinder works on one process, and this Trainer has {trainer.world_size}: leave it out and "
                "set PoolDataModule(batch_size=...), or use devices=1."
            )


@contextmanager
def settings_kept(trainer: L.Trainer, module: L.LightningModule, pool: PoolDataModule) -> Iterator[None]:
    """Let finders set a batch size and a learning rate for the fit in the block; the user's are put back after it.

    Args:
        trainer: of the fit; what its finders have found stays with them.
        module: may hold either.
        pool: likewise.
    """
    names = {name for callback in trainer.callbacks for name in _set_by(callback)}  # type: ignore[attr-defined]
    holders = [module, pool]
    kept = [(of, name, getattr(of, name, _MISSING)) for of in holders for name in names]
    hparams = [(of.hparams, name, of.hparams[name]) for of in holders for name in names if name in of.hparams]
    try:
        yield
    finally:
        for of, name, value in kept:
            if value is not _MISSING:
                setattr(of, name, value)
        for given, name, value in hparams:
            given[name] = value


def _set_by(callback: object) -> tuple[str, ...]:
    if isinstance(callback, BatchSizeFinder):
        return (callback._batch_arg_name,)
    if isinstance(callback, LearningRateFinder):
        return (callback._attr_name,) if callback._attr_name else _RATES
    return ()
