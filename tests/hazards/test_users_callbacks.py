"""What a user's callbacks collect is there after the run, and every fit finds them as a fit alone would."""

from __future__ import annotations

import copy
import threading
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, EarlyStopping, ModelCheckpoint
from torchmetrics import MeanMetric

from al_lightning.fit.trainer import fresh_trainer
from tests.helpers import learner, net, pool_of, quiet

EPOCHS = 2 * 3
"""Of three fits."""


class Notes(Callback):
    """Notes the loss of every epoch in some way."""

    def __init__(self, notes: Any, note: Callable[[Any, float], None]) -> None:
        self.notes, self.note = notes, note

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.note(self, float(trainer.callback_metrics["train_loss"]))


class Trial:
    """What a hyperparameter search hands to a callback; it cannot be copied."""

    def __init__(self) -> None:
        self.reported: list[float] = []
        self.lock = threading.Lock()

    def report(self, value: float) -> None:
        self.reported.append(value)


def _rebinds(callback: Any, value: float) -> None:
    callback.notes = [*callback.notes, value]


def _begins(callback: Any, value: float) -> None:
    callback.notes = [] if callback.notes is None else callback.notes
    callback.notes.append(value)


COLLECT: dict[str, tuple[Any, Callable[[Any, float], Any], Callable[[Any], int]]] = {
    "a list": (list, lambda c, v: c.notes.append(v), len),
    "a list bound anew": (list, _rebinds, len),
    "a list begun late": (lambda: None, _begins, len),
    "a deque": (deque, lambda c, v: c.notes.append(v), len),
    "a set": (set, lambda c, v: c.notes.add(v), len),
    "a tuple": (tuple, lambda c, v: setattr(c, "notes", (*c.notes, v)), len),
    "an array": (lambda: np.zeros(0), lambda c, v: setattr(c, "notes", np.append(c.notes, v)), len),
    "lists in a dict": (lambda: {"loss": []}, lambda c, v: c.notes["loss"].append(v), lambda n: len(n["loss"])),
    "a trial that cannot be copied": (Trial, lambda c, v: c.notes.report(v), lambda n: len(n.reported)),
}


@pytest.mark.parametrize(("make", "note", "count"), COLLECT.values(), ids=COLLECT.keys())
def test_what_is_collected_is_there_after_the_run(tmp_path: Path, make: Any, note: Any, count: Any) -> None:
    given = make()
    callback, model = Notes(given, note), net()
    learner(tmp_path, quiet(callbacks=[callback])).fit(model, datamodule=pool_of())
    assert count(callback.notes) == EPOCHS
    if isinstance(given, list | dict | Trial) and note is not _rebinds:
        assert callback.notes is given  # whoever handed it in has it too


def test_two_callbacks_that_share_a_list_share_it_in_every_fit(tmp_path: Path) -> None:
    both: list[float] = []
    callbacks = [Notes(both, lambda c, v: c.notes.append(v)) for _ in range(2)]
    learner(tmp_path, quiet(callbacks=callbacks)).fit(net(), datamodule=pool_of())
    assert len(both) == 2 * EPOCHS


def test_a_file_and_predictions_are_there_too(tmp_path: Path) -> None:
    class Writes(Callback):
        def __init__(self) -> None:
            self.file = (tmp_path / "losses.txt").open("w")
            self.outputs: list[torch.Tensor] = []  # of the last validation, as people keep them
            self.sizes: list[int] = []

        def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.outputs.clear()

        def on_validation_batch_end(
            self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
        ) -> None:
            self.outputs.append(pl_module(batch[0]))

        def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.sizes.append(len(torch.cat(self.outputs)))
            self.file.write("x\n")

    callback = Writes()
    learner(tmp_path / "run", quiet(callbacks=[callback], num_sanity_val_steps=0)).fit(net(), datamodule=pool_of())
    callback.file.close()
    assert callback.sizes == [9] * EPOCHS
    assert len((tmp_path / "losses.txt").read_text().split()) == EPOCHS
    assert len(torch.cat(callback.outputs)) == 9


# ---- every fit starts as one alone --------------------------------------------------------------------------------


class Patience(Callback):
    """Early stopping as people write it by hand: ends a fit two epochs after the loss's best."""

    def __init__(self) -> None:
        self.best, self.wait, self.best_weights = float("inf"), 0, None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.wait = 0 if self.score(trainer) < self.best else self.wait + 1
        if self.score(trainer) < self.best:
            self.best, self.best_weights = self.score(trainer), copy.deepcopy(pl_module.state_dict())
        trainer.should_stop = trainer.should_stop or self.wait >= 2

    def score(self, trainer: L.Trainer) -> float:
        return abs(trainer.current_epoch - 1)  # best in the second epoch of every fit


