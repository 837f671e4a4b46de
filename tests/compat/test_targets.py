"""Targets of any structure and collate functions of any kind, in whole runs, against the user's own plain loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from al_lightning import DatasetOracle, PoolDataModule
from al_lightning.errors import OutputMismatch
from al_lightning.oracles import FunctionOracle
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from al_lightning.scoring import Outputs
from tests.helpers import Records, learner, quiet
from tests.pool.test_views import equal

N, FIRST = 30, 12


def signal(i: int) -> Tensor:
    """An input that says which record it is."""
    return torch.cat([torch.tensor([float(i)]), torch.randn(3, generator=torch.Generator().manual_seed(i))])


def padded(rows: list[Any]) -> Any:
    x = pad_sequence([signal[None].expand(1 + int(signal[0]) % 3, -1) for signal, _ in rows], batch_first=True)
    return x, torch.tensor([y for _, y in rows]), torch.tensor([1 + int(signal[0]) % 3 for signal, _ in rows])


def renamed(rows: list[Any]) -> dict[str, Tensor]:
    """As collators of tokenisers do."""
    return {"x": torch.stack([r["x"] for r in rows]), "labels": torch.tensor([r["label"] for r in rows])}


def lists(rows: list[Any]) -> Any:
    return torch.stack([x for x, _ in rows]), [y for _, y in rows]


def x_of(batch: Any) -> Tensor:
    x = batch["x"] if isinstance(batch, dict) else next(part for part in batch if _is_input(part))
    return x[:, 0] if x.ndim == 3 else x


def _is_input(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim > 1 and part.shape[-1] == 4


class Notes(L.LightningModule):
    """Notes the batches it is trained on, and what it is shown while scoring."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.trained: list[Any] = []
        self.shown: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.trained.append(batch)
        return self.head(x_of(batch)).square().mean()

    def forward(self, *parts: Any, **named: Any) -> Any:
        self.shown.append(named or parts)
        return self.head(x_of(named or parts))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class WithLabels(Notes):
    """As models of the transformers library are called."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        self.shown.append({"x": x} if labels is None else {"x": x, "labels": labels})
        return SimpleNamespace(logits=self.head(x))


class Sure(Notes):
    """Says itself how uncertain it is."""

    def infer(self, batch: Any) -> Outputs:
        self.shown.append(None)
        return Outputs(scores=x_of(batch)[:, 0])


class OneHead(Notes):
    """Has logits of one of its tasks."""

    def infer(self, batch: Any) -> Outputs:
        self.shown.append(None)
        return Outputs(self.head(x_of(batch)))


def classes(i: int) -> Any:
    return i % 3


# name: task, item of a record and a target, the record's target, collate function, module, what it is shown of a batch
SHAPES: dict[str, tuple[str, Callable[..., Any], Callable[[int], Any], Any, type[Notes], Any]] = {
    "classes": ("multiclass", lambda x, y: (x, y), classes, None, Notes, lambda b: (b[0],)),
    "lengths after the target": ("multiclass", lambda x, y: (x, y), classes, padded, Notes, lambda b: (b[0], b[2])),
    "renamed": ("multiclass", lambda x, y: {"x": x, "label": y}, classes, renamed, WithLabels,
                lambda b: {"x": b["x"]}),
    "the target first": ("multiclass", lambda x, y: (x, y), classes, lambda r: lists(r)[::-1], Notes,
                         lambda b: (b[1],)),
    "several targets": ("structured", lambda x, y: (x, y), lambda i: (torch.tensor(i % 3), signal(i)[1].half()), None,
                        OneHead, None),
    "a dict of targets": ("structured", lambda x, y: {"x": x, "label": y},
                          lambda i: {"class": i % 3, "mask": signal(i) > 0}, None, OneHead, None),
    "boxes": ("structured", lambda x, y: (x, y),
              lambda i: {"boxes": torch.rand(i % 3, 4), "labels": torch.ones(i % 3, dtype=torch.int64)}, lists, Sure,
              None),
    "sequences": ("structured", lambda x, y: (x, y), lambda i: list(range(i % 4)), lists, Sure, None),
    "captions": ("structured", lambda x, y: (x, y), lambda i: f"a signal of {i}", lists, Sure, None),
}  # fmt: skip


def data_of(name: str, target: Callable[[int], Any] | None = None) -> Records:
    _, item, own, _, _, _ = SHAPES[name]
    return Records([item(signal(i), (target or own)(i)) for i in range(N)])


def ran(folder: Path, name: str, data: Records, oracle: Any) -> tuple[Notes, PoolDataModule]:
    task, _, _, collate, make, _ = SHAPES[name]
    loader = {} if collate is None else {"collate_fn": collate}
    key = "label" if isinstance(data[0], dict) else None
    pool = PoolDataModule(data, task=task, target_key=key, batch_size=FIRST, eval_batch_size=5, loader=loader)
    model = make()
    run = learner(folder, quiet(max_epochs=1), query=Margin(), round_size=Listed([FIRST, 6]), oracle=oracle)
    result = run.fit(model, datamodule=pool, preflight=False)  # what is noted below is the run's own
    assert len(result.labelled) == FIRST + 6
    return model, pool


def plain(name: str, data: Records, batch: Any) -> Any:
    """What the user's own loader makes of the records of a batch."""
    collate = SHAPES[name][3] or default_collate
    return collate([data[int(i)] for i in x_of(batch)[:, 0]])


