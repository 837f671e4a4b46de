"""Records scored in a second through ``Trainer.predict``, against a loop without Lightning.

The loop is what one would write by hand: a DataLoader with PyTorch's own collation over the dataset, inference mode,
``eval()``, the same payload, the answers put together at the end. Sides take turns; the median of paired ratios counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from al_lightning import PoolDataModule
from al_lightning.cost.flops import FlopMeter
from al_lightning.query import Margin
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.trainer import run_inference
from benchmarks.common import barebones_trainer

BATCH = 512


class Wrapped(L.LightningModule):
    """Somebody's network as a LightningModule."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Encoder(nn.Module):
    """A small transformer over tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.embed, self.encode, self.head = nn.Embedding(1000, 64), nn.TransformerEncoder(layer, 2), nn.Linear(64, 50)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encode(self.embed(tokens)).mean(dim=1))


def cases(n: int) -> Iterator[tuple[str, nn.Module, Any]]:
    """``(case, network, dataset)``; n records of the smallest model, fewer of the others."""

    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 50))

    def tensors(x: Tensor) -> TensorDataset:
        return TensorDataset(x, torch.zeros(len(x), dtype=torch.long))

    convolutions = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 10)),
    )
    yield "mlp 256-512-50, tensors", mlp(), tensors(torch.randn(n, 256))
    yield "mlp 256-512-50, a list of records", mlp(), list(zip(torch.randn(n, 256), range(n), strict=True))
    yield "two convolutions on 28 x 28", convolutions, tensors(torch.randn(n // 3, 1, 28, 28))
    yield "two transformer layers on 32 tokens", Encoder(), tensors(torch.randint(0, 1000, (n // 6, 32)))


def by_hand(model: nn.Module, data: Any) -> np.ndarray:
    """Margins of all records."""
    payload, found = Margin().payload, []
    model.eval()
    with torch.inference_mode():
        for x, _ in DataLoader(data, batch_size=BATCH):
            found.append(payload(Outputs(model(x)))["score"].numpy())
    return np.concatenate(found)


def measure_scoring(n: int = 30_000, repeats: int = 15) -> list[dict[str, Any]]:
    """One row per case and repeat, in seconds."""
    rows = []
    for case, net, data in cases(n):
        model, trainer, meter, ids = Wrapped(net), barebones_trainer(1), FlopMeter(), np.arange(len(data))
        payload = Margin().payload
        pool = PoolDataModule(data, task="multiclass", batch_size=BATCH)

        def ours(parts: Any = (trainer, model, pool, ids, payload, meter)) -> np.ndarray:
            return run_inference(*parts)[0]["score"]

        def plain(parts: Any = (model, data)) -> np.ndarray:
            return by_hand(*parts)

        np.testing.assert_allclose(ours(), plain(), atol=1e-5)
        sides: dict[str, Callable[[], np.ndarray]] = {"ours": ours, "plain": plain}
        for repeat in range(repeats):
            seconds = {}
            for side in list(sides) if repeat % 2 else list(sides)[::-1]:
                start = time.perf_counter()
                sides[side]()
                seconds[side] = time.perf_counter() - start
            rows.append({"part": "scoring", "case": case, "records": len(data), "repeat": repeat, **seconds})
    return rows


def throughput_ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Records a second of ours over those of the plain loop, by case: the median over repeats."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["part"] == "scoring":
            found.setdefault(row["case"], []).append(row["plain"] / row["ours"])
    return {case: statistics.median(ratios) for case, ratios in found.items()}
