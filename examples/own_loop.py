"""Your own loop, with callbacks on your own Trainer: ``python examples/own_loop.py``."""

from __future__ import annotations

import lightning.pytorch as L

from al_lightning import (
    Budget,
    DatasetOracle,
    PoolDataModule,
    RoundPlateau,
    StallDetection,
    WarmStart,
    fresh_trainer,
    score,
)
from al_lightning.cli.problems import Classifier, digits
from al_lightning.fit.plan import reinitialise
from al_lightning.query import Margin
from al_lightning.round_size import Doubling


def main(restarts: int = 3) -> None:
    """Three callbacks, and a loop that never scores with a model that stalled."""
    train, val, _ = digits(seed=0)
    pool = PoolDataModule(train, val=val, task="multiclass", batch_size=16)
    L.seed_everything(0)
    model, oracle = Classifier(in_features=64, classes=10, learning_rate=3e-2), DatasetOracle()
    stall = StallDetection("train_loss", reference="chance")
    callbacks = [WarmStart("keep", epochs=8), RoundPlateau("val_acc", mode="max", patience=3), stall]
    trainer = L.Trainer(max_epochs=24, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=callbacks)

    for round in pool.rounds(sizes=Doubling(first=50), budget=Budget(labels=400)):
        for seed in range(restarts):
            t = fresh_trainer(trainer, model=model, datamodule=pool)  # a used Trainer is refused
            t.fit(model, datamodule=pool)  # trains on the labelled part
            if not stall.reason:
                break
            reinitialise(model, seed)  # the fit was aborted: begin it again from other weights
        else:
            raise SystemExit(f"gave up after {restarts} fits of round {round.number}: {stall.reason}")
        print(f"round {round.number}: {len(pool.labelled)} labels, {t.callback_metrics['val_acc']:.3f}")
        scores = score(t, model, pool, Margin())  # infers only this round's candidates
        pool.label(Margin().pick(scores, size=round.size), oracle)
    if pool.stop_reason:
        print(pool.stop_reason)


if __name__ == "__main__":
    main()
