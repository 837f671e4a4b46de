"""Datasets and DataModules as users have them."""

from __future__ import annotations

import random
from collections import namedtuple
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, random_split

from al_lightning.errors import PoolError
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.pool.datamodule import PoolDataModule
from tests.helpers import Net, Records, blobs, ids_in, learner, net, pool_of, quiet


class Splits(L.LightningDataModule):
    """Splits anew, unseeded, each time it is set up; as many tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared, self.setups = 0, []

    def prepare_data(self) -> None:
        self.prepared += 1

    def setup(self, stage: str) -> None:
        self.setups.append(stage)
        generator = torch.Generator().manual_seed(random.randrange(2**31))
        self.train, self.val = random_split(blobs(72), [60, 12], generator=generator)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=8, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=8)


def test_an_unseeded_split_in_setup_happens_once(tmp_path: Path) -> None:
    inner, model = Splits(), net()
    pool = PoolDataModule(inner, task="multiclass")
    answered: dict[int, tuple[float, ...]] = {}

    def remember(id: int) -> int:
        x, y = inner.train[id]
        answered[id] = tuple(x.tolist())
        return int(y)

    result = learner(tmp_path, oracle=FunctionOracle(remember)).fit(model, datamodule=pool)
    assert inner.setups == ["fit"]
    assert inner.prepared == 1
    assert {tuple(inner.train[int(i)][0].tolist()) for i in result.labelled} == set(answered.values())
    last = model.batches[-3:]  # 24 records in batches of 8: what the last epoch trained on
    assert {tuple(x.tolist()) for batch in last for x in batch} == set(answered.values())
    assert result.bill.labels == 24 + 12  # validation labels are bought labels


class NotValidated(Net):
    """Trains only."""

    validation_step = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(net().state_dict())


class OnDicts(NotValidated):
    """Takes dicts of two inputs by name."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.net(torch.cat([left, right], dim=-1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert set(batch) == {"left", "right", "label"}
        self.batches.append(torch.cat([batch["left"], batch["right"]], dim=-1))
        return nn.functional.cross_entropy(self(batch["left"], batch["right"]), batch["label"])


def as_dicts(labels: bool = True) -> Records:
    items = [{"left": x[:2], "right": x[2:], "label": int(y)} for x, y in zip(*blobs().tensors, strict=True)]
    return Records(items if labels else [{k: v for k, v in item.items() if k != "label"} for item in items])


@pytest.mark.parametrize("labels", [True, False])
def test_dict_datasets(tmp_path: Path, labels: bool) -> None:
    """With or without the label in them; the ids are those a tuple dataset gives."""
    model = OnDicts()
    pool = PoolDataModule(as_dicts(labels), task="multiclass", target_key="label", batch_size=8)
    oracle = None if labels else FunctionOracle(lambda i: i % 3)
    result = learner(tmp_path / "dicts", oracle=oracle).fit(model, datamodule=pool)
    same = learner(tmp_path / "tuples").fit(NotValidated(), datamodule=pool_of(val=None))
    assert result.labelled.tolist() == same.labelled.tolist()


class Unlabelled(Net):
    """A dataset without labels: items are bare tensors, attach() pairs them."""

    def infer(self, batch: Tensor) -> Any:
        from al_lightning.scoring.outputs import Outputs

        assert isinstance(batch, Tensor)
        return Outputs(self(batch))


def test_datasets_without_labels_are_labelled_by_a_function(tmp_path: Path) -> None:
    data, model = blobs(), Unlabelled()
    model.load_state_dict(net().state_dict())
    bare = Records(list(data.tensors[0]))
    pool = PoolDataModule(bare, task="multiclass", attach=lambda x, y: (x, y), batch_size=8, val=blobs(9, seed=1))
    asked: list[int] = []

    def answer(id: int) -> int:
        asked.append(id)
        return id % 3

    result = learner(tmp_path / "bare", oracle=FunctionOracle(answer)).fit(model, datamodule=pool)
    same = learner(tmp_path / "same").fit(net(), datamodule=pool_of())
    assert asked == result.labelled.tolist() == same.labelled.tolist()
    assert torch.equal(model.net[0].weight, result.model.net[0].weight)
    np.testing.assert_allclose(model.net[0].weight.detach(), same.model.net[0].weight.detach(), rtol=1e-5)


def test_bare_items_need_no_infer_method(tmp_path: Path) -> None:
    pool = PoolDataModule(Records(list(blobs().tensors[0])), task="multiclass", attach=lambda x, y: (x, y),
                          batch_size=8, val=blobs(9, seed=1))  # fmt: skip
    result = learner(tmp_path, oracle=FunctionOracle(lambda i: i % 3)).fit(net(), datamodule=pool)
    assert len(result.labelled) == 24


def test_bare_items_without_attach_are_refused() -> None:
    with pytest.raises(PoolError, match=r"items are Tensor, .*attach"):
        pool_of(Records(list(blobs().tensors[0])))


def test_dicts_without_a_target_key_are_refused() -> None:
    with pytest.raises(PoolError, match=r"keys \['label', 'left', 'right'\].*target_key"):
        pool_of(as_dicts())


def test_an_oracle_may_disagree_with_the_dataset(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Notes(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(torch.cat([batch[0], batch[1][:, None].float()], dim=-1))
            return super().training_step(batch, batch_idx)

    data = blobs()
    result = learner(tmp_path, oracle=FunctionOracle(lambda i: (i + 1) % 3)).fit(Notes(), datamodule=pool_of(data))
    rows = torch.cat(seen)
    ids = ids_in([rows[:, :-1]], data)
    assert rows[:, -1].tolist() == [(i + 1) % 3 for i in ids]
    assert set(ids) == set(result.labelled.tolist())


def test_named_tuples_and_lists_keep_their_type() -> None:
    Item = namedtuple("Item", "image weight label")
    for make in (Item, lambda *parts: list(parts), lambda *parts: tuple(parts)):
        items = [make(torch.ones(2), float(i), torch.tensor(0)) for i in range(6)]
        pool = pool_of(Records(items))
        pool.label([4, 1], {4: 2, 1: 1})
        (batch,) = list(pool.train_dataloader())
        assert type(batch) is (Item if make is Item else list)
        assert sorted(zip(batch[1].tolist(), batch[2].tolist(), strict=True)) == [(1.0, 1), (4.0, 2)]


def test_a_wrapped_datamodule_brings_its_loader_settings() -> None:
    class Settings(Splits):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(self.train, batch_size=5, drop_last=True, collate_fn=collate, shuffle=True)

    def collate(items: list[Any]) -> Any:
        return torch.stack([x for x, _ in items]) * 2, torch.stack([y for _, y in items])

    pool = PoolDataModule(Settings(), task="multiclass")
    pool.label(range(12), {i: i % 3 for i in range(12)})
    batches = list(pool.train_dataloader())
    assert [len(x) for x, _ in batches] == [5, 5]
    assert pool.batch_size == 5
    rows = {tuple((2 * pool.eval_data[i][0]).tolist()) for i in range(12)}
    assert all(tuple(x.tolist()) in rows for batch, _ in batches for x in batch)
    assert sum(len(x) for x, _ in pool.indexed_dataloader(range(12))) == 12  # drop_last drops no candidate


def test_training_shuffles(tmp_path: Path) -> None:
    data, model = blobs(), net()
    learner(tmp_path, quiet(max_epochs=3)).fit(model, datamodule=pool_of(data))
    epochs = [ids_in(model.batches[i : i + 2], data) for i in (0, 2, 4)]
    assert epochs[0] != epochs[1] != epochs[2]
