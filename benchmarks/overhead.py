"""What the library adds to the user's own loops: ``python -m benchmarks.overhead``.

Two ratios, each measured within one run of this command, so that a busy machine slows both sides alike:

- ``loader_overhead_ratio``: an epoch over ``PoolDataModule.train_dataloader()`` against an epoch over a plain
  ``DataLoader`` on the same records, sides taken in turn, median of paired ratios, worst of the cases.
- ``learner_overhead_share``: time of a whole active-learning run that is spent outside ``Trainer.fit`` and
  ``Trainer.predict``, on 16,000 records of 16 numbers and a 256-256 network, 16 rounds of 200, 12 epochs a round.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from al_lightning import ActiveLearner, Budget, PoolDataModule
from al_lightning.cli.problems import Classifier
from al_lightning.query import Margin
from al_lightning.round_size import Fixed
from benchmarks.common import barebones_trainer, claim, write_results

REPEATS = 15
POOL, LABELLED = 60_000, 20_000


class Dicts(Dataset[dict[str, Any]]):
    """Records as dicts, made per item: what tokenised text looks like."""

    def __init__(self, x: torch.Tensor, y: list[int]) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": self.x[i], "label": self.y[i]}


def loader_cases() -> Iterator[tuple[str, Callable[[], DataLoader], Callable[[], DataLoader]]]:
    """``(case, plain loader, our loader)`` on the same records in the same batch size."""
    x, y = torch.randn(POOL, 32), torch.randint(0, 10, (POOL,))
    datasets: dict[str, tuple[Any, str | None]] = {
        "tensors": (TensorDataset(x, y), None),
        "tuples with int labels": (list(zip(x, y.tolist(), strict=True)), None),
        "dicts": (Dicts(x, y.tolist()), "label"),
    }
    for name, (data, key) in datasets.items():
        for part, ids in (("all", range(POOL)), ("a third", range(0, POOL, POOL // LABELLED))):
            pool = PoolDataModule(data, task="multiclass", batch_size=64, target_key=key)
            pool.label(list(ids), {i: int(y[i]) for i in ids})
            plain = data if part == "all" else Subset(data, list(ids))
            yield (
                f"{name}, {part} labelled",
                partial(DataLoader, plain, batch_size=64, shuffle=True),
                pool.train_dataloader,
            )


def epoch_seconds(make: Callable[[], DataLoader]) -> float:
    """Seconds of one epoch, the loader's own construction included."""
    start = time.perf_counter()
    for _ in make():
        pass
    return time.perf_counter() - start


def measure_loaders() -> list[dict[str, Any]]:
    """One row per case and repeat."""
    rows = []
    for case, plain, ours in loader_cases():
        epoch_seconds(plain), epoch_seconds(ours)
        for repeat in range(REPEATS):
            sides = {"plain": plain, "ours": ours}
            order = list(sides) if repeat % 2 else list(sides)[::-1]
            seconds = {side: epoch_seconds(sides[side]) for side in order}
            rows.append({"part": "loader", "case": case, "repeat": repeat, **seconds})
    return rows


@contextmanager
def trainer_clock() -> Iterator[list[float]]:
    """Collect the seconds spent inside ``Trainer.fit`` and ``Trainer.predict``."""
    inside: list[float] = []
    originals = {name: getattr(L.Trainer, name) for name in ("fit", "predict")}

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                inside.append(time.perf_counter() - start)

        return call

    for name, original in originals.items():
        setattr(L.Trainer, name, timed(original))
    try:
        yield inside
    finally:
        for name, original in originals.items():
            setattr(L.Trainer, name, original)


def measure_learner(repeats: int = 3) -> list[dict[str, Any]]:
    """One row per run."""
    rows = []
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(repeat)
        x = torch.randn(16_000, 16, generator=generator)
        y = (x @ torch.randn(16, 26, generator=generator)).argmax(dim=1)
        pool = PoolDataModule(TensorDataset(x, y), task="multiclass", batch_size=64, eval_batch_size=1024)
        model = Classifier(in_features=16, classes=26, hidden=(256, 256), learning_rate=4e-3)
        trainer = barebones_trainer(12)
        with tempfile.TemporaryDirectory() as folder, trainer_clock() as inside:
            start = time.perf_counter()
            learner = ActiveLearner(
                trainer, query=Margin(), round_size=Fixed(200), stop=[Budget(labels=3200)], run_dir=folder, seed=repeat
            )
            result = learner.fit(model, datamodule=pool)
            total = time.perf_counter() - start
        rows.append(
            {
                "part": "learner",
                "repeat": repeat,
                "rounds": len(result.history),
                "seconds": total,
                "seconds_in_trainer": sum(inside),
                "seconds_on_bill": result.bill.seconds,
            }
        )
    return rows


def main() -> None:
    """Measure and write."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    rows = [*measure_loaders(), *measure_learner()]
    loaders = [row for row in rows if row["part"] == "loader"]
    ratios = {
        case: statistics.median(row["ours"] / row["plain"] for row in loaders if row["case"] == case)
        for case in dict.fromkeys(row["case"] for row in loaders)
    }
    shares = [1 - row["seconds_in_trainer"] / row["seconds"] for row in rows if row["part"] == "learner"]
    claims = [
        claim("loader_overhead_ratio", max(ratios.values()), "<=", 1.05),
        claim("learner_overhead_share", statistics.median(shares), "<=", 0.02),
    ]
    path = write_results("overhead", "python -m benchmarks.overhead", rows, claims, ratios=ratios)
    for entry in claims:
        print(entry)
    print(ratios)
    print(path)


if __name__ == "__main__":
    main()
