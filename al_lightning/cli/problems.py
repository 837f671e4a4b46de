"""What the command trains when nothing else is configured: a small classifier on handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy, Metric

from al_lightning.errors import MissingExtra
from al_lightning.scoring.outputs import Outputs

SCHEDULES = ("constant", "onecycle")
"""How the learning rate moves over one fit."""


class Splits(NamedTuple):
    """Records to label, and records to measure on."""

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset


def digits(seed: int = 0, *, val: int = 120, test: int = 360) -> Splits:
    """8x8 images of handwritten digits, 1,797 records, ten classes; scikit-learn carries them, nothing is downloaded.

    Args:
        seed: of the split, which keeps the classes' shares.
        val: records to validate on. Their labels are bought labels, so there are few.
        test: records to test on.

    Returns:
        Three datasets of ``(64 pixels in [0, 1], class)``; ``train`` is what ``val`` and ``test`` leave.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo", "the digits data set") from error

    pixels, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(classes, dtype=torch.long)
    rest, test_ids = train_test_split(range(len(y)), test_size=test, stratify=y, random_state=seed)
    train_ids, val_ids = train_test_split(rest, test_size=val, stratify=y[rest], random_state=seed)
    return Splits(*(TensorDataset(x[ids], y[ids]) for ids in (train_ids, val_ids, test_ids)))


class Classifier(L.LightningModule):
    """A multi-layer perceptron with AdamW. Logs ``train_loss``, ``val_loss``, ``val_acc``, ``test_loss``, ``test_acc``.

    Args:
        in_features: width of a record.
        classes: number of classes.
        hidden: widths of the hidden layers; the last one is the embedding.
        learning_rate: its peak, where ``schedule`` moves it.
        weight_decay: of AdamW.
        schedule: one of :data:`SCHEDULES`; over all steps of the fit, so the Trainer needs an epoch or step limit.
        label_smoothing: of the training loss.

    Raises:
        ValueError: a schedule that is not one of them, or a number out of range.
    """

    fused: bool | None = None
    """Whether AdamW takes one pass over the weights; None: as PyTorch chooses."""

    def __init__(
        self,
        in_features: int,
        classes: int,
        hidden: Sequence[int] = (128,),
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        schedule: str = "onecycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule is {schedule!r}; allowed: {', '.join(SCHEDULES)}.")
        for name, value in (("in_features", in_features), ("classes", classes), ("hidden", min(hidden, default=1))):
            if value < 1:
                raise ValueError(f"{name}={value}: a width, allowed: 1 or more.")
        for name, number in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            if not number >= 0:
                raise ValueError(f"{name}={number}: allowed: 0 or more.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: a share, allowed: 0 <= label_smoothing < 1.")
        hidden = tuple(hidden)  # Hydra's ListConfig must not reach the checkpoint
        self.save_hyperparameters(logger=False)
        self.learning_rate, self.weight_decay, self.schedule = learning_rate, weight_decay, schedule
        self.label_smoothing = label_smoothing
        widths = (in_features, *hidden)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)
        self.val_acc = Accuracy(task="multiclass", num_classes=classes)
        self.test_acc = Accuracy(task="multiclass", num_classes=classes)

    def embed(self, x: Tensor) -> Tensor:
        """The input of the last layer, ``(n, e)``, of records ``(n, in_features)``."""
        embedding: Tensor = self.trunk(x)
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of records ``(n, in_features)``."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    def infer(self, batch: Sequence[Tensor]) -> Outputs:
        """Logits and embedding of a batch, whose first part are records."""
        embedding = self.embed(batch[0])
        return Outputs(self.head(embedding), embedding)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = cross_entropy(self(x), y, label_smoothing=self.label_smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_acc)

    def _evaluate(self, batch: tuple[Tensor, Tensor], name: str, accuracy: Metric) -> None:
        x, y = batch
        logits = self(x)
        accuracy(logits, y)
        self.log(f"{name}_loss", cross_entropy(logits, y), batch_size=len(y))
        self.log(f"{name}_acc", accuracy, batch_size=len(y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=self.fused
        )
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError(
                f"schedule={self.schedule!r} spans the fit, and this Trainer has no end. "
                "Give it max_epochs or max_steps, or use schedule='constant'."
            )
        scheduler = OneCycleLR(optimizer, max_lr=self.learning_rate, total_steps=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
