"""The models and the pool that every part of benchmarks.distributed scores."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning import query
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Answers, Question, Request, Scorer
from benchmarks.common import barebones_trainer

WIDTH, CLASSES, BATCH = 64, 10, 64
MARGIN = Question.of(query.Margin(), seed=0)


class Waiting(L.LightningModule):
    """Waits so long for every record."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.head = seconds, nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds * len(x))
        return self.head(x)


class Computing(L.LightningModule):
    """Bound by arithmetic: a deep perceptron, with its embedding and dropout for those strategies that need them."""

    def __init__(self, hidden: int = 512, layers: int = 6, classes: int = CLASSES) -> None:
        super().__init__()
        widths = [WIDTH, *[hidden] * layers]
        parts = [(nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.1)) for a, b in pairwise(widths)]
        self.trunk, self.head = nn.Sequential(*(m for part in parts for m in part)), nn.Linear(hidden, classes)

    def infer(self, batch: Any) -> Outputs:
        """Logits and embedding."""
        embedding = self.trunk(batch[0])
        return Outputs(self.head(embedding), embedding=embedding)


def records(n: int) -> TensorDataset:
    """N records of noise."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, WIDTH)).astype(np.float32))
    return TensorDataset(x, torch.zeros(n, dtype=torch.long))


def pool_of(n: int, task: str = "multiclass", batch: int = BATCH) -> PoolDataModule:
    """They as a pool."""
    return PoolDataModule(records(n), task=task, batch_size=batch)


def model_of(make: Callable[[], L.LightningModule]) -> L.LightningModule:
    """A model with weights that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def ask(scorer: Scorer, pool: PoolDataModule, model: L.LightningModule, question: Question = MARGIN) -> Answers:
    """Ask about the whole pool."""
    trainer, ids = barebones_trainer(1), np.arange(pool.size)
    return scorer.run(Request(trainer=trainer, model=model, pool=pool, ids=ids, question=question))