@pytest.mark.parametrize("name", SHAPES)
def test_batches_are_the_users_own_and_the_target_is_never_shown(tmp_path: Path, name: str) -> None:
    data = data_of(name)
    model, pool = ran(tmp_path, name, data, DatasetOracle())
    for batch in model.trained:
        assert equal(batch, plain(name, data, batch))
    shown = SHAPES[name][5]
    assert len(model.shown) == 4  # 18 candidates in batches of 5
    for seen in model.shown if shown else ():
        assert equal(seen, shown(plain(name, data, seen)))
    again, _ = ran(tmp_path, name, data, DatasetOracle())  # the folder gives back what was bought
    assert again.trained == []
    for i in pool.labelled.tolist():
        item = data[i]
        target = item["label"] if isinstance(item, dict) else item[1]
        assert equal(pool.state.labels[i], target)


@pytest.mark.parametrize("blank", [None, -1, float("nan"), ""], ids=repr)
@pytest.mark.parametrize("name", ["lengths after the target", "renamed", "the target first"])
def test_a_pool_that_nobody_has_labelled_trains_as_one_that_somebody_has(tmp_path: Path, name: str, blank: Any) -> None:
    full = data_of(name)
    model, _ = ran(tmp_path, name, data_of(name, lambda i: blank), FunctionOracle(classes))
    for batch in model.trained:
        assert equal(batch, plain(name, full, batch)) or name == "the target first"
    shown = SHAPES[name][5]
    for seen in model.shown:
        assert equal(seen, shown(plain(name, full, seen)))


def test_what_cannot_be_withheld_is_refused_before_anything_is_bought(tmp_path: Path) -> None:
    def joined(rows: list[Any]) -> Any:
        x, y = lists(rows)
        return torch.cat([x[:, :3], torch.tensor(y, dtype=torch.float32)[:, None]], dim=1), torch.tensor(y)

    asked: list[int] = []
    pool = PoolDataModule(data_of("classes"), task="multiclass", loader={"collate_fn": joined})
    model = Notes()
    with pytest.raises(OutputMismatch, match=r"joined mixes inputs and targets, in batch\[0\].*infer\(batch\)"):
        learner(tmp_path, oracle=FunctionOracle(lambda i: asked.append(i) or 0)).fit(model, datamodule=pool)
    assert (asked, model.trained, model.shown) == ([], [], [])
