"""Measure what a record costs, on the user's model and a few batches, before anything is bought."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L
import numpy as np
from torch import Tensor

from al_lightning.cost.flops import FlopMeter
from al_lightning.errors import PoolError
from al_lightning.fit.outcome import Outcome, run_fit
from al_lightning.fit.plan import FitPlan, Length, Served, load, snapshot
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.set_up import materialise
from al_lightning.fit.trainer import TrainerSource, fresh_trainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.state import PoolState
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.trainer import run_inference

_BATCHES = 16
_SCORED = 8
"""Times as many records as are trained on: inference is faster, and the clock has to see it."""


@dataclass(frozen=True, kw_only=True)
class PerRecord:
    """Hold what was measured.

    Args:
        forward: FLOPs of inferring a record.
        train: FLOPs of its forward and backward pass.
        forward_seconds: seconds of inferring it, on this machine.
        train_seconds: seconds of its forward and backward pass, likewise.
        validated_per_epoch: records that the Trainer validates in every epoch.
        validated_per_fit: records that it validates in every fit besides.
    """

    forward: float
    train: float
    forward_seconds: float
    train_seconds: float
    validated_per_epoch: int
    validated_per_fit: int


def rehearse(trainer: TrainerSource, model: L.LightningModule, pool: PoolDataModule) -> PerRecord:
    """Fit one batch for its FLOPs and a few for their seconds, and infer some; then all is as it was.

    The labels are those the dataset holds; nothing is bought and nothing is written. The pool's candidates, labels and
    the model's weights are put back.

    Args:
        trainer: an unused Trainer, or a function that builds one.
        model: the module.
        pool: the data.

    Raises:
        PoolError: a dataset without targets.
    """
    first = fresh_trainer(trainer, model=model, datamodule=pool)
    Ranks(first).start()
    materialise(model, first, pool)
    before, weights, flops = pool.state, snapshot(model), FlopMeter()
    size = min(pool.size, _BATCHES * (pool.batch_size or 1))
    pool.state = PoolState(pool.size)
    try:
        try:
            pool.label(np.arange(size), {i: pool.items.target(pool.eval_data[i]) for i in range(size)})
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise PoolError(
                f"the dataset holds no targets to try a training on ({error}): give the planner FLOPs instead, "
                "architecture=... or forward=... in FLOPs a record."
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            one, two, four = (_fit(trainer, model, pool, flops, Path(folder), epochs, size) for epochs in (1, 2, 4))
            scored = np.arange(min(pool.size, _SCORED * size))
            run = (four.trainer, model, pool, scored, first_logit, flops)
            run_inference(*run)
            _, _, seconds, _ = run_inference(*run)  # the first one has been counted, which takes time
    finally:
        pool.state = before
        load(model, weights)
    once, twice = _records(one, "validate"), _records(two, "validate")
    # What every fit takes to begin is in both.
    steady = (four.loop_seconds - two.loop_seconds) / (_records(four, "train") - _records(two, "train"))
    return PerRecord(
        forward=flops.per_record["forward"],
        train=flops.per_record["train"],
        forward_seconds=seconds / len(scored),
        train_seconds=max(steady, 0.0),
        validated_per_epoch=max(0, twice - once),
        validated_per_fit=max(0, 2 * once - twice),
    )


def _fit(
    trainer: TrainerSource,
    model: L.LightningModule,
    pool: PoolDataModule,
    flops: FlopMeter,
    folder: Path,
    epochs: int,
    size: int,
) -> Outcome:
    few = min(size, pool.batch_size or 1) if epochs == 1 else size
    return run_fit(
        trainer,
        model,
        pool,
        FitPlan(epochs=epochs),
        Length(epochs=epochs),
        Served(ids=np.arange(few)),
        new=few,
        round=0,
        round_dir=folder,
        seed=0,
        step=0,
        flops=flops,
    )


def _records(fit: Outcome, phase: str) -> int:
    return sum(entry.records for entry in fit.entries if entry.phase == phase)


def first_logit(outputs: Outputs) -> dict[str, Tensor]:
    """Return one number per record, a payload for inference whose answers nobody needs."""
    return {"logit": outputs.logits.flatten(1)[:, :1] if outputs.logits.ndim > 1 else outputs.logits}
