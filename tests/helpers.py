"""A tiny problem, a tiny module and a quiet Trainer, shared by the tests that really train."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from al_lightning.learner import ActiveLearner
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import Margin
from al_lightning.round_size import Listed

WIDTH, CLASSES = 4, 3
NAMES = ["a", "b", "c"]
TOLD = ("scoring", "energy", "on_round", "preflight", "recipe_epochs")


def blobs(n: int = 60, *, seed: int = 0) -> TensorDataset:
    """Three Gaussian clouds that overlap a little; class of record i is ``i % 3``."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(scale=2.0, size=(CLASSES, WIDTH))
    y = np.arange(n) % CLASSES
    x = centres[y] + rng.normal(size=(n, WIDTH))
    return TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))


class Records(Dataset[Any]):
    """A map-style dataset of the given items, in whatever form they are."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Net(L.LightningModule):
    """A two-layer classifier that logs ``train_loss``, ``val_loss`` and ``val_acc``, and notes what it trained on."""

    def __init__(self, lr: float = 0.1, hidden: int = 8) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
        self.batches: list[Tensor] = []  # every input it was trained on, in order

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.batches.append(x.detach().clone())
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(-1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class ByHand(L.LightningModule):
    """Put before a module's class: it optimises by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


def net(seed: int = 0, **kwargs: Any) -> Net:
    """A Net whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(**kwargs)


def quiet(**kwargs: Any) -> L.Trainer:
    """A Trainer that prints nothing and writes nothing unless told to."""
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": os.environ.get("ACCELERATOR", "cpu"),  # ACCELERATOR=gpu make test
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**settings, **kwargs})


def pool_of(data: Any = None, **kwargs: Any) -> PoolDataModule:
    """A multiclass pool of blobs with batches of 8, and nine validation records."""
    settings: dict[str, Any] = {"task": "multiclass", "batch_size": 8, "val": blobs(9, seed=1)}
    return PoolDataModule(blobs() if data is None else data, **{**settings, **kwargs})


def learner(run_dir: Path, trainer: Any = None, **kwargs: Any) -> ActiveLearner:
    """A learner of three rounds (12, 6 and 6 labels) by margin; what its ``fit`` is told may be given here, too."""
    settings: dict[str, Any] = {"query": Margin(), "round_size": Listed([12, 6, 6]), "run_dir": run_dir}
    told = {name: kwargs.pop(name) for name in TOLD if name in kwargs}
    made = ActiveLearner(quiet() if trainer is None else trainer, **{**settings, **kwargs})
    made.fit = partial(made.fit, **told)  # type: ignore[method-assign]
    return made


def start_program(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of the tests in a folder, until all of its processes have ended: they hold the pipes that are read."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PYTEST_"))}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(program), str(folder), *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def ids_in(batches: list[Tensor], data: TensorDataset) -> list[int]:
    """Which records of the dataset the batches hold, in order."""
    rows = {tuple(x.tolist()): i for i, x in enumerate(data.tensors[0])}
    return [rows[tuple(x.tolist())] for batch in batches for x in batch]


def truth(id: int) -> str:
    """Name of a blob's class."""
    return NAMES[id % CLASSES]


def fill(path: Path, answer: Callable[[int], str | None] = truth, **more: str) -> None:
    """Type into a file of a query, as a spreadsheet would save it."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = answer(int(row["id"])) or row["label"]
        row.update(more)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def ids_of(path: Path) -> list[int]:
    """Records a file of a query asks for."""
    with path.open(newline="") as file:
        return list(dict.fromkeys(int(row["id"]) for row in csv.DictReader(file)))
