"""Active learning with the Trainer you have: ``python examples/learner.py``."""

from __future__ import annotations

import lightning.pytorch as L

from al_lightning import ActiveLearner, Budget, PoolDataModule, WarmStart
from al_lightning.candidates import RandomSubset
from al_lightning.cli.problems import Classifier, digits
from al_lightning.query import Margin
from al_lightning.round_size import Doubling


def main(run_dir: str = "runs/example") -> None:
    """Run it, or go on with it, and print the bill."""
    train, val, _ = digits(seed=0)
    pool = PoolDataModule(train, val=val, task="multiclass", batch_size=16)
    trainer = L.Trainer(max_epochs=24, accelerator="cpu", logger=False, enable_checkpointing=False)
    L.seed_everything(0)
    learner = ActiveLearner(
        trainer,
        query=Margin(),
        candidates=RandomSubset(0.3),
        round_size=Doubling(first=50),
        fit=WarmStart("keep", epochs=4, first_epochs=8, final="previous", final_epochs=8),
        stop=[Budget(labels=400)],
        run_dir=run_dir,
    )
    result = learner.fit(Classifier(in_features=64, classes=10, learning_rate=3e-2), datamodule=pool)
    for record in result.history:
        print(f"{record.labelled:>4} labels  {record.metrics['val_acc']:.3f}  rho {record.cost['rho']:.2f}")
    print(result.bill)
    print(result.reason)


if __name__ == "__main__":
    main()
