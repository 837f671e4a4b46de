"""Scores belong to the ids they stand beside, whatever the user's loaders, limits, samplers and hooks do."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from al_lightning.errors import PoolError
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import Margin
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.trainer import run_inference, score
from tests.helpers import CLASSES, WIDTH, Net, Records, blobs, net, pool_of, quiet


def logits_payload(outputs: Outputs) -> dict[str, Tensor]:
    return {"logits": outputs.logits}


def direct(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """One forward pass in eval mode, without Lightning."""
    model.eval()
    with torch.no_grad():
        return model(inputs).numpy()


def infer(trainer: L.Trainer, model: L.LightningModule, pool: PoolDataModule, ids: np.ndarray) -> np.ndarray:
    return run_inference(trainer, model, pool, ids, logits_payload)[0]["logits"]


@pytest.mark.parametrize("count", [1, 7, 8, 11, 60])  # batches of 8: partial, full, partial last, all
@pytest.mark.parametrize("kwargs", [{}, {"limit_predict_batches": 1}, {"use_distributed_sampler": False}], ids=str)
def test_scores_of_shuffled_candidates_are_those_of_a_direct_forward(count: int, kwargs: dict[str, Any]) -> None:
    data, model = blobs(), net()
    ids = np.random.default_rng(count).permutation(60)[:count]
    got = infer(quiet(**kwargs), model, pool_of(data), ids)
    np.testing.assert_allclose(got, direct(model, data.tensors[0][ids]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loader", [{"drop_last": True}, {"num_workers": 1}], ids=str)
def test_loader_settings_lose_no_record(loader: dict[str, Any]) -> None:
    data, model = blobs(), net()
    ids = np.array([59, 3, 17, 20, 4, 8, 9, 33, 2, 1, 0])
    got = infer(quiet(), model, pool_of(data, loader=loader), ids)
    np.testing.assert_allclose(got, direct(model, data.tensors[0][ids]), rtol=1e-5, atol=1e-6)


def test_score_takes_the_candidates_of_the_pool() -> None:
    data, model, pool = blobs(), net(), pool_of()
    pool.candidates = np.array([50, 2, 31])
    scores = score(quiet(), model, pool, Margin())
    p = torch.tensor(direct(model, data.tensors[0][[50, 2, 31]])).softmax(-1).sort(-1, descending=True).values
    assert scores.ids.tolist() == [50, 2, 31]
    np.testing.assert_allclose(scores.arrays["score"], 1 - (p[:, 0] - p[:, 1]), rtol=1e-5)
    assert np.flatnonzero(~np.isnan(pool.state.scores)).tolist() == [2, 31, 50]


def test_nothing_is_inferred_without_candidates() -> None:
    pool = pool_of()
    pool.candidates = np.zeros(0, dtype=np.int64)
    scores = score(quiet(), net(), pool, Margin())
    assert len(scores.ids) == 0
    assert scores.flops == 0


def test_the_eval_view_is_scored_and_the_train_view_is_trained_on() -> None:
    x, y = blobs().tensors
    pool = PoolDataModule(Records([(v + 100, int(c)) for v, c in zip(x, y, strict=True)]), task="multiclass",
                          batch_size=8, eval_view=blobs())  # fmt: skip
    model = net()
    np.testing.assert_allclose(infer(quiet(), model, pool, np.arange(60)), direct(model, x), rtol=1e-5, atol=1e-6)
    pool.label([0, 1, 2], {0: 0, 1: 1, 2: 2})
    (batch,) = list(pool.train_dataloader())
    assert torch.equal(batch[0].sort(0).values, (x[:3] + 100).sort(0).values)


def test_a_collate_function_of_the_user_is_used() -> None:
    items = [(np.full(1 + i % 3, float(i), dtype=np.float32), i % 3) for i in range(30)]  # of different lengths

    def pad(batch: list[Any]) -> tuple[Tensor, Tensor]:
        x = torch.zeros(len(batch), WIDTH)
        for row, (values, _) in zip(x, batch, strict=True):
            row[: len(values)] = torch.from_numpy(values)
        return x, torch.tensor([y for _, y in batch])

    pool = PoolDataModule(Records(items), task="multiclass", batch_size=8, loader={"collate_fn": pad})
    model, ids = net(), np.array([29, 0, 13, 7, 8, 5, 20, 11, 2])
    np.testing.assert_allclose(
        infer(quiet(), model, pool, ids), direct(model, pad([items[i] for i in ids])[0]), rtol=1e-5, atol=1e-5
    )


# Lightning says so to everybody whose model has such a hook and whose data is a DataModule.
MODEL_HOOK = pytest.mark.filterwarnings("ignore:You have overridden `on_.*_batch_transfer` in `LightningModule`")


class Normalises(Net):
    """Does part of its preprocessing in the batch-transfer hooks, as augmentation on the device does."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert isinstance(batch, list | tuple)
        assert len(batch) == 2  # the user's batch, nothing of ours in it
        return batch[0] - 1.0, batch[1]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] / 2.0, batch[1]


