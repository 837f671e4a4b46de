"""Runs that cannot succeed, planted one cause at a time, and healthy ones that look as if: for ``false_starts.py``.

No such suite is published. A family is planted in what a run is given: its first query, the labels of that, its
learning rate, its first weights, or what is frozen. Left alone it may still recover; whether it does is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset

from al_lightning.cli.problems import digits
from al_lightning.fit.plan import FitPlan, FitPolicy
from al_lightning.history import History
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from benchmarks import data

DEVELOPMENT = range(4)
"""Seeds that thresholds and recipes were chosen on; they are judged on records that no other seed is judged on."""
SEEDS = range(200, 210)
"""Of the results; nothing was chosen on them. (Some of 100 to 109 were run while the suite was still being mended.)"""

DAMAGED = (
    "one_class",
    "two_classes",
    "near_duplicates",
    "corrupted_labels",
    "exploding_rate",
    "dead_activations",
    "saturated_weights",
    "frozen_layer",
)
HEALTHY = ("healthy", "slow_starter", "noisy_curve")
FAMILIES = (*HEALTHY, *DAMAGED)


@dataclass(frozen=True)
class Problem:
    """A data set, how many of its records go where, and the recipe.

    Args:
        load: records and their classes.
        first: size of the first query.
        step: of each that follows.
        rounds: in all.
        val: labelled validation records.
        control: share of them that a control is trained on.
        stop: records of the stop set.
        test: records judged on, reported seeds' and development seeds'.
        batch: size.
        rate: peak of the learning rate.
    """

    load: Callable[[], data.Split]
    first: int
    step: int
    rounds: int
    val: int
    control: float
    stop: int
    test: tuple[int, int]
    batch: int
    rate: float


def _digits() -> data.Split:
    parts = [part.tensors for part in digits()]
    return data.Split(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def _banking77() -> data.Split:
    train, test, _ = data.banking77()
    return data.Split(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]))


EPOCHS = 15
HIDDEN = 64
PROBLEMS = {
    "letter": Problem(data.letter, 500, 100, 8, 800, 0.3, 400, (3000, 1000), 64, 0.2),
    "banking77": Problem(_banking77, 160, 45, 8, 400, 0.25, 400, (2500, 500), 32, 0.06),
    "digits": Problem(_digits, 60, 5, 8, 240, 0.12, 100, (500, 200), 8, 0.02),
}


class Records(NamedTuple):
    """One run's records; ``y`` int64, ``x`` float32 ``(n, d)``."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int


@cache
def _whole(name: str) -> tuple[Tensor, Tensor]:
    x, y = PROBLEMS[name].load()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x = ((x - x.mean(0)) / x.std(0).clamp_min(1e-6))[order]  # no label is read
    return x.float(), y[order]


def records(name: str, seed: int, *, noisy: bool = False) -> Records:
    """Pool and validation records drawn by the seed; with ``noisy`` a quarter of the validation records."""
    p, (x, y) = PROBLEMS[name], _whole(name)
    reported, development = p.test
    test = slice(0, reported) if seed not in DEVELOPMENT else slice(reported, reported + development)
    rest = (
        reported
        + development
        + torch.randperm(len(y) - reported - development, generator=torch.Generator().manual_seed(seed))
    )
    val, pool = rest[: p.val // 4 if noisy else p.val], rest[p.val :]
    return Records(x[pool], y[pool], x[val], y[val], x[test], y[test], int(y.max()) + 1)


@dataclass(frozen=True, eq=False)
class Given(Strategy):
    """A first query that is given: the first ids of an order that may be queried."""

    order: np.ndarray

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return self.order[np.isin(self.order, ids)][:size]


@dataclass(frozen=True)
class Frozen:
    """A policy that freezes parts from the first fit on, whose weights are still those that were drawn."""

    policy: FitPolicy
    freeze: tuple[str, ...]

    def plan(self, history: History) -> FitPlan:
        """The policy's plan, frozen."""
        return replace(self.policy.plan(history), freeze=self.freeze)

    def final_plan(self, history: History) -> FitPlan | None:
        """The policy's."""
        return self.policy.final_plan(history)


@dataclass(frozen=True)
class Sizes:
    """The first size, then steps, for a number of rounds; counted from the last query of the first size."""

    first: int
    step: int
    rounds: int

    def __call__(self, history: History) -> int:
        """Size of the next query."""
        begun = max((r.round for r in history.rounds if r.queried == self.first), default=1)
        done = len({r.round for r in history.rounds if r.round >= begun})
        return 0 if done >= self.rounds else self.step if history.round else self.first


class Numbered(Dataset[tuple[int, int]]):
    """Records as numbers of rows in a table, from ``start`` on, and their classes."""

    def __init__(self, y: Tensor, start: int = 0) -> None:
        self.y, self.start = y.tolist(), start

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[int, int]:
        return self.start + i, self.y[i]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[int, int]]:
        return [(self.start + i, self.y[i]) for i in positions]


