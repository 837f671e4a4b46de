"""The three callbacks in loops over plain loaders, and on DataModules that are no pool."""

from __future__ import annotations

import copy
import doctest
import logging
import pickle
import sys
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from al_lightning import RoundPlateau, StallDetection, WarmStart, fresh_trainer
from al_lightning.callbacks import round_plateau
from al_lightning.contrib import Dash, Gated
from al_lightning.errors import ActiveLearningError, UnsupportedTrainer
from al_lightning.round_size import Fixed
from tests.helpers import Net, blobs, net, pool_of, quiet

TRAIN = blobs(60)
VAL = DataLoader(blobs(9, seed=1), batch_size=9)


def loader(n: int = 12) -> DataLoader[Any]:
    return DataLoader(Subset(TRAIN, range(n)), batch_size=6)


class Loaders(L.LightningDataModule):
    """A DataModule as users write them."""

    def __init__(self, n: int = 12) -> None:
        super().__init__()
        self.n = n

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self.n)

    def val_dataloader(self) -> DataLoader[Any]:
        return VAL


class Seen(L.Callback):
    """Notes the weights that a fit begins and ends with, and its epochs."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start, self.epochs = weights(pl_module), 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.end = weights(pl_module)


class Saves(L.Callback):
    """Saves the first epoch's checkpoint, as ModelCheckpoint does, without being in it."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def weights(module: L.LightningModule) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def fit(callback: Any, model: L.LightningModule, data: Any = None, *, more: Any = (), **settings: Any) -> Seen:
    """One fit on a Trainer of its own; ``data`` is a number of records or a DataModule."""
    seen, callbacks = Seen(), callback if isinstance(callback, list) else [callback]
    trainer = quiet(**{"max_epochs": 2, **settings}, callbacks=[*callbacks, seen, *more])
    if isinstance(data, L.LightningDataModule):
        trainer.fit(model, datamodule=data)
    else:
        trainer.fit(model, loader(data or 12), VAL)
    return seen


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b)


MODES = ["reset", "keep", "shrink_perturb"]
WAYS = {"loaders": lambda: 12, "DataModule": Loaders, "pool": lambda: labelled_pool()}


def labelled_pool(n: int = 12) -> Any:
    pool = pool_of(TRAIN)
    pool.label(range(n), {i: i % 3 for i in range(n)})
    return pool


@pytest.fixture(params=list(WAYS))
def data(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]()


# ---- WarmStart ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_each_round_starts_as_its_mode_says(mode, data):
    warm, model = WarmStart(mode, first_epochs=2, epochs=1), net()
    own = weights(model)
    first, second = fit(warm, model, data), fit(warm, model, data)
    assert same(first.start, own)
    expected = {"reset": own, "keep": first.end}
    assert not same(second.start, own) if mode not in expected else same(second.start, expected[mode])
    assert (first.epochs, second.epochs) == (2, 2 if mode == "reset" else 1)
    start = "initial" if mode == "reset" else "previous" if mode == "keep" else mode
    assert warm.reason.numbers == {"start": start, "mode": mode, "fit": 2, "epochs": second.epochs}


@pytest.mark.parametrize("mode", MODES)
def test_another_model_starts_from_its_own_weights(mode, data):
    warm = WarmStart(mode, first_epochs=2, epochs=1)
    for _ in range(2):
        fit(warm, net(seed=1), data)
    other = net(seed=2)
    own = weights(other)
    seen = fit(warm, other, data)
    assert same(seen.start, own)
    assert seen.epochs == 2
    assert warm.reason.numbers["fit"] == 1


@pytest.mark.parametrize("mode", ["reset", "keep"])
def test_experiments_may_take_turns(mode, data):
    warm = WarmStart(mode, first_epochs=2, epochs=1)
    models = [net(seed=1), net(seed=2)]
    own = [weights(model) for model in models]
    before = [fit(warm, model, data) for model in models]
    for model, weights_before, last in zip(models, own, before, strict=True):
        assert same(fit(warm, model, data).start, weights_before if mode == "reset" else last.end)
        assert warm.reason.numbers["fit"] == 2


