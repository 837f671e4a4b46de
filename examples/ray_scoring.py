"""The pool is scored on Ray, training stays here: ``python examples/ray_scoring.py``.

It starts a cluster of two workers on this machine. With ``address="head:6379"`` the same script scores on yours;
docs/distributed.md says what to run there.
"""

from __future__ import annotations

import lightning.pytorch as L

from al_lightning import ActiveLearner, Budget, PoolDataModule, WarmStart
from al_lightning.cli.problems import Classifier, digits
from al_lightning.query import Margin
from al_lightning.round_size import Doubling
from al_lightning.scoring import RayScorer


def main(run_dir: str = "runs/ray", address: str | None = None) -> None:
    """Run it, or go on with it, and print the bill."""
    train, val, _ = digits(seed=0)
    pool = PoolDataModule(train, val=val, task="multiclass", batch_size=16, eval_batch_size=64)
    trainer = L.Trainer(max_epochs=24, accelerator="cpu", logger=False, enable_checkpointing=False)
    L.seed_everything(0)
    learner = ActiveLearner(
        trainer,
        query=Margin(),
        round_size=Doubling(first=50),
        fit=WarmStart("keep", epochs=4, first_epochs=8, final="previous", final_epochs=8),
        stop=[Budget(labels=400)],
        run_dir=run_dir,
    )
    model = Classifier(in_features=64, classes=10, learning_rate=3e-2)
    result = learner.fit(model, pool, scoring=RayScorer(address=address, workers=2, shard_size=256))
    for record in result.history:
        print(f"{record.labelled:>4} labels  {record.metrics['val_acc']:.3f}  scored {record.candidates:>4}")
    print(result.bill)
    print(result.reason)


if __name__ == "__main__":
    main()
