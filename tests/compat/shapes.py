"""Shapes of modules, data and Trainers that people bring: a row a shape. What is asked of each is in harness.py."""

from __future__ import annotations

import random
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import torchmetrics
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

from al_lightning.query import Margin, Random
from al_lightning.query.base import Strategy

POOL, VAL, WIDTH, CLASSES = 40, 8, 4, 3
F = nn.functional


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One shape.

    Args:
        name: in words.
        module: builds the user's module.
        data: ``(n, shift) -> dataset``; ``shift`` changes every target and no input.
        task: of the pool.
        pool: further settings of the PoolDataModule.
        trainer: settings of the Trainer; callbacks are built anew by ``callbacks``.
        callbacks: the user's callbacks beside the one that watches.
        query: what picks.
        collate: of the user's loader.
        wrap: makes the user's own DataModule of the training and validation data; None: datasets are handed over.
        loader: further settings of the user's loader.
        epochs: of every fit.
        trained: records a fit of ``n`` labels goes through, if not ``epochs * n``.
    """

    name: str
    module: Callable[[], L.LightningModule]
    data: Callable[[int, int], Dataset[Any]] = field(default_factory=lambda: tuples())
    task: str = "multiclass"
    pool: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[Any]] = list
    query: Strategy = field(default_factory=Margin)
    collate: Callable[[list[Any]], Any] | None = None
    wrap: Callable[..., L.LightningDataModule] | None = None
    loader: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 2
    trained: Callable[[int], int] | None = None


# ---- data ------------------------------------------------------------------------------------------------------


class Records(Dataset[Any]):
    """Items made by a function of the id."""

    def __init__(self, n: int, item: Callable[[int], Any]) -> None:
        self.n, self.item = n, item

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        if not isinstance(i, int):
            raise TypeError(f"an id is a Python int, not {type(i).__name__}")
        if not 0 <= i < self.n:
            raise IndexError(i)
        return self.item(i)


def vectors(n: int = 200, width: int = WIDTH, seed: int = 0) -> Tensor:
    """``(n, width)`` inputs, the same in every process; class of record i is ``i % CLASSES``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator)
    return x + 2 * F.one_hot(torch.arange(n) % CLASSES, width).float()


X = vectors()


def klass(i: int, shift: int) -> int:
    """The class of a record."""
    return (i + shift) % CLASSES


def items(make: Callable[[int, int], Any]) -> Callable[[int, int], Dataset[Any]]:
    """A data set of ``make(id, shift)``."""
    return lambda n, shift: Records(n, lambda i: make(i, shift))


def tuples() -> Callable[[int, int], Dataset[Any]]:
    """``(x, class)``."""
    return items(lambda i, s: (X[i], klass(i, s)))


Point = namedtuple("Point", ["x", "y"])


def sequence(i: int) -> Tensor:
    """``(length, WIDTH)`` of 2 to 5 steps."""
    return X[i].repeat(2 + i % 4, 1)


def words(i: int) -> Tensor:
    """Token ids of a short text."""
    return torch.arange(1, 4 + i % 3) + 3 * (i % CLASSES)


class Batched(Records):
    """A data set that offers ``__getitems__``."""

    def __getitems__(self, ids: list[int]) -> list[Any]:
        return [self.item(i) for i in ids]


class Columns:
    """A table of columns as Hugging Face's data sets are: a row is a dict, several rows a dict of lists."""

    def __init__(self, n: int, shift: int) -> None:
        self.columns = {"vector": X[:n].tolist(), "label": [klass(i, shift) for i in range(n)]}

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, key: Any) -> dict[str, Any]:
        return {name: column[key] for name, column in self.columns.items()}

    def __getitems__(self, ids: list[int]) -> list[dict[str, Any]]:
        return [self[i] for i in ids]


# ---- modules -----------------------------------------------------------------------------------------------------