def test_another_data_module_is_another_experiment_and_the_log_says_so(caplog):
    warm, model = WarmStart("reset", first_epochs=2), net()
    first = fit(warm, model, Loaders())
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        assert same(fit(warm, model, Loaders()).start, first.end)
    assert "begins another experiment" in caplog.text
    assert warm.reason.numbers["fit"] == 1


def test_a_model_of_each_round_of_a_pool_keeps_its_weights():
    warm, plateau = WarmStart("reset"), RoundPlateau("val_acc", patience=1, min_delta=1.0)
    pool = pool_of(TRAIN)
    for round in pool.rounds(sizes=Fixed(6)):
        model = net(seed=round.number)
        own = weights(model)
        assert same(fit([warm, plateau], model, pool).start, own)
        pool.label(pool.draw(round.size), {int(i): int(i) % 3 for i in pool.draw(round.size)})
    assert round.number == 2  # of the loop's own curve, whoever's weights they are
    assert pool.stop_reason is plateau.reason


@pytest.mark.parametrize(
    "warm", [WarmStart("resume"), Dash(), Gated("keep", max_new=0.5)], ids=["resume", "dash", "new"]
)
def test_what_needs_a_pool_is_refused_before_the_first_fit(warm):
    model = net()
    own = weights(model)
    with pytest.raises(ActiveLearningError, match=r"which labels are new.*PoolDataModule"):
        fit(warm, model)
    assert same(weights(model), own)


def test_a_share_of_epochs_without_epochs_is_refused_before_the_first_fit():
    with pytest.raises(UnsupportedTrainer, match="share of the Trainer's epochs"):
        fit(WarmStart("keep", epochs=0.5), net(), max_epochs=-1, max_steps=3)


def test_a_search_for_a_learning_rate_is_no_fit_of_it():
    warm, model = WarmStart("keep", first_epochs=2, epochs=1), net()
    own = weights(model)
    seen = fit(warm, model, more=[LearningRateFinder(num_training_steps=5, early_stop_threshold=None)])
    assert same(seen.start, own)
    assert (seen.epochs, warm.reason.numbers["start"]) == (2, "initial")


# ---- RoundPlateau -------------------------------------------------------------------------------------------------


def test_a_plateau_is_a_reason_that_a_loop_over_loaders_can_look_at(caplog, data):
    plateau, model = RoundPlateau("val_acc", mode="max", patience=2, min_delta=1.0), net()
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        reasons = [fit(plateau, model, data) and plateau.reason for _ in range(3)]
    assert reasons[:2] == [None, None]
    assert reasons[2].kind == "plateau"
    assert len(reasons[2].numbers["values"]) == 3
    assert caplog.text.count(str(reasons[2])) == 1


def test_a_plateau_of_one_experiment_says_nothing_of_another(data):
    plateau, model = RoundPlateau("val_acc", mode="max", patience=1, min_delta=1.0), net()
    for _ in range(2):
        fit(plateau, model, data)
    assert plateau.reason
    fit(plateau, net(seed=1), data)
    assert plateau.reason is None
    fit(plateau, model, data)
    assert len(plateau.reason.numbers["values"]) == 3


def test_two_plateaus_on_one_trainer_are_two(tmp_path):
    both = [RoundPlateau("val_acc", mode="max"), RoundPlateau("val_loss", mode="min")]
    fit(both, net(), more=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)


# ---- StallDetection -----------------------------------------------------------------------------------------------


class Stuck(Net):
    """Learns nothing while it is stuck."""

    stuck = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * 0 if self.stuck else loss


def stuck() -> Stuck:
    torch.manual_seed(0)
    return Stuck()


def test_a_stall_is_a_reason_and_no_round_of_the_others(caplog):
    stall = StallDetection("train_loss", reference=0.0, patience=1)
    warm, plateau = WarmStart("keep", first_epochs=3, epochs=2), RoundPlateau("val_acc", patience=1, min_delta=1.0)
    model, parts = stuck(), [warm, plateau, stall]
    own = weights(model)
    for _ in range(3):
        with caplog.at_level(logging.INFO, "lightning.pytorch"):
            assert fit(parts, model, max_epochs=9).epochs == 1
        assert stall.reason.kind == "stall"
        assert plateau.reason is None
        assert warm.reason.numbers["fit"] == 1
    assert caplog.text.count(str(stall.reason)) == 3
    stall.reference, model.stuck = 99.0, False
    assert fit(parts, model, max_epochs=9).epochs == 3
    assert stall.reason is None
    assert not same(weights(model), own)


