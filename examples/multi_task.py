"""Several targets of a record: a class and an angle. ``python examples/multi_task.py``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from al_lightning import ActiveLearner, PoolDataModule
from al_lightning.query import Entropy
from al_lightning.round_size import Listed
from al_lightning.scoring import Outputs

WIDTH, CLASSES = 16, 4


class Turned(Dataset[Any]):
    """Records with a class and an angle, together one label."""

    def __len__(self) -> int:
        return 800

    def __getitem__(self, i: int) -> dict[str, Any]:
        rng = torch.Generator().manual_seed(i)
        angle = 2 * torch.rand((), generator=rng) - 1
        signal = torch.sin(torch.linspace(0, 6, WIDTH) * (i % CLASSES + 1) + angle)
        target = {"class": torch.tensor(i % CLASSES), "angle": angle}
        return {"signal": signal + 0.3 * torch.randn(WIDTH, generator=rng), "target": target}


class TwoHeads(L.LightningModule):
    """A trunk with a head for each task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU())
        self.classes, self.angle = nn.Linear(32, CLASSES), nn.Linear(32, 1)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(signal)
        return self.classes(hidden), self.angle(hidden)[:, 0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits, angle = self(batch["signal"])
        target = batch["target"]
        return nn.functional.cross_entropy(logits, target["class"]) + nn.functional.mse_loss(angle, target["angle"])

    def infer(self, batch: Any) -> Outputs:
        """The class is what the model is asked to be certain of; scores=... could weigh both tasks."""
        return Outputs(logits=self(batch["signal"])[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main() -> None:
    """Buy 400 labels of two parts, those first of whose class the model is least certain."""
    pool = PoolDataModule(Turned(), task="structured", target_key="target", batch_size=32)
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False)
    L.seed_everything(0)
    learner = ActiveLearner(trainer, query=Entropy(), round_size=Listed([100, 100, 200]), run_dir="runs/multi_task")
    result = learner.fit(TwoHeads(), datamodule=pool)
    print(f"{len(result.labelled)} labels of a class and an angle each; {result.reason}")


if __name__ == "__main__":
    main()
