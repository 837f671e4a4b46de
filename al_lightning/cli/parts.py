"""Parts that only the command needs: data as a pool, and what one training on everything is made of."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from al_lightning.cli.problems import digits
from al_lightning.features.source import RawInputs
from al_lightning.history import History
from al_lightning.pool.datamodule import PoolDataModule


def digits_pool(seed: int, batch_size: int) -> PoolDataModule:
    """scikit-learn's digits as a pool whose features are the pixels.

    Args:
        seed: of the split.
        batch_size: of training.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: of a split, allowed: 0 to 2**32 - 1.")
    train, val, test = digits(seed)
    return PoolDataModule(
        train,
        task="multiclass",
        val=val,
        test=test,
        features=RawInputs(),
        batch_size=batch_size,
        eval_batch_size=512,
    )


def everything(history: History) -> int:
    """A round size: all that is left."""
    return history.unlabelled


class ValidateAtEnd(Callback):
    """Validate once a fit, after its last epoch: nothing here looks at the epochs before, and every pass is billed."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.max_epochs and trainer.max_epochs > 0:
            trainer.check_val_every_n_epoch = trainer.max_epochs
