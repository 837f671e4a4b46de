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
from al_lightning.run.changes import Change
from al_lightning.run.run import Run
from al_lightning.steps.control import trained_on

_BATCHES = 3
"""On the first of them FLOPs are counted, which takes time; a pace needs two more."""


def tried(run: Run) -> int:
    """Records that the target is tried on, at most."""
    return _BATCHES * (run.pool.batch_size or 1) * run.ranks.world


def try_target(run: Run) -> Change:
    """Train the target on a few labelled batches, put its weights back, and note what a record costs it.

    Rho, budgets and a final fit of what is left need that from the first round on, and the target is not trained before
    the last. The few batches are on the ledger.
    """
    ids = trained_on(run)[: tried(run)]
    trainer = fresh_trainer(run.source, model=run.target, datamodule=run.pool, max_epochs=1, step=0)
    meter = Meter(run.target_flops, "train", run.note_in_flight)
    trainer.callbacks, trainer.loggers = [meter], [DummyLogger()]  # type: ignore[attr-defined]
    trainer.limit_val_batches = trainer.num_sanity_val_steps = 0
    weights = snapshot(run.target)
    began = run.energy.reading()
    run.pool.train_ids = np.sort(ids)
    try:
        with isolate_rng(), meter.watching(trainer):
            trainer.fit(run.target, datamodule=run.pool)
    finally:
        run.pool.train_ids = None
        load(run.target, weights)
    run.energy.note("train", began)
    records = sum(Ranks(trainer).gather(meter.trained))
    flops = run.target_flops.flops("train", records)
    run.spend(Entry(phase="train", round=run.round, records=records, flops=flops, seconds=meter.train_seconds))
    rate: dict[str, float] = {"records": records, "seconds": meter.train_seconds}
    if step := meter.pace.get("step"):
        rate = {"records": meter.batch * run.ranks.world, "seconds": step}
    return Change(meta={"train_rate": run.ranks.broadcast(rate)})
