"""A fresh Trainer per round; docs/adr/0002 and 0018 say why each line is here.

With cadence.py, silent.py and state.py the only modules that touch Lightning's inside.
"""

from __future__ import annotations

import copy
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn

from al_lightning.checks.packages import check_package
from al_lightning.cost.validation import ALL
from al_lightning.errors import UnsupportedTrainer
from al_lightning.fit.cadence import keep_cadence
from al_lightning.fit.callbacks import Memo, UsersCallbacks, attributes, shared_by_fits

TrainerSource = L.Trainer | Callable[[], L.Trainer]

_REFUSED: tuple[type[Strategy], ...] = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)
_users: weakref.WeakKeyDictionary[L.Trainer, UsersCallbacks] = weakref.WeakKeyDictionary()
_last_copy: weakref.WeakKeyDictionary[Any, L.Trainer] = weakref.WeakKeyDictionary()


def check_trainer(trainer: L.Trainer) -> None:
    """Raise UnsupportedTrainer for a Trainer that rounds cannot be built from."""
    check_package(trainer, "ActiveLearner")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        check_package(callback, "Trainer(callbacks=...)")
    if trainer.state.fn is not None:
        raise UnsupportedTrainer(
            f"this Trainer has already run {trainer.state.fn.value}(); a copy of it would train 0 epochs. Pass a new "
            "Trainer, or a function that builds one: ActiveLearner(lambda: Trainer(...), ...)."
        )
    if isinstance(trainer.strategy, _REFUSED):
        raise UnsupportedTrainer(
            f"strategy {type(trainer.strategy).__name__} shards weights and is not supported yet: use 'auto' or 'ddp'."
        )
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UnsupportedTrainer(
            f"strategy {type(trainer.strategy).__name__} with start method "
            f"{trainer.strategy.launcher._start_method!r} runs each fit in new processes, in which the pool's state is "
            "lost: use strategy='ddp', which starts the script once per device."
        )


def resumes(trainer: L.Trainer) -> bool:
    """Return whether the fit that is about to start goes on from a checkpoint; known from ``on_fit_start`` on."""
    return bool(trainer._checkpoint_connector._loaded_checkpoint)


def check_untrained(trainer: L.Trainer) -> None:
    """Raise UnsupportedTrainer where the fit that is about to start would count on from an earlier one."""
    check_package(trainer, "a callback of al_lightning")
    epochs = trainer.fit_loop.epoch_progress.current.completed
    if not resumes(trainer) and (epochs or trainer.global_step):
        raise UnsupportedTrainer(
            f"this Trainer has already run fit(), for {epochs} epochs and {trainer.global_step} steps. Another fit() "
            "goes on counting from there: it trains 0 epochs once max_epochs are over. Give every fit a Trainer of its "
            "own: a new one, or fresh_trainer(trainer).fit(...) with a Trainer that is never fitted itself."
        )


def _shared(trainer: L.Trainer, model: nn.Module | None, datamodule: Any) -> list[Any]:
    """Objects a copy must hold in common with the original: cloning them forks state or costs a dataset."""
    shared: list[Any] = [*trainer.loggers, trainer.strategy.launcher, datamodule, *getattr(datamodule, "datasets", [])]
    shared.append(trainer.lightning_module)  # of an earlier run
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        shared += [value for value in attributes(callback).values() if getattr(value, "al_shared", False)]
    if model is not None:
        shared += [*model.modules(), *model.parameters(), *model.buffers(), getattr(model, "_orig_mod", None)]
    return [o for o in shared if o is not None]


def _copy(trainer: L.Trainer, memo: Memo) -> L.Trainer:
    copied = [c for c in trainer.callbacks if id(c) not in memo]  # type: ignore[attr-defined]
    try:
        return copy.deepcopy(trainer, memo)
    except Exception as error:
        culprit = "one of its attributes"
        for callback in copied:
            for name, value in attributes(callback).items():
                try:
                    copy.deepcopy(value, dict(memo))
                except Exception:
                    culprit = f"{type(callback).__name__}.{name} ({type(value).__name__})"
        raise UnsupportedTrainer(
            f"the Trainer cannot be copied because of {culprit}: {error}. Set al_shared = True on that object if all "
            "rounds may share it, or pass a function that builds the Trainer: ActiveLearner(lambda: Trainer(...), ...)."
        ) from error