class Net(L.LightningModule):
    """A small classifier; other shapes change one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = self.build()

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def split(self, batch: Any) -> tuple[Any, Any]:
        """Inputs and target."""
        x, y = batch
        return x, y

    def loss(self, output: Any, y: Any) -> Tensor:
        return F.cross_entropy(output, y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = self.split(batch)
        loss = self.loss(self(x), y)
        self.log("train_loss", loss, batch_size=1)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = self.split(batch)
        self.log("val_loss", self.loss(self(x), y), batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Layers(Net):
    """With other layers."""

    def __init__(self, *layers: Callable[[], nn.Module]) -> None:
        self.layers = layers
        super().__init__()

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), *(layer() for layer in self.layers), nn.Linear(8, CLASSES))


class Keys(Net):
    """Dict batches."""

    def split(self, batch: Any) -> tuple[Any, Any]:
        return batch["x"], batch["y"]


class KeywordForward(Net):
    """A forward that takes a dict's keys by name."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.net(first + second)

    def split(self, batch: Any) -> tuple[Any, Any]:
        return {k: v for k, v in batch.items() if k != "y"}, batch["y"]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = self.split(batch)
        return self.loss(self(**x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = self.split(batch)
        self.log("val_loss", self.loss(self(**x), y), batch_size=1)


class Two(Net):
    """Two inputs."""

    def forward(self, a: Any, b: Any) -> Any:
        return self.net(a * b)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        a, b, y = batch
        return self.loss(self(a, b), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        a, b, y = batch
        self.log("val_loss", self.loss(self(a, b), y), batch_size=1)


class ByHand(Net):
    """Manual optimisation with two optimisers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
            loss = self.loss(self(x), y)
            self.manual_backward(loss)
            optimizer.step()
        return {"loss": loss.detach()}

    def configure_optimizers(self) -> Any:
        first, last = self.net[0], self.net[-1]  # type: ignore[index]
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (first, last)]


class Optimized(Net):
    """With another optimiser or schedule."""

    def __init__(self, make: Callable[[L.LightningModule], Any]) -> None:
        super().__init__()
        self.make = make

    def configure_optimizers(self) -> Any:
        return self.make(self)


def _sgd(module: L.LightningModule) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def _lbfgs(module: L.LightningModule) -> Any:
    return torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=3)


def _one_cycle(module: L.LightningModule) -> Any:
    optimizer, steps = _sgd(module), int(module.trainer.estimated_stepping_batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _cosine(module: L.LightningModule) -> Any:
    optimizer = _sgd(module)
    return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, module.trainer.max_epochs or 1)]


def _plateau(module: L.LightningModule) -> Any:
    optimizer = _sgd(module)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


def _groups(module: L.LightningModule) -> Any:
    weights = [p for p in module.parameters() if p.ndim > 1]
    biases = [p for p in module.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.05)


class LowRank(nn.Module):
    """LoRA as a parametrization."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(rows, 1)), nn.Parameter(torch.zeros(1, columns))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.a @ self.b


def _lora() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.weight.requires_grad_(False)
    parametrize.register_parametrization(layer, "weight", LowRank(8, 8))
    return layer


class GradientPenalty(Net):
    """Differentiates by its input in the step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        x = x.clone().requires_grad_(True)
        output = self(x)
        (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        return self.loss(output, y) + 0.1 * slope.square().mean()


class Adversarial(Net):
    """Trains on inputs moved against it."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        moved = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.loss(self(moved), y), moved)
        return self.loss(self(x + 0.1 * slope.sign()), y)


class Forces(Net):
    """Forces are gradients of energies, in forward."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            return -slope

    def loss(self, output: Any, y: Any) -> Tensor:
        return F.mse_loss(output, y)


class Jacobian(Net):
    """Regularised by a Jacobian from torch.func."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: self.net(row)))(x)
        return self.loss(self(x), y) + 0.01 * jacobian.square().mean()


class Checkpointed(Net):
    """Recomputes activations in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False)  # type: ignore[no-any-return]


class _Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -0.1 * grad


class Reversed(Net):
    """A gradient-reversal branch by an autograd.Function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.domain = nn.Linear(CLASSES, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        output = self(x)
        return self.loss(output, y) + F.cross_entropy(self.domain(_Flip.apply(output)), y % 2)


class Averaged(Net):
    """Keeps an exponential average of its weights, which it is evaluated with."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )

    def forward(self, x: Any) -> Any:
        return self.net(x) if self.training else self.average(x)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update_parameters(self.net)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


class Metrics(Net):
    """Logs torchmetrics objects."""

    def __init__(self) -> None:
        super().__init__()
        accuracy = torchmetrics.MetricCollection({"acc": torchmetrics.Accuracy("multiclass", num_classes=CLASSES)})
        self.train_metrics, self.val_metrics = accuracy.clone(prefix="train/"), accuracy.clone(prefix="val/")
        self.best = torchmetrics.MaxMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        output = self(x)
        self.log_dict(self.train_metrics(output, y), on_step=True, on_epoch=True)
        return {"loss": self.loss(output, y), "output": output.detach()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.val_metrics.update(self(x), y)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute())
        self.best(self.val_metrics["acc"].compute())
        self.log("val/best", self.best.compute())
        self.val_metrics.reset()


class BuiltLate(Net):
    """Builds its layers in ``configure_model``."""

    def build(self) -> Any:
        return None

    def configure_model(self) -> None:
        if self.net is None:
            self.net = super().build()


class BuiltInSetup(Net):
    """Builds its layers in ``setup``, from what the DataModule knows."""

    def build(self) -> Any:
        return None

    def setup(self, stage: str) -> None:
        if self.net is None:
            classes = len({int(y) for _, y in self.trainer.datamodule.val_dataloader().dataset})  # type: ignore[attr-defined]
            self.net = nn.Linear(WIDTH, classes)


class CompiledInSetup(Net):
    """Compiles its layers in ``setup``, as a well-known template does."""

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.net = torch.compile(self.net, backend="eager")  # type: ignore[assignment]


class FromObjects(Net):
    """Takes its layers, optimiser and schedule as hyperparameters, and saves them all."""

    def __init__(self, net: nn.Module, optimizer: Callable[..., Any], schedule: Callable[..., Any]) -> None:
        super(Net, self).__init__()
        self.save_hyperparameters(logger=False)
        self.net = net

    def configure_optimizers(self) -> Any:
        optimizer = self.hparams["optimizer"](self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": self.hparams["schedule"](optimizer)}


def from_objects() -> FromObjects:
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    return FromObjects(Net().build(), partial(torch.optim.AdamW, lr=0.05), schedule)


class FrozenTrunk(Net):
    """Keeps its first layer in eval mode and without gradients."""

    def build(self) -> nn.Module:
        trunk = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8))
        return nn.Sequential(trunk.requires_grad_(False), nn.ReLU(), nn.Linear(8, CLASSES))

    def on_train_epoch_start(self) -> None:
        self.net[0].eval()  # type: ignore[index]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD((p for p in self.parameters() if p.requires_grad), lr=0.1)


class Tied(Net):
    """Two layers of one weight."""

    def build(self) -> nn.Module:
        a, b = nn.Linear(8, 8), nn.Linear(8, 8)
        b.weight = a.weight
        return nn.Sequential(nn.Linear(WIDTH, 8), a, nn.ReLU(), b, nn.Linear(8, CLASSES))


class Skips(Net):
    """Leaves batches out by returning None."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


class Collects(Net):
    """Keeps its outputs and looks at them at the end of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.outputs.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train_mean", torch.stack(self.outputs).mean())
        self.outputs.clear()


class MovesBatches(Net):
    """Changes batches in its own transfer hooks: noise before, a scale after, mixup in neither."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + 0.01 * torch.randn_like(x) if self.training else x), y

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x * 1.5, y


class TimeMajor(Net):
    """A recurrent network on ``(time, batch, features)``."""

    def build(self) -> nn.Module:
        return nn.ModuleDict({"rnn": nn.GRU(WIDTH, 8), "head": nn.Linear(8, CLASSES)})

    def forward(self, x: Any) -> Any:
        return self.net["head"](self.net["rnn"](x)[0][-1])  # type: ignore[index]


class Lengths(TimeMajor):
    """The same, with lengths beside the sequences, behind the target."""

    def forward(self, x: Any, lengths: Tensor) -> Any:
        assert bool((lengths >= 2).all()), "lengths are lengths"
        return self.net["head"](self.net["rnn"](x)[0][lengths - 1, torch.arange(len(lengths))])  # type: ignore[index]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y, lengths = batch
        return self.loss(self(x, lengths), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y, lengths = batch
        self.log("val_loss", self.loss(self(x, lengths), y), batch_size=1)


class Packed(TimeMajor):
    """Packed sequences."""

    def forward(self, x: Any) -> Any:
        return self.net["head"](self.net["rnn"](x)[1][-1])  # type: ignore[index]


class Pictures(Net):
    """Pictures of many sizes, as a list."""

    def build(self) -> nn.Module:
        return nn.ModuleList([nn.Conv2d(1, 4, 2), nn.Linear(4, CLASSES)])

    def forward(self, x: Any) -> Any:
        conv, head = self.net  # type: ignore[misc]
        return torch.stack([head(conv(picture[None]).mean((2, 3))[0]) for picture in x])


class Bag(Net):
    """Flat tokens with offsets."""

    def build(self) -> nn.Module:
        return nn.ModuleList([nn.EmbeddingBag(20, 8), nn.Linear(8, CLASSES)])

    def forward(self, tokens: Tensor, offsets: Tensor) -> Any:
        bag, head = self.net  # type: ignore[misc]
        return head(bag(tokens, offsets))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(self(*batch[:2]), batch[2])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(self(*batch[:2]), batch[2]), batch_size=1)


class Encoder(Net):
    """An encoder that computes its loss where it is given ``labels``."""

    def build(self) -> nn.Module:
        return nn.ModuleList([nn.Embedding(20, 8), nn.Linear(8, CLASSES)])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        embedding, head = self.net  # type: ignore[misc]
        logits = head((embedding(input_ids) * attention_mask[..., None]).sum(1))
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(**batch).loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(**batch).loss, batch_size=1)


class Swapped(Net):
    """Batches of ``(y, x)``."""

    def split(self, batch: Any) -> tuple[Any, Any]:
        return batch[1], batch[0]


class Graph:
    """A batch of graphs: all nodes, the graph of each, and the targets."""

    def __init__(self, nodes: Tensor, of: Tensor, y: Tensor) -> None:
        self.nodes, self.of, self.y = nodes, of, y

    def to(self, device: Any, **_: Any) -> Graph:
        return Graph(self.nodes.to(device), self.of.to(device), self.y.to(device))


class Graphs(Net):
    """Mean of a graph's nodes."""

    def forward(self, nodes: Tensor, of: Tensor) -> Tensor:
        count = int(of.max()) + 1
        pooled = torch.zeros(count, WIDTH).index_add(0, of, self.net[0:0](nodes))  # type: ignore[index]
        return self.net(pooled)  # type: ignore[no-any-return]

    def infer(self, batch: Graph) -> Tensor:
        return self(batch.nodes, batch.of)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(self(batch.nodes, batch.of), batch.y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(self(batch.nodes, batch.of), batch.y), batch_size=1)


class Head(Net):
    """With another number of outputs and another loss."""

    def __init__(self, outputs: int, loss: Callable[[Tensor, Any], Tensor]) -> None:
        self.outputs, self.criterion = outputs, loss
        super().__init__()

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, self.outputs))

    def loss(self, output: Any, y: Any) -> Tensor:
        return self.criterion(output, y)


class Pixels(Net):
    """Segmentation of ``(1, 4, 4)`` pictures."""

    def build(self) -> nn.Module:
        return nn.Conv2d(1, CLASSES, 3, padding=1)


class Tagger(Net):
    """A class for every token."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, CLASSES))

    def loss(self, output: Any, y: Any) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), y.flatten())


class ClassWeights(Net):
    """Weighs classes by what is labelled, asked of the DataModule as the fit starts."""

    def on_fit_start(self) -> None:
        batches = list(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        counts = torch.bincount(torch.cat([y for _, y in batches]), minlength=CLASSES)
        self.weights = 1.0 / counts.clamp_min(1)

    def loss(self, output: Any, y: Any) -> Tensor:
        return F.cross_entropy(output, y, weight=self.weights)


# ---- collation ---------------------------------------------------------------------------------------------------


def time_major(rows: list[Any]) -> Any:
    """``(time, batch, features)``, padded."""
    return nn.utils.rnn.pad_sequence([x for x, _ in rows]), torch.tensor([y for _, y in rows])


def with_lengths(rows: list[Any]) -> Any:
    """The target in the middle."""
    x, y = time_major(rows)
    return x, y, torch.tensor([len(x) for x, _ in rows])


def packed(rows: list[Any]) -> Any:
    return nn.utils.rnn.pack_sequence([x for x, _ in rows], enforce_sorted=False), torch.tensor([y for _, y in rows])


def as_lists(rows: list[Any]) -> Any:
    return [x for x, _ in rows], torch.tensor([y for _, y in rows])


def flat(rows: list[Any]) -> Any:
    offsets = torch.tensor([0, *(len(x) for x, _ in rows[:-1])]).cumsum(0)
    return torch.cat([x for x, _ in rows]), offsets, torch.tensor([y for _, y in rows])


def renamed(rows: list[Any]) -> Any:
    """As Hugging Face's collators do: padded, and ``label`` becomes ``labels``."""
    ids = nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    labels = torch.tensor([row["label"] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def keyed(rows: list[Any]) -> Any:
    x, y = default_collate(rows)
    return {"y": y, "x": x}


def swapped(rows: list[Any]) -> Any:
    x, y = default_collate(rows)
    return [y, x]


def graphs(rows: list[Any]) -> Graph:
    of = torch.cat([torch.full((len(x),), i) for i, (x, _) in enumerate(rows)])
    return Graph(torch.cat([x for x, _ in rows]), of, torch.tensor([y for _, y in rows]))


def columns(rows: list[Any]) -> Any:
    return {"x": torch.tensor([row["vector"] for row in rows]), "y": torch.tensor([row["label"] for row in rows])}


# ---- DataModules -------------------------------------------------------------------------------------------------


class Owned(L.LightningDataModule):
    """A DataModule as people write them."""

    num_classes = CLASSES

    def __init__(self, train: Any, val: Any, **loader: Any) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["train", "val"])
        self.train, self.val, self.loader = train, val, loader

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, shuffle=True, **self.loader)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, **self.loader)


