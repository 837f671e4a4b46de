"""Load the labelled part your own way, class-balanced or beside unlabelled records: ``python examples/loaders.py``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from al_lightning import ActiveLearner, PoolDataModule
from al_lightning.cli.problems import Classifier, digits
from al_lightning.query import Margin
from al_lightning.round_size import Listed


class Balanced(PoolDataModule):
    """Draws every class equally often, by the labels there are in this round."""

    def train_dataloader(self) -> DataLoader:
        """Load what super() loads, in another order."""
        part = super().train_dataloader()
        labels = torch.as_tensor(part.dataset.labels)
        weights = 1 / labels.bincount()[labels]
        sampler = WeightedRandomSampler(weights.tolist(), num_samples=len(part.sampler))
        return DataLoader(part.dataset, self.batch_size, sampler=sampler, collate_fn=part.collate_fn)


class Unlabelled(Dataset):
    """Inputs of the records without a label: ``read_input`` leaves their targets out."""

    def __init__(self, pool: PoolDataModule) -> None:
        self.pool, self.ids = pool, pool.unlabelled.tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Tensor:
        return self.pool.read_input(self.ids[i])


class TwoStreams(PoolDataModule):
    """Trains on labelled and unlabelled records; an epoch ends with the labelled ones."""

    def train_dataloader(self) -> CombinedLoader:
        """Load both."""
        unlabelled = DataLoader(Unlabelled(self), self.batch_size, shuffle=True)
        return CombinedLoader({"labelled": super().train_dataloader(), "unlabelled": unlabelled}, "min_size")


class EntropyMinimising(Classifier):
    """Is to be sure of unlabelled records, too (Grandvalet & Bengio, 2004)."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = super().training_step(batch["labelled"], batch_idx)
        return loss + 0.1 * torch.distributions.Categorical(logits=self(batch["unlabelled"])).entropy().mean()


def main(run_dir: str = "runs/loaders") -> None:
    """Run both, and print what they came to."""
    train, val, _ = digits(seed=0)
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    for name, loads, model in ("balanced", Balanced, Classifier), ("two streams", TwoStreams, EntropyMinimising):
        L.seed_everything(0, verbose=False)
        pool = loads(train, val=val, task="multiclass", batch_size=16)
        trainer = L.Trainer(max_epochs=6, accelerator="cpu", **silent)
        learner = ActiveLearner(trainer, query=Margin(), round_size=Listed([200, 200]), run_dir=f"{run_dir}/{name}")
        result = learner.fit(model(in_features=64, classes=10, learning_rate=3e-2), datamodule=pool)
        print(f"{name}: {len(result.labelled)} labels, {result.history[-1].metrics['val_acc']:.3f}, {result.bill}")


if __name__ == "__main__":
    main()
