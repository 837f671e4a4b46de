"""Predicted against actual: what a run comes to, foreseen after one round; a part of ``benchmarks/planner.py``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning import ActiveLearner, Budget, PoolDataModule
from al_lightning.cli.build import Parts, build, compose_config, register_resolvers
from al_lightning.cli.problems import Classifier
from al_lightning.cost.ahead import Measured
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.course import Course
from al_lightning.history import History
from al_lightning.query import Margin
from al_lightning.round_size import EvenRounds
from al_lightning.run.store import read_run
from benchmarks.common import barebones_trainer
from benchmarks.savings import Scale, configure

Row = dict[str, Any]
PROTOCOLS = ("letter", "banking77", "inference-heavy")


class Encoder(Classifier):
    """A transformer of two layers over 16 tokens of width 32."""

    def __init__(self) -> None:
        super().__init__(in_features=32, classes=10, hidden=(32,), learning_rate=3e-3)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def embed(self, x: Tensor) -> Tensor:
        """Mean of the last layer's tokens, through the trunk."""
        return super().embed(self.encoder(x.view(-1, 16, 32)).mean(dim=1))


class Residual(Classifier):
    """Three convolutions with a skip around each, on 3 x 16 x 16 pictures."""

    def __init__(self) -> None:
        super().__init__(in_features=16, classes=10, hidden=(32,), learning_rate=3e-3)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def embed(self, x: Tensor) -> Tensor:
        """Mean over the last layer's pixels, through the trunk."""
        x = self.stem(x.view(-1, 3, 16, 16))
        for block in self.blocks:
            x = x + block(x).relu()
        return super().embed(x.mean(dim=(2, 3)))


def _made(model: Callable[[], Classifier], width: int) -> Callable[[Path, int], Parts]:
    """A run on records drawn at random: their cost is what counts."""

    def make(folder: Path, seed: int) -> Parts:
        torch.manual_seed(seed)
        x = torch.randn(4000, width)
        pool = PoolDataModule(TensorDataset(x, torch.arange(4000) % 10), task="multiclass", batch_size=32)
        learner = ActiveLearner(
            barebones_trainer(6),
            query=Margin(),
            round_size=EvenRounds(labels=640, rounds=8),
            stop=[Budget(labels=640)],
            run_dir=folder,
            seed=seed,
        )
        return Parts(model(), pool, learner)

    return make


def _protocol(name: str, method: str) -> Callable[[Path, int], Parts]:
    return lambda folder, seed: build(configure(name, Scale.of(name, True), method, seed, folder))


def _digits(folder: Path, seed: int) -> Parts:
    register_resolvers()
    return build(compose_config("run", ["logger=none", f"seed={seed}", f"run_dir='{folder}'", "experiment=ordinary"]))


RUNS: dict[str, Callable[[Path, int], Parts]] = {
    **{f"{name}, {method}": _protocol(name, method) for name in PROTOCOLS for method in ("baseline", "frugal")},
    "MLP 64-128-10, validated": _digits,
    "transformer": _made(Encoder, 512),
    "residual network": _made(Residual, 768),
}


def measure(name: str, seed: int) -> Row:
    """Run it, and foresee it from what its first round cost: the first fit and the first scoring."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        paces: list[dict[str, float]] = []
        parts = RUNS[name](folder, seed)
        result = parts.learner.fit(
            parts.model, parts.pool, on_round=lambda record, model: paces.append(read_run(folder).meta["pace"])
        )
        saved = read_run(folder)
    first = [entry for entry in saved.entries if entry.round <= 1]
    foreseen = foresee(parts, result.history[0], first, {**saved.meta, "pace": paces[0]})
    return {
        "part": "forecast",
        "run": name,
        "seed": seed,
        "flops": result.bill.flops,
        "flops_foreseen": foreseen.flops,
        "seconds": result.bill.seconds,
        "seconds_foreseen": foreseen.seconds,
    }


def foresee(parts: Parts, record: Any, first: list[Any], meta: dict[str, Any]) -> Bill:
    """The bill at the end, from the ledger of the first round."""
    learner, pool = parts.learner, parts.pool
    fit = [entry for entry in first if entry.phase in ("train", "validate")]
    measured = Measured(
        entries=first,
        flops=meta["flops_per_record"],
        epochs={1: record.epochs},
        recipe=learner.recipe.epochs,
        paces=meta["pace"],
        cautious=False,
    )
    full = measured.flops["train"]

    def reference(labels: int) -> Line:
        return Line(flops=full * (learner.recipe.records(labels, pool.batch_size or 1) or 0))

    bill = Bill().plus(fit, labels=record.labelled, reference=reference(record.labelled))
    history = History(
        rounds=(record,),
        pool_size=pool.size,
        unlabelled=pool.size - record.labelled,
        labelled=record.labelled,
        round=1,
        bill=bill,
    )
    course = Course(
        size=learner._size,
        policy=learner.policy,
        candidates=learner.candidates,
        passes=learner.query.passes if learner.query.needs_inference else 0,
    )
    *_, last = course.rounds(history, measured, reference)
    return replace(last.bill, labels=0)
