"""Models and datasets that workers import, some of them with something wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from al_lightning.scoring import Outputs
from al_lightning.scoring.question import Answers, Question, Request
from al_lightning.scoring.trainer import TrainerScorer
from tests.helpers import CLASSES, WIDTH, Net, blobs, net, quiet


class Embedding(Net):
    """Offers its hidden layer, and has dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    def infer(self, batch: Any) -> Outputs:
        hidden = self.net[:3](batch[0])
        return Outputs(self.net[3](hidden), embedding=hidden)


class Regressor(Embedding):
    """One number per record."""

    def infer(self, batch: Any) -> Outputs:
        return Outputs(super().infer(batch).logits[:, :1])


def embedding(kind: type[Embedding] = Embedding) -> Embedding:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind()


class Noted(Dataset[Any]):
    """Blobs that write down which ids are read, in which process, and do something about one of them.

    Args:
        notes: folder for one file per process.
        at: the id.
        does: what happens when it is read: ``"raises"``, ``"exits"``, ``"sleeps"`` the first time; or nothing.
        n: records.
        wait: seconds that reading a record takes.
    """

    def __init__(self, notes: Path, *, at: int = -1, does: str = "", n: int = 60, wait: float = 0.0) -> None:
        self.notes, self.at, self.does, self.wait = notes, at, does, wait
        self.data = blobs(n)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        if os.environ.get("RAY_JOB_ID") or i == self.at or self.wait:
            with (self.notes / str(os.getpid())).open("a") as file:
                file.write(f"{i}\n")
        if self.wait:
            time.sleep(self.wait)
        if i == self.at:
            self._act()
        return self.data[i]

    def _act(self) -> None:
        if self.does == "raises":
            raise OSError("truncated JPEG")
        if self.does == "exits":
            os._exit(1)
        slept = self.notes / "slept"
        if self.does == "sleeps" and not slept.exists():
            slept.touch()
            time.sleep(15)


def reads(notes: Path) -> dict[str, list[int]]:
    """Ids that were read, by process."""
    return {file.name: [int(i) for i in file.read_text().split()] for file in notes.iterdir() if file.name.isdigit()}


class NotANumber(Net):
    """NaN for records whose first input is exactly 7."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] == 7, torch.nan, super().forward(x))


class Locked(Net):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        import threading

        super().__init__()
        self.guard = threading.Lock()


def ask(scorer: Any, pool: Any, question: Question, *, model: Any = None, ids: Any = None, **more: Any) -> Answers:
    """Ask about all records, or some, ."""
    model, ids = net() if model is None else model, np.arange(pool.size) if ids is None else np.asarray(ids)
    return scorer.run(Request(trainer=quiet(), model=model, pool=pool, ids=ids, question=question, **more))


def in_one_process(pool: Any, question: Question, **more: Any) -> Answers:
    """The same through the Trainer."""
    return ask(TrainerScorer(), pool, question, **more)
