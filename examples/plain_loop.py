"""The three callbacks and nothing else of the library, on loaders of your own: ``python examples/plain_loop.py``."""

from __future__ import annotations

import math

import lightning.pytorch as L
from torch.utils.data import DataLoader, Subset

from al_lightning import RoundPlateau, StallDetection, WarmStart
from al_lightning.cli.problems import Classifier, digits
from al_lightning.fit.plan import reinitialise


def main(restarts: int = 3) -> None:
    """Label more until it no longer helps; fit again where a fit went wrong."""
    train, val, _ = digits(seed=0)
    L.seed_everything(0)
    model = Classifier(in_features=64, classes=10, learning_rate=3e-2)  # one module, all along: that is the experiment
    plateau = RoundPlateau("val_acc", mode="max", min_delta=0.01, patience=1)
    stall = StallDetection("train_loss", reference=math.log(10))  # what guessing gives, with ten classes
    warm = WarmStart("keep", first_epochs=24, epochs=8)

    for labels in (50, 100, 200, 400, 800):
        loader = DataLoader(Subset(train, range(labels)), batch_size=16, shuffle=True)
        for seed in range(restarts):
            trainer = L.Trainer(
                max_epochs=24,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                callbacks=[warm, plateau, stall],  # the same objects on every Trainer
            )
            trainer.fit(model, loader, DataLoader(val, batch_size=256))
            if not stall.reason:
                break
            reinitialise(model, seed)  # the fit was aborted: begin it again from other weights
        else:
            raise SystemExit(f"gave up after {restarts} fits: {stall.reason}")
        print(f"{labels} labels: {trainer.callback_metrics['val_acc']:.3f}, {warm.reason}")
        if plateau.reason:
            break


if __name__ == "__main__":
    main()