def _copy_for_fit(trainer: L.Trainer, memo: Memo) -> L.Trainer:
    """A copy whose fit the user's callbacks take part in: the same objects, as the user set them."""
    memo |= {id(c): c for c in trainer.callbacks if shared_by_fits(c)}  # type: ignore[attr-defined]
    fresh, last = _copy(trainer, memo), _last_copy.get(trainer)
    states = _users.setdefault(trainer, UsersCallbacks())
    states.begin(trainer, fresh, memo, has_run=last is not None and last.state.fn is not None)
    return fresh


def _copy_for_rehearsal(trainer: L.Trainer, memo: Memo) -> L.Trainer:
    """A copy that leaves no trace in the user's callbacks: it has copies of them, without those that refuse it."""
    left_out = Callback()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        try:
            memo[id(callback)] = copy.deepcopy(callback, dict(memo))
        except Exception:
            memo[id(callback)] = left_out
    fresh = _copy(trainer, memo)
    fresh.callbacks = [c for c in fresh.callbacks if c is not left_out]  # type: ignore[attr-defined]
    return fresh


def fresh_trainer(
    trainer: TrainerSource,
    *,
    model: nn.Module | None = None,
    datamodule: Any = None,
    round_dir: Path | None = None,
    max_epochs: int | None = None,
    step: int | None = None,
    rehearsal: bool = False,
) -> L.Trainer:
    """Return a Trainer for one round: the user's own, as if it had never run.

    Args:
        trainer: an unused Trainer, or a function that builds one. The copy has the user's own callbacks, as they were
            set and with what they have collected, and copies of Lightning's.
        model: shared with the copy instead of cloned, should a callback hold it.
        datamodule: likewise, with its datasets.
        round_dir: where this round's ModelCheckpoints go; default: wherever the user's Trainer puts them.
        max_epochs: epochs of this round, if not the Trainer's own.
        step: where the loggers' step axis goes on; default: where the last copy of this Trainer ended.
        rehearsal: whether it leaves no trace in the user's callbacks: it has copies of them all, without those that
            cannot be copied.

    Raises:
        UnsupportedTrainer: a Trainer that has run, cannot be copied, shards weights, or spawns processes per fit.
    """
    check_package(trainer, "ActiveLearner")
    if isinstance(trainer, L.Trainer):
        check_trainer(trainer)
        memo = {id(o): o for o in _shared(trainer, model, datamodule)}
        fresh = (_copy_for_rehearsal if rehearsal else _copy_for_fit)(trainer, memo)
    else:
        fresh = trainer()
        check_trainer(fresh)
    _disarm_automatic_resume(fresh)
    keep_cadence(fresh)
    if max_epochs is not None:
        set_epochs(fresh, max_epochs)
    if step is None:
        last = _last_copy.get(trainer)
        step = steps_logged(last) if last is not None else 0
    fresh.fit_loop.epoch_loop._batches_that_stepped = step
    if not rehearsal:
        _last_copy[trainer] = fresh
    for callback in (c for c in fresh.checkpoint_callbacks if isinstance(c, ModelCheckpoint)):
        if round_dir is not None:
            own = callback.dirpath
            callback.dirpath = os.path.join(own, round_dir.name) if own else str(round_dir / "checkpoints")
    return fresh


def set_epochs(trainer: L.Trainer, epochs: int) -> None:
    """Make the coming fit of a fresh copy shorter or longer than the Trainer says."""
    trainer.fit_loop.max_epochs = epochs
    trainer.fit_loop.min_epochs = min(trainer.fit_loop.min_epochs or 0, epochs) or None


def validate_once(trainer: L.Trainer, batches: int) -> None:
    """Have the coming fit of a fresh copy validate at its end alone, on so many batches at most."""
    trainer.num_sanity_val_steps = 0
    trainer.val_check_interval, trainer.check_val_every_n_epoch = 1.0, trainer.max_epochs
    if batches < ALL:
        trainer.limit_val_batches = batches


