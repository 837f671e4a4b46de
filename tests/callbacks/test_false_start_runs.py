"""Real runs that start falsely are found by the control, and rescued by what their cause asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.cost.budget import Budget
from al_lightning.errors import ActiveLearningError
from al_lightning.fit.plan import FitPlan
from al_lightning.history import History, Reason
from al_lightning.learner import ActiveLearner
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.view import PoolView
from al_lightning.query import Random
from al_lightning.query.base import Strategy
from al_lightning.result import Result
from al_lightning.round_size import Fixed
from al_lightning.run.store import Store
from al_lightning.stop import FalseStart
from tests.helpers import CLASSES, Net, blobs, learner, net, pool_of, quiet


def spread(**kwargs: Any) -> PoolDataModule:
    """A pool with features and 90 validation records."""
    data = blobs(180)
    settings: dict[str, Any] = {"val": blobs(90, seed=1), "features": data.tensors[0].numpy()}
    return pool_of(data, **{**settings, **kwargs})


def rule(**kwargs: Any) -> StallDetection:
    settings: dict[str, Any] = {"reference": "chance", "min_delta": 0.05, "patience": 0.5}
    return StallDetection("train_loss", **{**settings, **kwargs})


def both(**kwargs: Any) -> list[Any]:
    return [rule(), FalseStart("val_acc", **kwargs)]


def begin(folder: Path, stop: list[Any] | None = None, **kwargs: Any) -> ActiveLearner:
    settings: dict[str, Any] = {"round_size": Fixed(30), "query": Random()}
    stop = [*both(), Budget(labels=90)] if stop is None else stop
    return learner(folder, quiet(max_epochs=12), stop=stop, **{**settings, **kwargs})


def reasons(result: Result) -> list[Reason]:
    """All that the run has decided."""
    with closing(Store(result.run_dir)) as store:
        return list(store.load().reasons)


@dataclass(frozen=True)
class OneClass(Strategy):
    """The first records of class 0."""

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return ids[ids % CLASSES == 0][:size]


def test_a_healthy_run_pays_for_one_control(tmp_path: Path) -> None:
    watched = begin(tmp_path / "a").fit(net(lr=0.3), datamodule=spread())
    alone = begin(tmp_path / "b", [Budget(labels=90)]).fit(net(lr=0.3), datamodule=spread())
    assert watched.reason.kind == "budget"
    assert [r.attempts for r in watched.history] == [1, 1, 1]
    assert watched.labelled.tolist() == alone.labelled.tolist()
    assert all(
        torch.equal(a, b) for a, b in zip(watched.model.parameters(), alone.model.parameters(), strict=True)
    )  # the control leaves no trace in the model
    lines = watched.bill.lines
    assert lines["control"].records == 12 * 30  # no more labels than the run had
    assert lines["control"].flops == pytest.approx(watched.bill.flops - alone.bill.flops)
    assert "control" not in alone.bill.lines


def test_a_rate_that_is_too_high_is_lowered_to_what_a_control_does_best_with(tmp_path: Path) -> None:
    class Rates(Net):
        seen: list[float]

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.seen = [*getattr(self, "seen", []), self.trainer.optimizers[0].param_groups[0]["lr"]]

    torch.manual_seed(0)
    model = Rates(lr=300.0)
    result = begin(tmp_path).fit(model, datamodule=spread())
    assert result.reason.kind == "budget"
    first = reasons(result)[0]
    assert (first.kind, first.numbers["cause"], first.numbers["remedy"]) == ("stall", "diverged", "weights_and_rate")
    assert result.history[0].attempts == 2
    assert result.history[-1].metrics["val_acc"] > 0.85
    assert model.seen[0] == 300.0
    assert 1.0 < model.seen[-1] < 10.0  # of 300, 136, 62, 28, 13, 5.8, 2.6 and 1.2
    assert result.bill.lines["control"].records == 9 * 12 * 30  # eight rates, and what the run is held against


def test_a_first_query_of_one_class_is_followed_by_a_diverse_one(tmp_path: Path) -> None:
    result = begin(tmp_path, initial=OneClass()).fit(net(lr=0.3), datamodule=spread())
    first = reasons(result)[0]
    assert first.numbers["cause"] == "one_class"
    assert first.numbers["remedy"] == "weights_and_selection"
    assert result.bill.lines["aborted"].records == 30  # one epoch
    assert [r.labelled for r in result.history] == [60, 90]
    assert {int(i) % CLASSES for i in result.labelled[30:60]} == {0, 1, 2}
    assert result.bill.lines["neighbours"].flops > 0  # k-means of the features
    assert result.history[-1].metrics["val_acc"] > 0.85


def test_labels_that_the_control_contradicts_are_kept_and_not_trained_on(tmp_path: Path) -> None:
    model, asked = net(lr=0.3), list[int]()

    def label(id: int) -> int:
        asked.append(id)
        wrong = len(asked) <= 30 and len(asked) % 2
        return (id + 1) % CLASSES if wrong else id % CLASSES

    result = begin(tmp_path, oracle=FunctionOracle(label)).fit(model, datamodule=spread())
    first = reasons(result)[0]
    assert first.numbers["cause"] == "labels"
    assert len(result.labelled) == 90  # paid labels are kept
    wrong = {tuple(x.tolist()) for x in blobs(180).tensors[0][torch.tensor(asked[:30])]}
    trained = [tuple(x.tolist()) for batch in model.batches for x in batch]
    assert not wrong & set(trained[-12 * 60 :])
    assert result.history[-1].metrics["val_acc"] > 0.85


@dataclass(frozen=True)
class FrozenTrunk:
    """Freezes the first layer while its weights are noise."""

    def plan(self, history: History) -> FitPlan:
        return FitPlan(freeze=("net.0",))

    def final_plan(self, history: History) -> FitPlan | None:
        return None


class Collapsed(Net):
    """Tells little of its input apart at first; new weights cure it."""

    def __init__(self) -> None:
        super().__init__(lr=0.3)
        self.frozen_seen: list[bool] = []
        with torch.no_grad():
            self.net[0].weight.fill_(0.1)  # type: ignore[union-attr]

    def on_train_start(self) -> None:
        self.frozen_seen.append(not self.net[0].weight.requires_grad)  # type: ignore[union-attr]


def test_new_weights_are_not_frozen_before_they_have_learnt(tmp_path: Path) -> None:
    model = Collapsed()
    result = begin(tmp_path, fit=FrozenTrunk()).fit(model, datamodule=spread())
    assert reasons(result)[0].numbers["remedy"] == "weights"
    assert model.frozen_seen[0]
    assert not any(model.frozen_seen[1:])
    assert result.history[-1].metrics["val_acc"] > 0.85


class Dies(Exception):
    """The process ends here."""


def test_a_run_that_is_killed_after_its_control_goes_on_to_the_same_end(tmp_path: Path) -> None:
    def die(record: Any, module: nn.Module) -> None:
        if record.round == 2:
            raise Dies

    with pytest.raises(Dies):
        begin(tmp_path / "a", on_round=die).fit(net(lr=0.3), datamodule=spread())
    again = begin(tmp_path / "a").fit(net(lr=0.3), datamodule=spread())
    whole = begin(tmp_path / "b").fit(net(lr=0.3), datamodule=spread())
    assert again.labelled.tolist() == whole.labelled.tolist()
    assert again.bill.lines["control"].records == whole.bill.lines["control"].records
    assert again.history[-1].metrics == whole.history[-1].metrics


def test_without_validation_records_there_is_no_control(tmp_path: Path) -> None:
    with pytest.raises(ActiveLearningError, match=r"FalseStart\('val_acc'\) trains a control.*val="):
        begin(tmp_path).fit(net(), datamodule=spread(val=None))


def test_a_control_needs_to_know_where_labels_are(tmp_path: Path) -> None:
    pool = spread(attach=lambda item, label: (item[0], label))
    with pytest.raises(ActiveLearningError, match=r"with attach= nothing says where their labels are"):
        begin(tmp_path).fit(net(), datamodule=pool)


def test_a_control_is_trained_though_it_is_smaller_than_a_batch(tmp_path: Path) -> None:
    pool = spread(loader={"drop_last": True}, batch_size=30, val=blobs(30, seed=1))
    result = begin(tmp_path).fit(net(lr=0.3), datamodule=pool)
    assert result.bill.lines["control"].records == 12 * 15


def test_chance_needs_classes_to_count(tmp_path: Path) -> None:
    class Regressor(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = (self(batch[0])[:, 0] - batch[1].float()).square().mean()
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

    stall = StallDetection("train_loss", reference="chance")
    with pytest.raises(ActiveLearningError, match="reference='chance'"):
        begin(tmp_path, [stall]).fit(Regressor(), datamodule=spread(task="regression"))


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "linear", "none"])
def test_a_lower_rate_is_lower_all_along_the_schedule(tmp_path: Path, schedule: str) -> None:
    from al_lightning.fit.shape import ScaleRate

    class Scheduled(Net):
        def __init__(self) -> None:
            super().__init__(lr=0.1)
            self.rates: list[float] = []

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
            build: dict[str, Callable[[], Any]] = {
                "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=24),
                "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24, eta_min=0.01),
                "linear": lambda: torch.optim.lr_scheduler.SequentialLR(
                    optimizer,
                    [
                        torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=8),
                        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
                    ],
                    [8],
                ),
            }
            if schedule == "none":
                return optimizer
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": build[schedule](), "interval": "step"}}

    def rates(*callbacks: Any) -> list[float]:
        pool, model = pool_of(), Scheduled()
        pool.label(range(24), {i: i % CLASSES for i in range(24)})
        quiet(max_epochs=8, callbacks=list(callbacks)).fit(model, datamodule=pool)
        return model.rates

    assert rates(ScaleRate(0.1)) == pytest.approx([0.1 * rate for rate in rates()])