class Jitters(Owned):
    """The same, which augments on the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + 0.01 * torch.randn_like(x) if self.trainer.training else x), y  # type: ignore[union-attr]


def jittered(i: int, shift: int) -> Any:
    """Augmented from all three generators."""
    return X[i] + 0.1 * torch.randn(WIDTH) + 0.1 * random.random() + 0.1 * float(np.random.rand()), klass(i, shift)


def clean(n: int) -> Dataset[Any]:
    """The same records without augmentation."""
    return tuples()(n, 0)


# ---- the table ---------------------------------------------------------------------------------------------------


def _modules() -> list[Shape]:
    spectral, weight = parametrizations.spectral_norm, parametrizations.weight_norm
    linear = partial(nn.Linear, 8, 8)
    rows: dict[str, Callable[[], L.LightningModule]] = {
        "a plain classifier": Net,
        "dropout": lambda: Layers(partial(nn.Dropout, 0.3)),
        "batch norm": lambda: Layers(partial(nn.BatchNorm1d, 8), nn.ReLU),
        "layer norm": lambda: Layers(partial(nn.LayerNorm, 8), nn.GELU),
        "spectral norm": lambda: Layers(lambda: spectral(linear())),
        "weight norm": lambda: Layers(lambda: weight(linear())),
        "orthogonal weights": lambda: Layers(lambda: parametrizations.orthogonal(linear())),
        "LoRA by parametrization": lambda: Layers(_lora),
        "manual optimisation, two optimisers": ByHand,
        "momentum": lambda: Optimized(_sgd),
        "LBFGS, whose closure runs several times": lambda: Optimized(_lbfgs),
        "OneCycleLR by estimated_stepping_batches": lambda: Optimized(_one_cycle),
        "cosine by epochs": lambda: Optimized(_cosine),
        "ReduceLROnPlateau": lambda: Optimized(_plateau),
        "parameter groups": lambda: Optimized(_groups),
        "gradient penalty": GradientPenalty,
        "adversarial training": Adversarial,
        "Jacobian by torch.func": Jacobian,
        "gradient checkpointing": Checkpointed,
        "an autograd.Function": Reversed,
        "EMA weights": Averaged,
        "torchmetrics": Metrics,
        "layers built in configure_model": BuiltLate,
        "layers built in setup": BuiltInSetup,
        "compiled in setup": CompiledInSetup,
        "objects as hyperparameters": from_objects,
        "a frozen trunk in eval mode": FrozenTrunk,
        "tied weights": Tied,
        "outputs kept over an epoch": Collects,
        "batch transfer hooks": MovesBatches,
        "class weights of what is labelled": ClassWeights,
    }
    return [Shape(name=name, module=module) for name, module in rows.items()]


def _targets() -> list[Shape]:
    bce = F.binary_cross_entropy_with_logits
    noise = items(lambda i, s: (X[i], X[i] * (1 + s)))
    return [
        Shape(name="forces: gradients in forward", module=Forces, data=noise, task="regression", query=Random()),
        Shape(
            name="binary, float targets of one column",
            module=lambda: Head(1, bce),
            data=items(lambda i, s: (X[i], torch.tensor([float(klass(i, s) > 0)]))),
            task="binary",
        ),
        Shape(
            name="binary, whole numbers",
            module=lambda: Head(1, lambda z, y: bce(z[:, 0], y.float())),
            data=items(lambda i, s: (X[i], int(klass(i, s) > 0))),
            task="binary",
        ),
        Shape(
            name="multilabel",
            module=lambda: Head(3, bce),
            data=items(lambda i, s: (X[i], torch.tensor([float((i + s) >> k & 1) for k in range(3)]))),
            task="multilabel",
        ),
        Shape(
            name="regression, Python floats",
            module=lambda: Head(1, lambda z, y: F.mse_loss(z[:, 0], y.float())),
            data=items(lambda i, s: (X[i], float(X[i].sum()) + s)),
            task="regression",
            query=Random(),
        ),
        Shape(
            name="regression, NumPy vectors",
            module=lambda: Head(2, F.mse_loss),
            data=items(lambda i, s: (X[i].numpy(), X[i, :2].numpy() + np.float32(s))),
            task="regression",
            query=Random(),
        ),
        Shape(
            name="segmentation",
            module=Pixels,
            data=items(lambda i, s: (X[i].outer(X[i])[None], (torch.arange(16).reshape(4, 4) + i + s) % CLASSES)),
            task="segmentation",
        ),
        Shape(
            name="tokens",
            module=Tagger,
            data=items(lambda i, s: (torch.arange(5) + i % 9, (torch.arange(5) + i + s) % CLASSES)),
            task="tokens",
        ),
    ]


def _data() -> list[Shape]:
    texts = items(lambda i, s: {"input_ids": words(i), "label": klass(i, s)})
    sequences = items(lambda i, s: (sequence(i), klass(i, s)))
    return [
        Shape(
            name="dict items",
            module=Keys,
            data=items(lambda i, s: {"x": X[i], "y": klass(i, s)}),
            pool={"target_key": "y"},
        ),
        Shape(
            name="dict items, forward by keywords",
            module=KeywordForward,
            data=items(lambda i, s: {"first": X[i], "y": klass(i, s), "second": X[i]}),
            pool={"target_key": "y"},
        ),
        Shape(name="named tuples", module=Net, data=items(lambda i, s: Point(X[i], klass(i, s)))),
        Shape(name="lists", module=Net, data=items(lambda i, s: [X[i], klass(i, s)])),
        Shape(name="NumPy items", module=Net, data=items(lambda i, s: (X[i].numpy(), np.int64(klass(i, s))))),
        Shape(name="tensors as targets", module=Net, data=items(lambda i, s: (X[i], torch.tensor(klass(i, s))))),
        Shape(name="two inputs", module=Two, data=items(lambda i, s: (X[i], X[i].abs(), klass(i, s)))),
        Shape(name="time-major sequences", module=TimeMajor, data=sequences, collate=time_major),
        Shape(name="lengths behind the target", module=Lengths, data=sequences, collate=with_lengths),
        Shape(name="packed sequences", module=Packed, data=sequences, collate=packed),
        Shape(
            name="lists of pictures",
            module=Pictures,
            data=items(lambda i, s: (X[i].outer(X[i])[None, : 2 + i % 3], klass(i, s))),
            collate=as_lists,
        ),
        Shape(
            name="flat tokens with offsets",
            module=Bag,
            data=items(lambda i, s: (words(i), klass(i, s))),
            collate=flat,
        ),
        Shape(name="label becomes labels", module=Encoder, data=texts, collate=renamed, pool={"target_key": "label"}),
        Shape(name="tuples become dicts", module=Keys, collate=keyed),
        Shape(name="the target first", module=Swapped, collate=swapped),
        Shape(name="batches of graphs", module=Graphs, data=sequences, collate=graphs),
        Shape(
            name="a table of columns",
            module=Keys,
            data=Columns,  # type: ignore[arg-type]
            collate=columns,
            pool={"target_key": "label"},
        ),
        Shape(name="__getitems__", module=Net, data=lambda n, s: Batched(n, lambda i: (X[i], klass(i, s)))),
        Shape(
            name="a Subset of a larger set",
            module=Net,
            data=lambda n, s: Subset(tuples()(n + 20, s), list(range(19, n + 19))),
        ),
        Shape(
            name="two sets in a row",
            module=Net,
            data=lambda n, s: ConcatDataset([tuples()(n // 2, s), tuples()(n - n // 2, s)]),
        ),
        Shape(
            name="augmentation by three generators", module=Net, data=items(jittered), pool={"eval_view": clean(POOL)}
        ),
        Shape(name="a DataModule", module=Net, wrap=Owned),
        Shape(name="a DataModule that augments on the device", module=Net, wrap=Jitters),
        Shape(
            name="drop_last",
            module=Net,
            loader={"drop_last": True},
            trained=lambda n: 2 * (n - n % 4),
        ),
        Shape(name="a worker", module=Net, loader={"num_workers": 1}),
    ]


def _trainers() -> list[Shape]:
    rows: dict[str, dict[str, Any]] = {
        "gradient accumulation": {"trainer": {"accumulate_grad_batches": 2}},
        "gradient clipping": {"trainer": {"gradient_clip_val": 0.1}},
        "double precision": {"trainer": {"precision": "64-true"}},
        "mixed precision": {"trainer": {"precision": "bf16-mixed"}},
        "half precision": {"trainer": {"precision": "bf16-true"}},
        "max_steps": {"trainer": {"max_steps": 3, "max_epochs": -1}, "trained": lambda n: min(3 * 4, 3 * n)},
        "limit_train_batches": {"trainer": {"limit_train_batches": 2}, "trained": lambda n: 2 * min(8, n)},
        "no sanity check": {"trainer": {"num_sanity_val_steps": 0}},
        "validation twice an epoch": {"trainer": {"val_check_interval": 0.5}},
        "validation every second epoch": {"trainer": {"check_val_every_n_epoch": 2}},
        "loaders made anew every epoch": {"trainer": {"reload_dataloaders_every_n_epochs": 1}},
        "no inference mode": {"trainer": {"inference_mode": False}},
        "deterministic": {"trainer": {"deterministic": True}},
        "anomaly detection": {"trainer": {"detect_anomaly": True}},
        "early stopping": {"callbacks": lambda: [EarlyStopping("val_loss", patience=5)]},
        "the best checkpoint": {
            "callbacks": lambda: [ModelCheckpoint(monitor="val_loss")],
            "trainer": {"enable_checkpointing": True},
        },
        "a timer": {"callbacks": lambda: [Timer(duration="00:01:00:00")]},
    }
    return [Shape(name=name, module=Net, **row) for name, row in rows.items()]


SHAPES: list[Shape] = [*_modules(), *_targets(), *_data(), *_trainers()]