@pytest.mark.parametrize("mode", ["reset", "keep"])
@pytest.mark.parametrize("warm_already", [False, True])
def test_the_fit_after_a_stall_begins_where_the_aborted_one_began(mode, warm_already):
    warm, stall, model = WarmStart(mode), StallDetection("train_loss", reference=99.0, patience=1), net()
    if warm_already:
        fit([warm, stall], model)
    stall.reference = 0.0
    aborted, again = fit([warm, stall], model), fit([warm, stall], model)
    assert not same(aborted.start, aborted.end)
    assert same(again.start, aborted.start)


@pytest.mark.parametrize("mode", ["reset", "keep"])
@pytest.mark.parametrize("warm_already", [False, True])
def test_weights_drawn_after_a_stall_are_the_initial_ones(mode, warm_already):
    warm = WarmStart(mode, first_epochs=2, epochs=1)
    stall, model = StallDetection("train_loss", reference=99.0, patience=1), net()
    if warm_already:
        fit([warm, stall], model)
    stall.reference = 0.0
    fit([warm, stall], model)
    stall.reference = 99.0
    model.load_state_dict(net(seed=5).state_dict())
    own = weights(model)
    first, second = fit([warm, stall], model), fit([warm, stall], model)
    assert same(first.start, own)
    assert first.epochs == 2
    assert same(second.start, own if mode == "reset" else first.end)


def test_how_far_other_experiments_got_is_no_yardstick():
    stall = StallDetection("train_loss", reference=1.1, patience=2)
    fit(stall, net(lr=0.5), 60, max_epochs=8)
    assert stall.reached < 0.9
    fit(stall, net(seed=1, lr=1e-4), max_epochs=1)
    assert stall.reached > 0.9


# ---- Trainers -----------------------------------------------------------------------------------------------------

CALLBACKS = {
    "WarmStart": lambda: WarmStart("keep", epochs=1),
    "RoundPlateau": lambda: RoundPlateau("val_acc", mode="max"),
    "StallDetection": lambda: StallDetection("train_loss", reference=99.0),
}


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
def test_a_used_trainer_is_refused_before_it_trains_nothing(make, data):
    trainer, model = quiet(callbacks=[make()]), net()
    where = {"datamodule": data} if isinstance(data, L.LightningDataModule) else {"train_dataloaders": loader()}
    where |= {} if isinstance(data, L.LightningDataModule) else {"val_dataloaders": VAL}
    trainer.fit(model, **where)
    before, steps = weights(model), trainer.global_step
    with pytest.raises(UnsupportedTrainer, match=r"already run fit\(\), for \d epochs and \d steps.*fresh_trainer"):
        trainer.fit(model, **where)
    assert same(weights(model), before)
    assert trainer.global_step == steps


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
def test_validating_and_testing_in_between_changes_nothing(make):
    callback, model = make(), net()
    model.test_step = model.validation_step  # type: ignore[method-assign]
    for count in (1, 2):
        trainer = quiet(callbacks=[callback])
        trainer.validate(model, VAL, verbose=False)  # a Trainer that only looked is a fresh one
        trainer.fit(model, loader(), VAL)
        trainer.validate(model, VAL, verbose=False)
        trainer.test(model, VAL, verbose=False)
        assert callback.reason is None or callback.reason.numbers["fit"] == count


@pytest.mark.parametrize("copied", [copy.deepcopy, fresh_trainer])
def test_copies_of_a_trainer_go_on_with_the_same_object(copied):
    warm, plateau = WarmStart("reset"), RoundPlateau("val_acc", mode="max", patience=2, min_delta=1.0)
    trainer, model = quiet(callbacks=[warm, plateau]), net()
    for _ in range(3):
        copied(trainer).fit(model, loader(), VAL)
    assert warm.reason.numbers["fit"] == 3
    assert plateau.reason.numbers["rounds"] == 2


