"""A false start is aborted and begun again; what it wasted stands on the ledger."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.fit.plan import snapshot
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.round_size import Fixed, Listed
from tests.helpers import CLASSES, Net, learner, net, pool_of, quiet

CHANCE = math.log(CLASSES)


class Dead(Net):
    """All weights zero: no gradient reaches the first layer, the loss stays near chance. New weights cure it."""

    def __init__(self, deaths: int = 1, lr: float = 0.3) -> None:
        super().__init__(lr=lr)
        self.deaths, self.draws = deaths, 0
        self.starts: list[dict[str, Any]] = []
        self.zero()

    def zero(self) -> None:
        with torch.no_grad():
            for p in self.parameters():
                p.zero_()

    def reset_parameters(self) -> None:
        """Draw new weights; stillborn until it has been drawn often enough."""
        self.draws += 1
        for m in self.net:
            if isinstance(m, nn.Linear):
                m.reset_parameters()
        if self.draws < self.deaths:
            self.zero()

    def on_train_start(self) -> None:
        self.starts.append(snapshot(self))


def stall(**kwargs: Any) -> StallDetection:
    # On balanced validation data no constant prediction is better than chance.
    return StallDetection("val_loss", **{"reference": CHANCE, "min_delta": 0.01, "patience": 3, **kwargs})


def test_a_dead_start_is_begun_again_with_new_weights(tmp_path: Path) -> None:
    model = Dead()
    result = learner(tmp_path, quiet(max_epochs=12, callbacks=[stall()])).fit(model, datamodule=pool_of())
    assert result.reason.kind == "exhausted"
    assert [r.attempts for r in result.history] == [2, 1, 1]
    assert [r.restarted for r in result.history] == [True, False, False]
    assert [r.epochs for r in result.history] == [12, 12, 12]
    assert result.history[0].metrics["val_loss"] < CHANCE - 0.3
    assert not any(p.any() for p in model.starts[0].values())
    assert all(p.any() for p in model.starts[1].values())
    # The initial weights are the new ones from here on: later rounds are not dead again.
    assert all(torch.equal(model.starts[2][name], p) for name, p in model.starts[1].items())
    lines = result.bill.lines
    assert lines["aborted"].records == 3 * 12
    assert lines["train"].records == 12 * (12 + 18 + 24)
    assert lines["aborted"].flops == pytest.approx(  # its validation was thrown away, too
        lines["train"].flops / lines["train"].records * 36
        + lines["validate"].flops / lines["validate"].records * (27 + 9)
    )
    assert result.bill.records_trained == lines["train"].records + 36
    assert len(result.labelled) == 24  # no label was bought for it


def test_it_gives_up_after_its_restarts(tmp_path: Path) -> None:
    model = Dead(deaths=99)
    fit = WarmStart("keep", final="initial")
    result = learner(tmp_path, quiet(max_epochs=12), stop=[stall(max_restarts=2)], fit=fit).fit(
        model, datamodule=pool_of()
    )
    assert result.reason.kind == "gave_up"
    assert str(result.reason).startswith("gave up after 2 restarts: val_loss stands at 1.")
    assert str(result.reason).endswith(" after 3 epochs, not better than 1.099 by more than 0.01")
    assert len(model.starts) == 3
    assert result.history == ()  # and no consolidating fit of a model that does not learn
    assert len(result.labelled) == 12
    assert result.bill.lines["aborted"].records == 3 * 3 * 12
    assert "train" not in result.bill.lines


def test_new_weights_and_a_new_selection(tmp_path: Path) -> None:
    model = Dead()

    class Fresh(StallDetection):
        def remedy_for(self, reason: Any, tried: Any) -> Any:
            return "weights_and_selection"

    rule = Fresh("val_loss", reference=CHANCE, min_delta=0.01)
    result = learner(tmp_path, quiet(max_epochs=12), stop=[rule], round_size=Listed([12, 6, 6])).fit(
        model, datamodule=pool_of()
    )
    first = result.history[0]
    assert first.labelled == 24  # twelve that were paid for, and as many on top, at random
    assert first.round == 2
    assert first.attempts == 2
    assert len(set(result.labelled.tolist())) == len(result.labelled) == 30


def test_a_run_that_was_stopped_after_a_restart_goes_on(tmp_path: Path) -> None:
    class Stopped(Exception): ...

    def stop(record: Any, module: Any) -> None:
        raise Stopped

    trainer = quiet(max_epochs=12, callbacks=[stall()])
    with pytest.raises(Stopped):
        learner(tmp_path / "a", trainer, on_round=stop).fit(Dead(), datamodule=pool_of())
    again = learner(tmp_path / "a", quiet(max_epochs=12, callbacks=[stall()])).fit(Dead(), datamodule=pool_of())
    whole = learner(tmp_path / "b", trainer).fit(Dead(), datamodule=pool_of())
    assert again.labelled.tolist() == whole.labelled.tolist()
    assert again.bill.lines["aborted"].records == 36
    assert torch.equal(again.model.net[0].weight, whole.model.net[0].weight)


def test_a_loss_that_is_nan_is_aborted_at_once(tmp_path: Path) -> None:
    class LogsNan(Net):
        def log(self, name: str, value: Any, **kwargs: Any) -> None:
            super().log(name, value * float("nan") if name == "train_loss" else value, **kwargs)

    rule = StallDetection("train_loss", patience=9, max_restarts=0)
    result = learner(tmp_path, quiet(max_epochs=12), stop=[rule]).fit(LogsNan(), datamodule=pool_of())
    assert result.reason.kind == "gave_up"
    assert result.bill.lines["aborted"].records == 12


def test_a_healthy_run_is_not_touched(tmp_path: Path) -> None:
    rule = stall()
    with_rule = learner(tmp_path / "a", quiet(max_epochs=4), stop=[rule]).fit(net(lr=0.5), datamodule=pool_of())
    assert "aborted" not in with_rule.bill.lines
    assert [r.attempts for r in with_rule.history] == [1, 1, 1]


def test_in_a_hand_written_loop_it_aborts_and_says_why() -> None:
    rule, pool, model = stall(), pool_of(), Dead()
    pool.label(range(12), {i: i % 3 for i in range(12)})
    trainer = fresh_trainer(quiet(max_epochs=12, min_epochs=12, callbacks=[rule]))
    trainer.fit(model, datamodule=pool)
    assert trainer.current_epoch == 3
    assert rule.reason is not None
    assert rule.reason.kind == "stall"
    trainer = fresh_trainer(quiet(max_epochs=4, callbacks=[rule]))
    healthy = Net(lr=0.3)
    trainer.fit(healthy, datamodule=pool)
    assert rule.reason is None


def test_in_a_hand_written_loop_a_plateau_ends_the_rounds() -> None:
    rule, pool, sizes = RoundPlateau("val_acc", min_delta=2.0, patience=2), pool_of(), []
    trainer, model = quiet(max_epochs=1, callbacks=[rule]), Net()
    for turn in pool.rounds(sizes=Fixed(6)):
        fresh_trainer(trainer).fit(model, datamodule=pool)
        sizes.append(turn.size)
        if not turn.final:
            pool.label(pool.unlabelled[: turn.size], {int(i): int(i) % 3 for i in pool.unlabelled[: turn.size]})
    assert sizes == [6, 6, 0]  # the first is progress, two are not
    assert pool.stop_reason is not None
    assert pool.stop_reason.kind == "plateau"