class Perceptron(L.LightningModule):
    """Two hidden layers, rectified and tanh; SGD with momentum under a one-cycle schedule. Logs loss and accuracy.

    With layers this small, what is done beside a step takes longer than the step. So records are numbers of rows in a
    table that the module holds, and the loader's batch is the whole epoch, which is trained on in batches by hand.
    """

    table: Tensor

    def __init__(self, table: Tensor, classes: int, rate: float, batch: int, *, slow: bool = False) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.trunk = nn.Sequential(nn.Linear(table.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())
        self.head = nn.Linear(HIDDEN, classes)
        self.rate, self.batch, self.slow = rate, batch, slow
        self.automatic_optimization = False

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(self.table[ids]))
        return logits

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        schedule: Any = self.lr_schedulers()
        losses = []
        count = -(-len(batch[1]) // self.batch)  # of one size: a last batch of four records throws the weights about
        for x, y in zip(*(part.tensor_split(count) for part in batch), strict=True):
            loss = cross_entropy(self(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        self.log("train_loss", torch.stack(losses).mean(), on_step=False, on_epoch=True, batch_size=len(batch[1]))

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        right = (self(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("val_acc", right, batch_size=len(batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9, weight_decay=1e-4, fused=True)
        assert self.trainer.estimated_stepping_batches == self.trainer.max_epochs  # one batch an epoch
        steps = EPOCHS * -(-len(self.trainer.train_dataloader.dataset) // self.batch)  # type: ignore[union-attr]
        # A slow starter's rate is next to nothing at first, and highest after half of the fit.
        shape: dict[str, Any] = {"pct_start": 0.5, "div_factor": 1000.0} if self.slow else {}
        schedule = OneCycleLR(optimizer, self.rate, total_steps=steps + 1, cycle_momentum=False, **shape)
        return [optimizer], [schedule]


class Planted(NamedTuple):
    """What a run of a family is given."""

    records: Records
    model: Perceptron
    initial: np.ndarray
    label: Callable[[int], int]
    freeze: tuple[str, ...]


def plant(name: str, family: str, seed: int) -> Planted:
    """A run of a family."""
    p, found = PROBLEMS[name], records(name, seed, noisy=family == "noisy_curve")
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    rate = p.rate * (10 ** rng.uniform(1.5, 2.5) if family == "exploding_rate" else 1.0)
    with isolate_rng():
        torch.manual_seed(seed)
        table = torch.cat([found.x, found.x_val, found.x_test])
        model = Perceptron(table, found.classes, rate, p.batch, slow=family == "slow_starter")
    with torch.no_grad():
        if family == "dead_activations":
            dict(model.named_parameters())["trunk.0.bias"].fill_(-100.0)
        elif family == "saturated_weights":
            for parameter in model.parameters():
                parameter.mul_(30.0)
    initial = _first_query(found, family, rng)
    wrong = _wrong_labels(found, initial[: p.first], rng) if family == "corrupted_labels" else {}
    truth = found.y.tolist()
    freeze = ("trunk",) if family == "frozen_layer" else ()
    return Planted(found, model, initial, lambda i: wrong.get(i, truth[i]), freeze)


def _first_query(found: Records, family: str, rng: np.random.Generator) -> np.ndarray:
    """All ids, those to be queried first in front."""
    y, order = found.y.numpy(), rng.permutation(len(found.y))
    if family in ("one_class", "two_classes"):  # of the most frequent ones, which have enough records
        frequent = np.bincount(y).argsort()[::-1][:6]
        kept = rng.choice(frequent, 1 if family == "one_class" else 2, replace=False)
        inside = np.isin(y[order], kept)
        return np.concatenate([order[inside], order[~inside]])
    if family == "near_duplicates":  # of one record
        return ((found.x - found.x[order[0]]) ** 2).sum(1).argsort().numpy()
    return order


def _wrong_labels(found: Records, ids: np.ndarray, rng: np.random.Generator) -> dict[int, int]:
    """Other classes, drawn at random, for 30 to 50 % of the ids and of as many that may come in their place."""
    share = rng.uniform(0.3, 0.5)
    hit = ids[rng.random(len(ids)) < share]
    shift = rng.integers(1, found.classes, len(hit))
    return {int(i): int((found.y[i] + s) % found.classes) for i, s in zip(hit, shift, strict=True)}
