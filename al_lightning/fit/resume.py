"""A fit that is interrupted goes on from its last finished epoch: how it stands is kept beside the run's steps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import lightning.pytorch as L
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from al_lightning.cost.ledger import since
from al_lightning.fit.fit_file import FitFile, begins_again, in_one_line
from al_lightning.fit.meter import Meter
from al_lightning.fit.plan import load, snapshot
from al_lightning.fit.state import State, made_of, own_state, put_callbacks, put_own, put_shared, shared_state

if TYPE_CHECKING:
    pass

SAVE_SECONDS = 5.0
"""A fit is not kept more often than that: epochs that take milliseconds are not worth a file each."""
SHARE = 0.05
"""Of a fit's time, what keeping it may take, at most."""
T = TypeVar("T")


@runtime_checkable
class Resumable(Protocol):
    """A part of a fit with state of its own, which Lightning does not keep."""

    def fit_state(self) -> State:
        """Return how it stands between two epochs, as tensors and plain values."""

    def load_fit_state(self, state: State) -> None:
        """Stand so again; called before and after ``on_train_start``, since some begin and some act there."""


class CannotGoOn(Exception):
    """Hold what was kept of a fit does not fit it."""


class FitResume(Callback):
    """Keep how a fit stands as its epochs start, and put one that was interrupted back there.

    It has to be the first of the callbacks: the state of all others is taken and put between two epochs.

    Args:
        file: where it is kept.
        meter: what the fit has cost so far.
        parts: of the fit, whose state is kept where they have some.
        kept: what :meth:`FitFile.read` found.
        best: path of the best weights so far, or nothing.

    Raises:
        CannotGoOn: what was kept does not fit, or has lost a file it needs.
    """

    def __init__(
        self,
        file: FitFile,
        meter: Meter,
        parts: Iterable[Any],
        kept: State | None,
        best: Callable[[L.Trainer], str],
    ) -> None:
        self._file, self._meter, self._kept, self._best = file, meter, kept, best
        self._parts = {type(part).__name__: part for part in parts if isinstance(part, Resumable)}
        self._able, self._least, self._last = True, 0.0, time.perf_counter()
        self._made_of: list[str] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._made_of = made_of(trainer)
        if self._kept is not None:
            different = set(self._made_of) ^ set(self._kept["made_of"])
            if different:
                raise CannotGoOn(f"its Trainer, optimiser or callbacks have changed: {', '.join(sorted(different))}")
            with _putting():
                _check_paths(trainer, self._kept)
                put_callbacks(trainer, self._kept["shared"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = time.perf_counter()
        if self._kept is not None:
            with _putting():
                self._put_parts(trainer, self._kept)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._kept is not None:
            self._go_on(trainer, self._kept)
            self._kept = None
        elif self._able and trainer.current_epoch > 0 and self._due():
            self._keep(trainer)

    def _put_parts(self, trainer: L.Trainer, kept: State) -> None:
        states = kept["ranks"][self._file.files.ranks.rank]["parts"]
        for name, part in self._parts.items():
            part.load_fit_state(move_data_to_device(states[name], trainer.strategy.root_device))

    def _go_on(self, trainer: L.Trainer, kept: State) -> None:
        with _putting():
            self._file.put_best(kept)
            put_shared(trainer, kept["shared"])
            self._put_parts(trainer, kept)
            put_own(trainer, kept["ranks"][self._file.files.ranks.rank]["own"])
        self._file.take_over(kept)
        kept.clear()  # the memory; whoever began the fit still holds it
        rank_zero_info(f"An interrupted fit goes on after {trainer.current_epoch} epochs.")

    def _due(self) -> bool:
        return bool(self._file.files.ranks.broadcast(since(self._last) >= max(SAVE_SECONDS, self._least)))

    def _keep(self, trainer: L.Trainer) -> None:
        began, ranks = time.perf_counter(), self._file.files.ranks
        spent = self._meter.tell(trainer)  # first, so that what is noted is never less than what is kept
        problem = None
        try:
            shared = shared_state(trainer)
            own = {"own": own_state(trainer), "parts": {name: p.fit_state() for name, p in self._parts.items()}}
            if ranks.world > 1:  # they travel
                own = move_data_to_device(own, "cpu")
        except Exception as error:
            problem = in_one_line(error)
        problem = next(filter(None, ranks.gather(problem)), None)
        if problem is None:
            state = {"made_of": self._made_of, "spent": spent, "shared": shared, "ranks": ranks.gather(own)}
            problem = self._file.write(state, epoch=trainer.current_epoch, best=self._best(trainer))
        self._last, self._able = time.perf_counter(), problem is None
        self._least = (self._last - began) / SHARE
        if problem is not None and ranks.rank == 0:
            warnings.warn(f"this fit begins again if it is interrupted: {problem}.", stacklevel=2)


def _check_paths(trainer: L.Trainer, kept: State) -> None:
    """Raise unless every checkpoint that is named is in its callback's folder: files are written and removed there."""
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    states = kept["shared"]["checkpoint"].get("callbacks", {})
    named = [kept["best"][0]]
    for state in (states.get(c.state_key, {}) for c in callbacks):
        named += [state.get(f"{which}_model_path") for which in ("best", "last")]
        named += [state.get("kth_best_model_path"), *state.get("best_k_models", {})]
    folders = [Path(c.dirpath) for c in callbacks if c.dirpath]
    for path in filter(None, named):
        if ".." in Path(path).parts or not any(Path(path).is_relative_to(folder) for folder in folders):
            raise ValueError(f"it names the checkpoint {path}, which is in no ModelCheckpoint's folder")


@contextmanager
def _putting() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CannotGoOn(in_one_line(error)) from error


def going_on(file: FitFile, model: L.LightningModule, fit: Callable[[State | None], T]) -> T:
    """Do a fit from where it was interrupted; from its beginning, if it was not, or cannot go on.

    Args:
        file: where it is kept.
        model: has the weights it starts from.
        fit: does it, given what was kept.
    """
    kept = file.read()
    if kept is None:
        return fit(None)
    start = snapshot(model)
    try:
        with warnings.catch_warnings():
            # What is in a ModelCheckpoint's folder is of this fit.
            warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
            return fit(kept)
    except CannotGoOn as error:
        if file.files.ranks.rank == 0:
            begins_again(str(error))
    load(model, start)
    return fit(None)
