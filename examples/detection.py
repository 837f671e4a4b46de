"""Boxes as labels: ``infer`` says how uncertain the model is about an image. ``python examples/detection.py``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from al_lightning import ActiveLearner, PoolDataModule
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from al_lightning.scoring import Outputs

SIZE, CELLS = 16, 4


class Squares(Dataset[Any]):
    """Images with none, one or two bright squares, and their boxes and classes, as detection datasets have them."""

    def __len__(self) -> int:
        return 800

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = torch.Generator().manual_seed(i)
        image = 0.3 * torch.rand(1, SIZE, SIZE, generator=rng)
        boxes, labels = torch.zeros(i % 3, 4), torch.zeros(i % 3, dtype=torch.int64)
        for k, cell in enumerate(torch.randperm(CELLS**2, generator=rng)[: i % 3].tolist()):
            x, y, labels[k] = cell % CELLS * 4, cell // CELLS * 4, (i + k) % 2
            boxes[k] = torch.tensor([x, y, x + 4, y + 4])
            image[0, y : y + 4, x : x + 4] += 0.5 + 0.4 * labels[k]
        return image, {"boxes": boxes, "labels": labels}


def collate(rows: list[Any]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Stack images; images differ in how many boxes they have."""
    return torch.stack([image for image, _ in rows]), [target for _, target in rows]


class Detector(L.LightningModule):
    """For each cell of a grid: nothing, or a square of one of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 16, 4, stride=4), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        cells = torch.zeros(len(images), CELLS, CELLS, dtype=torch.int64)
        for i, target in enumerate(targets):
            x, y = (target["boxes"][:, :2].long() // 4).T
            cells[i, y, x] = target["labels"] + 1
        return nn.functional.cross_entropy(self(images), cells)

    def infer(self, batch: Any) -> Outputs:
        """An image is as uncertain as its most uncertain cell; only the images are looked at."""
        probabilities = self(batch[0]).softmax(dim=1).flatten(start_dim=2)
        return Outputs(scores=1 - probabilities.amax(dim=1).amin(dim=1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main() -> None:
    """Buy the boxes of 400 images, the most uncertain ones first."""
    pool = PoolDataModule(Squares(), task="structured", batch_size=32, loader={"collate_fn": collate})
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False)
    L.seed_everything(0)
    learner = ActiveLearner(trainer, query=Margin(), round_size=Listed([100, 100, 200]), run_dir="runs/detection")
    result = learner.fit(Detector(), datamodule=pool)
    boxes = sum(len(pool.state.labels[int(i)]["boxes"]) for i in result.labelled)
    print(f"{len(result.labelled)} labels with {boxes} boxes; {result.reason}")


if __name__ == "__main__":
    main()
