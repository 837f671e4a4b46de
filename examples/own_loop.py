"""Your own loop, with callbacks on your own Trainer: ``python examples/own_loop.py``."""

from __future__ import annotations

import lightning.pytorch as L

from al_lightning import (
    Budget,
    DatasetOracle,
    Doubling,
    Margin,
    PoolDataModule,
    RoundPlateau,
    StallDetection,
    WarmStart,
    fresh_trainer,
    score,
)
from al_lightning.cli.problems import Classifier, digits


def main() -> None:
    """Three callbacks, five lines of loop."""
    train, val, _ = digits(seed=0)
    pool = PoolDataModule(train, val=val, task="multiclass", batch_size=16)
    L.seed_everything(0)
    model, oracle = Classifier(in_features=64, classes=10, learning_rate=3e-2), DatasetOracle()
    callbacks = [WarmStart("keep", epochs=8), RoundPlateau("val_acc", patience=3), StallDetection("train_loss")]
    trainer = L.Trainer(max_epochs=24, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=callbacks)

    for round in pool.rounds(sizes=Doubling(first=50), budget=Budget(labels=400)):
        t = fresh_trainer(trainer, model=model, datamodule=pool)  # a used Trainer would train 0 epochs
        t.fit(model, datamodule=pool)  # trains on the labelled part
        print(f"round {round.number}: {len(pool.labelled)} labels, {t.callback_metrics['val_acc']:.3f}")
        scores = score(t, model, pool, Margin())  # infers only this round's candidates
        pool.label(Margin().pick(scores, size=round.size), oracle)


if __name__ == "__main__":
    main()