@pytest.mark.parametrize("mode", ["reset", "keep"])
def test_a_fit_that_raised_is_not_counted(mode, data):
    class Raises(L.Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            raise KeyError("broken")

    warm, plateau, model = WarmStart(mode, freeze=("net.0",)), RoundPlateau("val_acc", patience=1), net()
    own = weights(model)
    with pytest.raises(KeyError, match="broken"):
        fit([warm, plateau], model, data, more=[Raises()])
    assert all(p.requires_grad for p in model.parameters())
    assert same(fit([warm, plateau], model, data).start, own)
    assert warm.reason.numbers["fit"] == 1
    assert plateau.reason is None


# ---- across processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
def test_a_pickle_has_the_settings_and_begins_anew(make):
    callback, model = make(), net()
    fit(callback, model)
    for other in (pickle.loads(pickle.dumps(callback)), copy.copy(callback)):
        assert repr(other) == repr(callback)
        fit(other, model)
        assert other.reason is None or other.reason.numbers["fit"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_fit_resumes_from_its_checkpoint_in_another_process(mode, tmp_path):
    """Another object stands for the other process: the module in memory is gone."""
    settings = {"mode": mode, "first_epochs": 3, "epochs": 2}
    warm, model = WarmStart(**settings), net()
    own = weights(model)
    plateau = RoundPlateau("val_acc", mode="max", patience=2, min_delta=1.0)
    fit([warm, plateau], model)
    path = tmp_path / "it.ckpt"
    fit([warm, plateau], model, more=[Saves(path)])
    stored = torch.load(path, weights_only=True)

    warm, plateau = WarmStart(**settings), RoundPlateau("val_acc", mode="max", patience=2, min_delta=1.0)
    resumed, seen = net(seed=9), Seen()
    trainer = quiet(callbacks=[warm, plateau, seen])
    trainer.fit(resumed, loader(), VAL, ckpt_path=path, weights_only=True)
    assert same(seen.start, torch.cat([v.flatten() for v in stored["state_dict"].values()]))
    assert seen.epochs == (2 if mode == "reset" else 1)
    assert warm.reason.numbers["start"] == "checkpoint"
    assert warm.reason.numbers["fit"] == 2
    following = fit([warm, plateau], resumed)
    assert len(plateau.reason.numbers["values"]) == 3
    assert following.epochs == (3 if mode == "reset" else 2)
    if mode in ("reset", "keep"):
        assert same(following.start, own if mode == "reset" else seen.end)


def test_what_shapes_a_fit_from_its_first_step_cannot_resume(tmp_path):
    settings = {"mode": "keep", "stable": True}
    warm, model = WarmStart(**settings), net()
    fit(warm, model)
    fit(warm, model, more=[Saves(tmp_path / "it.ckpt")])
    with pytest.raises(ActiveLearningError, match=r"fit\(ckpt_path=...\) begins in the middle"):
        quiet(callbacks=[WarmStart(**settings)]).fit(net(), loader(), VAL, ckpt_path=tmp_path / "it.ckpt")


def test_testing_a_checkpoint_of_an_older_round_does_not_bring_back_its_state(tmp_path):
    plateau, model = RoundPlateau("val_acc", mode="max", patience=2, min_delta=1.0), net()
    fit(plateau, model)
    fit(plateau, model, more=[Saves(tmp_path / "it.ckpt")])
    quiet(callbacks=[plateau]).validate(net(), VAL, ckpt_path=tmp_path / "it.ckpt", verbose=False)
    fit(plateau, model)
    assert len(plateau.reason.numbers["values"]) == 3


def test_a_state_given_before_the_first_fit_is_gone_on_with():
    before, after = (RoundPlateau("val_acc", mode="max", patience=2, min_delta=1.0) for _ in range(2))
    model = net()
    for _ in range(2):
        fit(before, model)
    after.load_state_dict(before.state_dict())
    fit(after, net())
    assert len(after.reason.numbers["values"]) == 3


def test_the_example_of_the_docstring_runs():
    found = doctest.testmod(sys.modules[round_plateau.__name__], extraglobs={"L": L})
    assert found.attempted
    assert not found.failed
