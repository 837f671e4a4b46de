"""Further shapes, as bug reports and forum questions have them: a row a shape, held as those of shapes.py are."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from al_lightning.query import Random
from tests.compat.shapes import CLASSES, WIDTH, F, Head, Net, Owned, Shape, X, items, klass

# ---- modules -----------------------------------------------------------------------------------------------------


class Bytes(Net):
    """Takes pictures as bytes."""

    def build(self) -> nn.Module:
        return nn.Linear(WIDTH**2, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.net(x.float().div(255).flatten(1))


class Views(Net):
    """Learns from two views of a record, and answers by the first."""

    def forward(self, views: Any) -> Any:
        return self.net(views[0])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        views, y = batch
        return F.cross_entropy(self(views), y) + F.mse_loss(self.net(views[0]), self.net(views[1]))


class Nested(Net):
    """Takes dicts of dicts."""

    def forward(self, x: Any) -> Any:
        return self.net(x["a"]["b"])


class Adversary(Net):
    """Manual optimisation in turns, with toggled optimisers, clipping and a schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.judge = nn.Linear(CLASSES, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        maker, judge = self.optimizers()  # type: ignore[misc]
        loss = F.cross_entropy(self(x), y) - self.judge(self(x)).mean()
        self._step(maker, loss, clip=True)
        self._step(judge, self.judge(self(x).detach()).square().mean())
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        return {"loss": loss.detach()}

    def _step(self, optimizer: Any, loss: Tensor, clip: bool = False) -> None:
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clip:
            self.clip_gradients(optimizer, 0.5, "norm")
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        maker = torch.optim.Adam(self.net.parameters(), lr=0.02)
        return [maker, torch.optim.SGD(self.judge.parameters(), lr=0.1)], [torch.optim.lr_scheduler.StepLR(maker, 1)]


class WarmsUp(Net):
    """Sets its rate in ``optimizer_step``, from nothing."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * min(1.0, self.trainer.global_step / 3)
        optimizer.step(closure=optimizer_closure)


class OwnHooks(Net):
    """Writes the optimisation's hooks anew."""

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(*args, **kwargs)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.2, gradient_clip_algorithm="norm")

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class MixesUp(Net):
    """Mixup in the step, and a change by the epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        share, other = float(np.random.beta(1, 1)), torch.randperm(len(x))
        output = self((share * x + (1 - share) * x[other]) * (1 + 0.1 * self.current_epoch))
        return share * F.cross_entropy(output, y) + (1 - share) * F.cross_entropy(output, y[other])


class TakesIterator(Net):
    """Takes the loader's iterator."""

    def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
        (x, y), _, _ = next(dataloader_iter)
        return F.cross_entropy(self(x), y)


class Queue(Net):
    """Keeps its last outputs in a buffer, which the loss uses."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.zeros(4, CLASSES))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        output, past = self(x), self.queue.clone()
        self.queue.copy_(torch.cat([output.detach(), past])[:4])
        return F.cross_entropy(output, y) + 0.01 * (output @ past.T).square().mean()


class LogsEverywhere(Net):
    """Logs by step and by epoch, and what was logged again."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("step", float(self.global_step))
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("twice", 2 * self.trainer.callback_metrics["loss_epoch"])


class SeveralLoaders(Net):
    """Validates on several loaders."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # type: ignore[override]
        super().validation_step(batch, batch_idx)


class ByWeight(Net):
    """Items of ``(x, weight, y)``."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, weight, y = batch
        return (F.cross_entropy(self(x), y, reduction="none") * weight).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[2]), batch_size=1)

    def infer(self, batch: Any) -> Any:
        return self(batch[0])


# ---- data and callbacks ------------------------------------------------------------------------------------------


class Twice(Owned):
    """Two validation loaders."""

    def val_dataloader(self) -> Any:
        return [DataLoader(self.val, **self.loader) for _ in range(2)]


class Batches(Owned):
    """A batch sampler of the user's."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_sampler=BatchSampler(RandomSampler(self.train), 4, False))


class SwapsAverage(L.Callback):
    """Validates with an average of the weights."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] | None = None
        self.kept: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        now = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        past = self.average or now
        self.average = {name: 0.9 * past[name] + 0.1 * now[name] for name in now}

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.kept = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(self.average or self.kept)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.load_state_dict(self.kept)