def take_schedulers(trainer: L.Trainer) -> list[LRSchedulerConfig]:
    """Take the learning-rate schedulers out of the running fit, which then steps none of them.

    ``ReduceLROnPlateau`` stays: what it does is not known beforehand.
    """
    strategy = trainer.strategy
    taken = [config for config in strategy.lr_scheduler_configs if not config.reduce_on_plateau]
    strategy.lr_scheduler_configs = [config for config in strategy.lr_scheduler_configs if config.reduce_on_plateau]
    return taken


def steps_logged(trainer: L.Trainer) -> int:
    """Return where the loggers' step axis of this Trainer stands."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def _disarm_automatic_resume(trainer: L.Trainer) -> None:
    # An hpc_ckpt_*.ckpt of a preempted SLURM job, or an OnExceptionCheckpoint, would be loaded into every later fit
    # and predict: all rounds would train 0 epochs with an old round's weights. The run folder resumes rounds.
    connector = trainer._checkpoint_connector
    select = connector._select_ckpt_path

    def only_if_asked(state_fn: Any, ckpt_path: Any, **kwargs: Any) -> Any:
        return select(state_fn, ckpt_path, **kwargs) if ckpt_path is not None else None

    connector._select_ckpt_path = only_if_asked  # type: ignore[method-assign, assignment]


def hand_back(
    trainer: L.Trainer, model: L.LightningModule, last: L.Trainer | None, metrics: Mapping[str, Tensor]
) -> None:
    """Have the user's Trainer hold what a fit of its last copy has left: metrics, the step of its loggers, the module.

    It has not run all the same, and can be fitted: a copy of it trains as one before did.

    Args:
        trainer: the user's.
        model: what it is connected to from here on: ``trainer.test(datamodule=...)`` knows it.
        last: the copy; None if there was no fit.
        metrics: where there was none.
    """
    _put_metrics(trainer, (metrics, metrics, metrics) if last is None else _metrics(last))
    if last is not None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = steps_logged(last)
    trainer.strategy._lightning_module = getattr(model, "_orig_mod", model)
    if trainer in _users:
        _users[trainer].note_left()


def _metrics(trainer: L.Trainer) -> tuple[Mapping[str, Any], ...]:
    return dict(trainer.callback_metrics), dict(trainer.logged_metrics), dict(trainer.progress_bar_metrics)


def _put_metrics(trainer: L.Trainer, metrics: tuple[Mapping[str, Any], ...]) -> None:
    connector = trainer._logger_connector
    own: list[Any] = [connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics]
    for mine, values in zip(own, metrics, strict=True):
        mine.clear()
        mine.update(values)


def abort_fit(trainer: L.Trainer) -> None:
    """End the running fit now; ``min_epochs`` and ``min_steps`` would otherwise keep it alive."""
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None
    trainer.should_stop = True


@contextmanager
def borrowed_for_scoring(trainer: L.Trainer, model: L.LightningModule) -> Iterator[None]:
    """Set aside what would change which records are predicted, or what happens to them; put everything back after.

    The user's callbacks go (prediction writers would fire), progress bars stay; batch limits and Lightning's own
    distributed sampler go, because ids are dealt out by us. Lightning's warning goes that the ``dataloader_iter`` of
    a predict_step is experimental: this module is where its inside is known.
    """
    _disarm_automatic_resume(trainer)
    accelerator = trainer._accelerator_connector
    kept = trainer.callbacks, trainer.limit_predict_batches, accelerator.use_distributed_sampler  # type: ignore[attr-defined]
    stage = trainer.state.fn, trainer.state.stage, trainer.state.status
    metrics = _metrics(trainer)  # predict() resets them
    trainer.callbacks = [c for c in kept[0] if isinstance(c, ProgressBar)]  # type: ignore[attr-defined]
    trainer.limit_predict_batches, accelerator.use_distributed_sampler = 1.0, False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*`dataloader_iter`")
            yield
    finally:
        trainer.callbacks, trainer.limit_predict_batches, accelerator.use_distributed_sampler = kept  # type: ignore[attr-defined]
        trainer.state.fn, trainer.state.stage, trainer.state.status = stage
        _put_metrics(trainer, metrics)
        trainer.strategy._lightning_module = getattr(model, "_orig_mod", model)
        model.trainer = trainer
