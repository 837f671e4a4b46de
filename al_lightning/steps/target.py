"""What a record costs the model that is delivered, where a proxy selects for it: known before it is trained."""

from __future__ import annotations

import numpy as np
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.seed import isolate_rng

from al_lightning.cost.ledger import Entry
from al_lightning.fit.meter import Meter
from al_lightning.fit.plan import load, snapshot
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.run.changes import Change
from al_lightning.run.turn import Turn
from al_lightning.steps.control import trained_on

_BATCHES = 3
"""On the first of them FLOPs are counted, which takes time; a pace needs two more."""


def tried(pool: PoolDataModule, ranks: Ranks) -> int:
    """Records that the target is tried on, at most."""
    return _BATCHES * (pool.batch_size or 1) * ranks.world


def try_target(turn: Turn) -> Change:
    """Train the target on a few labelled batches, put its weights back, and note what a record costs it.

    Rho, budgets and a final fit of what is left need that from the first round on, and the target is not trained before
    the last. The few batches are on the ledger.
    """
    ids = trained_on(turn.pool, turn.saved)[: tried(turn.pool, turn.ranks)]
    trainer = fresh_trainer(turn.source, model=turn.target, datamodule=turn.pool, max_epochs=1, step=0)
    meter = Meter(turn.accounts.target_flops, "train", turn.accounts.note_in_flight)
    trainer.callbacks, trainer.loggers = [meter], [DummyLogger()]  # type: ignore[attr-defined]
    trainer.limit_val_batches = trainer.num_sanity_val_steps = 0
    weights = snapshot(turn.target)
    began = turn.accounts.energy.reading()
    turn.pool.train_ids = np.sort(ids)
    try:
        with isolate_rng(), meter.watching(trainer):
            trainer.fit(turn.target, datamodule=turn.pool)
    finally:
        turn.pool.train_ids = None
        load(turn.target, weights)
    turn.accounts.energy.note("train", began)
    records = sum(Ranks(trainer).gather(meter.trained))
    flops = turn.accounts.target_flops.flops("train", records)
    turn.accounts.spend(
        Entry(phase="train", round=turn.round, records=records, flops=flops, seconds=meter.train_seconds)
    )
    rate: dict[str, float] = {"records": records, "seconds": meter.train_seconds}
    if step := meter.pace.get("step"):
        rate = {"records": meter.batch * turn.ranks.world, "seconds": step}
    return Change(meta={"train_rate": turn.ranks.broadcast(rate)})