def test_batch_transfer_hooks_of_the_model_are_applied() -> None:
    data, model, ids = blobs(), Normalises(), np.arange(11)
    got = infer(quiet(), model, pool_of(data), ids)
    np.testing.assert_allclose(got, direct(model, (data.tensors[0][ids] - 1) / 2), rtol=1e-5, atol=1e-6)


@MODEL_HOOK
def test_hooks_of_the_model_may_look_at_its_trainer() -> None:
    class Looks(Net):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            # The documented way to augment while training only.
            return (batch[0] + 1000, batch[1]) if self.trainer.training else batch

    data, model, pool = blobs(), Looks(), pool_of()
    pool.label(range(12), {i: i % 3 for i in range(12)})
    trainer = fresh_trainer(quiet())
    trainer.fit(model, datamodule=pool)
    assert all((batch > 500).all() for batch in model.batches)
    ids = pool.unlabelled
    np.testing.assert_allclose(
        infer(trainer, model, pool, ids), direct(model, data.tensors[0][ids]), rtol=1e-5, atol=1e-5
    )


class Inner(L.LightningDataModule):
    """A DataModule of the user's."""

    def __init__(self, sampler: Any = None, **loader: Any) -> None:
        super().__init__()
        self.sampler, self.loader = sampler, loader

    def setup(self, stage: str) -> None:
        self.train = blobs()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, sampler=self.sampler, **self.loader)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 3, batch[1]]


def test_batch_transfer_hooks_of_a_wrapped_datamodule_are_applied() -> None:
    data, model, ids = blobs(), net(), np.array([5, 1, 9])
    pool = PoolDataModule(Inner(batch_size=4), task="multiclass")
    got = infer(quiet(), model, pool, ids)
    np.testing.assert_allclose(got, direct(model, data.tensors[0][ids] * 3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "sampler", [WeightedRandomSampler([1.0] * 60, 30), RandomSampler(range(60), replacement=True, num_samples=200)]
)
def test_a_sampler_that_cannot_be_carried_over_is_refused(sampler: Any) -> None:
    pool = PoolDataModule(Inner(sampler=sampler, batch_size=4), task="multiclass")
    with pytest.raises(PoolError, match=f"{type(sampler).__name__}.*PoolDataModule"):
        _ = pool.size


def test_batch_norm_and_mode_are_left_alone_by_scoring() -> None:
    class Normed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    data, model, pool = blobs(), Normed(), pool_of()
    pool.label(range(12), {i: i % 3 for i in range(12)})
    trainer = fresh_trainer(quiet())
    trainer.fit(model, datamodule=pool)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    model.net[1].eval()  # partly frozen by the user
    modes = [m.training for m in model.modules()]
    ids = pool.unlabelled
    got = infer(trainer, model, pool, ids)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    np.testing.assert_allclose(got, direct(model, data.tensors[0][ids]), rtol=1e-5, atol=1e-6)  # no dropout


def test_the_model_knows_its_trainer_after_scoring() -> None:
    pool, model = pool_of(), net()
    pool.label(range(12), {i: i % 3 for i in range(12)})
    trainer = fresh_trainer(quiet())
    trainer.fit(model, datamodule=pool)
    infer(trainer, model, pool, np.arange(20, 30))
    assert model.trainer is trainer
    assert trainer.lightning_module is model
    assert trainer.validate(model, datamodule=pool, verbose=False)[0]["val_acc"] >= 0