class PatienceInAHelper(Callback):
    """The same, counted by an object of its own."""

    class Counter:
        def __init__(self) -> None:
            self.best, self.wait = float("inf"), 0

        def stop(self, loss: float) -> bool:
            self.wait = 0 if loss < self.best else self.wait + 1
            self.best = min(self.best, loss)
            return self.wait >= 2

    def __init__(self) -> None:
        self.counter = self.Counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.counter.stop(abs(trainer.current_epoch - 1))


class PatienceInADict(Callback):
    """The same, counted in a dict."""

    def __init__(self) -> None:
        self.state = {"best": float("inf"), "wait": 0}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = abs(trainer.current_epoch - 1)
        self.state["wait"] = 0 if score < self.state["best"] else self.state["wait"] + 1
        self.state["best"] = min(self.state["best"], score)
        trainer.should_stop = self.state["wait"] >= 2


class PatienceByHistory(Callback):
    """The same, decided by the list of all values."""

    def __init__(self) -> None:
        self.history: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.history.append(abs(trainer.current_epoch - 1))
        trainer.should_stop = len(self.history) > 2 and min(self.history[-2:]) > min(self.history[:-2])


class OwnEarlyStopping(EarlyStopping):
    """Lightning's, with a list of the user's."""

    def __init__(self) -> None:
        super().__init__("score", patience=2)
        self.seen: list[int] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        pl_module.log("score", float(abs(trainer.current_epoch - 1)), on_step=False, on_epoch=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.seen.append(trainer.current_epoch)
        super().on_train_epoch_end(trainer, pl_module)


@pytest.mark.filterwarnings("ignore:Patience:UserWarning")  # its numbers are of the last fit, and that is said
@pytest.mark.parametrize("kind", [Patience, PatienceInAHelper, PatienceInADict, PatienceByHistory, OwnEarlyStopping])
def test_early_stopping_by_hand_starts_anew_in_every_fit(tmp_path: Path, kind: Any) -> None:
    callback = kind()
    result = learner(tmp_path, quiet(max_epochs=9, callbacks=[callback])).fit(net(), datamodule=pool_of())
    assert [r.epochs for r in result.history] == [4, 4, 4]
    if kind is OwnEarlyStopping:
        assert callback.seen == [0, 1, 2, 3] * 3
        assert callback.stopped_epoch == 3  # what the last fit left


class CollectsInASubclass(BasePredictionWriter):
    """A callback of Lightning's that a user's class builds on."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.losses: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


def test_a_subclass_of_lightnings_callbacks_collects(tmp_path: Path) -> None:
    callback = CollectsInASubclass()
    learner(tmp_path, quiet(callbacks=[callback])).fit(net(), datamodule=pool_of())
    assert len(callback.losses) == EPOCHS


class Counts(Callback):
    """Counts batches, by a number set in the class."""

    batches = 0

    def __init__(self) -> None:
        self.steps, self.name, self.on = 0, "user", True

    def on_train_batch_end(self, *args: Any) -> None:
        self.steps += 1
        self.batches += 1


def test_numbers_start_every_fit_as_they_were_set_and_that_is_said_once(tmp_path: Path) -> None:
    callback, started = Counts(), []
    callback.on_fit_start = lambda trainer, module: started.append((callback.steps, callback.batches))  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        learner(tmp_path, quiet(callbacks=[callback])).fit(net(), datamodule=pool_of())
    told = [str(w.message) for w in said if "Counts" in str(w.message)]
    assert started == [(0, 0)] * 3
    assert callback.steps == callback.batches == 2 * 3  # of the last fit: 24 labels in batches of 8
    assert len(told) == 1
    for word in ("Counts.steps", "Counts.batches", "al_shared = True", "al_shared = False"):
        assert word in told[0]


@pytest.mark.parametrize(("shared", "left"), [(True, 2 * (2 + 3 + 3)), (False, 0)])
def test_the_two_ways_out_say_nothing(tmp_path: Path, shared: bool, left: int) -> None:
    callback = Counts()
    callback.al_shared = shared  # type: ignore[attr-defined]
    learner(tmp_path, quiet(callbacks=[callback])).fit(net(), datamodule=pool_of())
    assert callback.steps == left


class Carries(Callback):
    """Holds tensors, a metric, a module with its optimiser; and looks how each fit finds them."""

    def __init__(self) -> None:
        self.total, self.metric = torch.zeros(1), MeanMetric()
        self.probe = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.probe.parameters(), lr=1.0)
        self.found: list[tuple[float, int, float]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.found.append((float(self.total), int(self.metric.update_count), float(self.probe.bias.detach())))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.total += 1
        self.metric.update(1.0)
        with torch.enable_grad():
            self.probe(torch.ones(1, 1)).sum().backward()
        self.optimizer.step()


def test_tensors_metrics_and_modules_start_every_fit_as_they_were_set(tmp_path: Path) -> None:
    callback = Carries()
    before = float(callback.probe.bias.detach())
    learner(tmp_path, quiet(callbacks=[callback])).fit(net(), datamodule=pool_of())
    assert callback.found == [(0.0, 0, before)] * 3
    assert float(callback.total) == 2  # what the last fit left
    assert float(callback.probe.bias.detach()) != before  # its optimiser moves this one, and no other


class Slots(Callback):
    """Has slots, a property, and a state of its own."""

    __slots__ = ("_level", "seen")

    def __init__(self) -> None:
        self._level, self.seen = "low", []

    @property
    def level(self) -> str:
        return self._level

    @level.setter
    def level(self, value: str) -> None:
        self.seen.append((self._level, value))
        self._level = value

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.level = "high"

    def state_dict(self) -> dict[str, Any]:
        return {"level": self._level}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._level = state_dict["level"]


def test_slots_and_properties_are_no_obstacle(tmp_path: Path) -> None:
    callback = Slots()
    learner(tmp_path, quiet(callbacks=[callback])).fit(net(), datamodule=pool_of())
    assert callback.seen == [("low", "high"), ("high", "high")] * 3


class Refers(Callback):
    """Refers to its Trainer, to another callback of it, to the model and to the pool."""

    def __init__(self, **things: Any) -> None:
        self.__dict__.update(things)
        self.right: list[bool] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.right.append(
            self.trainer is trainer
            and self.stopper is next(c for c in trainer.callbacks if isinstance(c, EarlyStopping))
            and self.model is pl_module
            and self.pool is trainer.datamodule
        )


def test_references_are_to_what_runs(tmp_path: Path) -> None:
    model, pool, stopper = net(), pool_of(), EarlyStopping("train_loss", patience=9)
    refers = Refers(model=model, pool=pool, stopper=stopper, trainer=None)
    trainer = quiet(callbacks=[stopper, refers])
    refers.trainer = trainer
    learner(tmp_path, trainer).fit(model, datamodule=pool)
    assert refers.right == [True] * 3


def test_a_second_run_with_the_same_trainer_starts_as_the_first_did_and_new_settings_count(tmp_path: Path) -> None:
    callback = Counts()
    callback.name = "first"
    trainer, started = quiet(callbacks=[callback]), []
    callback.on_fit_start = lambda trainer, module: started.append((callback.steps, callback.name))  # type: ignore[method-assign]
    with warnings.catch_warnings(action="ignore"):
        learner(tmp_path / "a", trainer).fit(net(), datamodule=pool_of())
        callback.name = "second"
        learner(tmp_path / "b", trainer).fit(net(), datamodule=pool_of())
    assert started == [(0, "first")] * 3 + [(0, "second")] * 3


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, monitor="val_loss")
    notes, trial = Notes([], lambda c, v: c.notes.append(v)), Notes(Trial(), lambda c, v: c.notes.report(v))
    shared = Counts()
    shared.al_shared = True  # type: ignore[attr-defined]
    trainer = quiet(callbacks=[notes, trial, shared, checkpoint], enable_checkpointing=True)
    pool, model = pool_of(), net()
    pool.label(pool.draw(12), {int(i): int(i) % 3 for i in pool.draw(12)})
    copied = fresh_trainer(trainer, model=model, datamodule=pool, rehearsal=True)
    copied.fit(model, datamodule=pool)
    kinds = [type(c).__name__ for c in copied.callbacks]
    assert kinds == ["Notes", "Counts", "ModelCheckpoint"]  # the trial refuses to be copied
    assert len(copied.callbacks[0].notes) == 2
    assert (notes.notes, trial.notes.reported, shared.steps, checkpoint.best_model_path) == ([], [], 0, "")