class Thaws(BaseFinetuning):
    """Freezes the first layer for an epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.01)


# ---- the table ---------------------------------------------------------------------------------------------------


def _targets() -> list[Shape]:
    bce = F.binary_cross_entropy_with_logits

    def one(loss: Any) -> Any:
        return lambda: Head(1, lambda z, y: loss(z[:, 0], y.float()))

    number: dict[str, Any] = {"task": "regression", "query": Random()}
    flags = items(lambda i, s: (X[i], torch.tensor([klass(i, s) == k for k in range(3)])))
    return [
        Shape(name="bools", module=one(bce), data=items(lambda i, s: (X[i], klass(i, s) > 0)), task="binary"),
        Shape(
            name="bool tensors",
            module=one(bce),
            data=items(lambda i, s: (X[i], torch.tensor(klass(i, s) > 0))),
            task="binary",
        ),
        Shape(
            name="multilabel of bools",
            module=lambda: Head(3, lambda z, y: bce(z, y.float())),
            data=flags,
            task="multilabel",
        ),
        Shape(
            name="numbers in a vector of one",
            module=lambda: Head(1, F.mse_loss),
            data=items(lambda i, s: (X[i], X[i, :1] + s)),
            **number,
        ),
        Shape(
            name="float64", module=one(F.mse_loss), data=items(lambda i, s: (X[i], X[i].sum().double() + s)), **number
        ),
        Shape(name="whole numbers", module=one(F.mse_loss), data=items(lambda i, s: (X[i], i + s)), **number),
        Shape(
            name="classes from 1",
            module=lambda: Head(4, F.cross_entropy),
            data=items(lambda i, s: (X[i], 1 + klass(i, s))),
        ),
        Shape(
            name="classes as int32",
            module=lambda: Head(3, lambda z, y: F.cross_entropy(z, y.long())),
            data=items(lambda i, s: (X[i], np.int32(klass(i, s)))),
        ),
    ]


def _data() -> list[Shape]:
    pictures = items(lambda i, s: ((20 * X[i].outer(X[i])).abs().to(torch.uint8)[None], klass(i, s)))
    return [
        Shape(name="pictures as bytes", module=Bytes, data=pictures),
        Shape(name="two views", module=Views, data=items(lambda i, s: ((X[i], X[i] + 0.1), klass(i, s)))),
        Shape(name="two views in a list", module=Views, data=items(lambda i, s: ([X[i], X[i] + 0.1], klass(i, s)))),
        Shape(name="dicts of dicts", module=Nested, data=items(lambda i, s: ({"a": {"b": X[i]}}, klass(i, s)))),
        Shape(
            name="weights before the class", module=ByWeight, data=items(lambda i, s: (X[i], 0.5 + i % 3, klass(i, s)))
        ),
        Shape(name="several validation loaders", module=SeveralLoaders, wrap=Twice),
        Shape(name="a batch sampler", module=Net, wrap=Batches),
    ]


def _trainers() -> list[Shape]:
    modules = {
        "an adversary, in turns": Adversary,
        "a rate that begins at nothing": WarmsUp,
        "hooks of the optimisation": OwnHooks,
        "mixup": MixesUp,
        "the loader's iterator": TakesIterator,
        "a queue of outputs": Queue,
        "logs by step and by epoch": LogsEverywhere,
    }
    files = {"enable_checkpointing": True}
    bare = {"barebones": True, "logger": None, **dict.fromkeys(("enable_checkpointing", "enable_model_summary"))}
    rows: dict[str, dict[str, Any]] = {
        "weights swapped for validation": {"callbacks": lambda: [SwapsAverage()]},
        "stochastic weight averaging": {"callbacks": lambda: [StochasticWeightAveraging(0.01, 0.5)], "epochs": 3},
        "accumulation by epochs": {"callbacks": lambda: [GradientAccumulationScheduler({0: 2, 1: 1})]},
        "layers that thaw": {"callbacks": lambda: [Thaws()]},
        "pruning": {"callbacks": lambda: [ModelPruning("l1_unstructured", amount=0.3)]},
        "every checkpoint": {
            "callbacks": lambda: [ModelCheckpoint(monitor="val_loss", save_top_k=-1, save_last="link")],
            "trainer": files,
        },
        "overfitting two batches": {"trainer": {"overfit_batches": 2}, "trained": lambda n: 2 * min(8, n)},
        "a profiler": {"trainer": {"profiler": "simple"}},
        "bare bones": {"trainer": {**bare, "enable_progress_bar": None}},
        "no validation": {"trainer": {"limit_val_batches": 0}},
    }
    return [
        *(Shape(name=name, module=module) for name, module in modules.items()),
        *(Shape(name=name, module=Net, **row) for name, row in rows.items()),
    ]


MORE_SHAPES: list[Shape] = [*_targets(), *_data(), *_trainers()]
