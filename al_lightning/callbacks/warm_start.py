"""WarmStart: where each round's weights come from, and how long they train."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from al_lightning.callbacks.base import Memory, RoundCallback, stalled
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.errors import ActiveLearningError
from al_lightning.fit.plan import FitPlan, Length, Served, Start, Weights, frozen, load, records_of, snapshot
from al_lightning.fit.shape import KeepMoments, Moments, shaping
from al_lightning.fit.start import apply_start
from al_lightning.fit.trainer import resumes, set_epochs
from al_lightning.history import History, Reason, RoundRecord
from al_lightning.moved import moved
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.fingerprint import digest
from al_lightning.seeds import number

Mode = Literal["reset", "keep", "shrink_perturb", "resume"]
AVERAGED = 0.85
"""Share of a stable round's steps whose weights are averaged: all but the first ones, which still move away."""
_START: dict[str, Start] = {
    "reset": "initial",
    "keep": "previous",
    "shrink_perturb": "shrink_perturb",
    "resume": "previous",
}
_SAID = {
    "initial": "the initial weights",
    "previous": "the weights it has",
    "shrink_perturb": "the weights it has, shrunk and perturbed",
    "fire": "the weights it has, brought to the nearest isometries",
    "dash": "the weights it has, shrunk where the gradient leads away from them",
    "checkpoint": "the checkpoint's weights",
}


@dataclass
class Weighed(Memory):
    """Hold what WarmStart remembers of a module's fits.

    Args:
        initial: weights before the first of them.
        moments: what the last one left of its optimisers.
        fits: how many, those left out that StallDetection aborted.
        labelled: records of the pool that had a label in the last one.
        start: weights this fit begins with, kept while StallDetection may abort it.
        aborted: fingerprint of the weights an aborted fit has left.
    """

    initial: Weights = field(default_factory=dict)
    moments: Moments | None = None
    fits: int = 0
    labelled: int = 0
    start: Weights = field(default_factory=dict)
    aborted: str | None = None


@moved(
    distill="al_lightning.contrib.Replay(distill=...)",
    gate="al_lightning.contrib.Gated(mode, gate=...)",
    max_new="al_lightning.contrib.Gated(mode, max_new=...)",
    perturb="al_lightning.contrib.ShrinkPerturb(perturb=...)",
    replay="al_lightning.contrib.Replay(replay=...)",
    shrink="al_lightning.contrib.ShrinkPerturb(shrink=...)",
    thaw="al_lightning.contrib.Thaw(mode, thaw=...)",
)
@dataclass(eq=False)
class WarmStart(RoundCallback):
    """Reuse weights between rounds, or not: a fit policy.

    ``ActiveLearner(fit=WarmStart(...))`` carries out its plans. In a hand-written loop (examples/plain_loop.py) the
    callback does, on every Trainer that has it; the first fit of a module takes the weights as they are, and ``reason``
    says what was done. A fit that StallDetection aborted is not counted: the next one begins as it did, or from weights
    that the loop has drawn anew. Checkpoints hold what it remembers, with the initial weights if the mode needs them.

    Args:
        mode: ``reset`` to the initial weights (pretrained ones included) and train on everything labelled; ``keep``
            the previous round's weights; ``shrink_perturb`` them (Ash & Adams, 2020); ``resume`` on the new labels
            with as many old ones (continual active learning, Das et al., 2023). No default: plain warm starting costs
            accuracy on some models, resetting costs compute on all. Others are in :mod:`al_lightning.contrib`.
        epochs: epochs of a round that starts warm: a number (int), a share of the Trainer's own (float), or None for
            the Trainer's own. A share that does not come to whole epochs is rounded up to them, and each goes over
            the new labels and as many old ones as make up the share.
        first_epochs: epochs of a round that starts cold, likewise.
        stable: whether fits from warm weights are one long training in parts: they stay at the peak of the user's
            learning-rate schedule, go on with the optimiser's state, and keep the average of the weights they went
            through, which takes the place of the schedule's descent (Izmailov et al., 2018; Hägele et al., 2024).
            Without it every fit runs through the whole schedule with a new optimiser.
        freeze: prefixes of parameter names that do not train once weights are warm.
        cached: whether the frozen part, one submodule that takes one input and returns one tensor, runs once a record:
            its activations are kept in the run folder, and rounds train the rest and score candidates from them until
            that part trains again. The frozen part is in eval mode, cached or not: dropout in it is off and the
            statistics of its BatchNorm stay. Records must be the same in training as in scoring, so nothing augments
            them. Whether ``training_step`` does the same from activations is tried out first; if not, the part runs in
            every pass, and a warning says why.
        final: weights the consolidating fit at the end starts from, ``"initial"`` or ``"previous"``; None delivers
            the last round's model.
        final_epochs: epochs of the consolidating fit, likewise.
        final_average: share of the consolidating fit's steps, its last, whose weights are averaged where it is
            ``stable``, ``0 < share <= 1``; less where it is short or the model has BatchNorm. None: all but the first
            where it starts warm; where it starts from ``"initial"`` weights, it runs through the whole schedule.
        rho: what the run may spend in all, as rho: the consolidating fit trains for what is left of it, up to the whole
            recipe, and for ``final_epochs`` at least, its own validation included. Fits validate as the Trainer says
            as long as there is room for the shortest final fit, then at their end alone, at last on some of the
            batches; less than the rounds and the shortest final fit come to is refused before a label is bought. None,
            or where rho is not known: ``final_epochs``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> warm = WarmStart("keep", epochs=0.12, first_epochs=0.36, stable=True)
        >>> warm.plan(History(pool_size=1000, unlabelled=900, labelled=100)).start
        'initial'
    """

    mode: Mode
    epochs: int | float | None = None
    first_epochs: int | float | None = None
    stable: bool = False
    freeze: tuple[str, ...] = ()
    cached: bool = False
    final: Literal["initial", "previous"] | None = None
    final_epochs: int | float | None = None
    final_average: float | None = None
    rho: float | None = None

    memory_type: ClassVar[type[Memory]] = Weighed
    of_weights: ClassVar[bool] = True

    _shaping: list[Callback] = field(default_factory=list, init=False, repr=False)
    _frozen: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    def __post_init__(self) -> None:
        self.freeze = tuple(self.freeze)
        if self.mode not in _START:
            where = {"fire": "Fire(...)", "dash": "Dash(...)"}.get(self.mode)
            there = "" if where is None else f" It has moved: al_lightning.contrib.{where}."
            raise ValueError(f"WarmStart(mode={self.mode!r}): allowed are {', '.join(_START)}.{there}")
        for name in ("epochs", "first_epochs", "final_epochs"):
            value = getattr(self, name)
            if value is None or (isinstance(value, float) and 0 < value <= 1):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"WarmStart({name}={value!r}): allowed are a number of epochs (int, 1 or more), a share of the "
                    "Trainer's own (float, 0 < share <= 1), or None for the Trainer's own."
                )
        if self.cached and not (len(self.freeze) == 1 and self.mode in ("keep", "resume")):
            raise ValueError(
                f"WarmStart(cached=True) keeps activations of the one part that freeze= names, got {self.freeze!r}, "
                f"under mode='keep' or 'resume', got {self.mode!r}."
            )
        if self.final not in (None, "initial", "previous"):
            raise ValueError(f"WarmStart(final={self.final!r}): allowed are 'initial', 'previous' and None.")
        if self.final_average is not None and not 0 < self.final_average <= 1:
            raise ValueError(
                f"WarmStart(final_average={self.final_average}): a share of the fit's steps, allowed: "
                "0 < final_average <= 1, or None."
            )
        if self.rho is not None and not (self.rho > 0 and self.final and isinstance(self.final_epochs, float)):
            raise ValueError(
                f"WarmStart(rho={self.rho}): a number above 0; it lengthens the consolidating fit, so it needs final= "
                "and, as the shortest it may be, final_epochs= as a share (float) of the Trainer's own."
            )

    def plan(self, history: History) -> FitPlan:
        """The plan of the next round's fit; a pure function of the history."""
        if not self._starts_warm(history):
            return FitPlan(start="initial", epochs=self.first_epochs, moments=self.stable)
        return self._warm(history)

    def _starts_warm(self, history: History) -> bool:
        return bool(history.rounds) and self.mode != "reset"

    def _warm(self, history: History) -> FitPlan:
        """Plan a fit from warm weights."""
        return FitPlan(
            start=_START[self.mode],
            epochs=self.epochs,
            **self._shape(AVERAGED if _START[self.mode] == "previous" else None),
            replay=1.0 if self.mode == "resume" else None,
            freeze=self.freeze,
            cached=self.cached,
        )

    @property
    def _returns(self) -> bool:
        """Return whether a later fit goes back to the initial weights."""
        return self.mode in ("reset", "shrink_perturb")

    def final_plan(self, history: History) -> FitPlan | None:
        """The plan of the consolidating fit on all labels, nothing frozen."""
        if self.final is None:
            return None
        epochs, spent = self.final_epochs, history.bill.undisturbed.rho
        if self.rho is not None and isinstance(epochs, float) and spent is not None:
            epochs = min(1.0, max(epochs, self.rho - spent))
        average = AVERAGED if self.final_average is None and self.final == "previous" else self.final_average
        return FitPlan(start=self.final, epochs=epochs, final=True, **self._shape(average))

    def _shape(self, average: float | None) -> dict[str, Any]:
        return {"rate": "peak", "average": average, "moments": True} if self.stable and average is not None else {}

    # ---- in a hand-written loop, the callback carries out its own plan -------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Plan this round, set its epochs, hand the pool the ids to replay."""
        if stage == "fit":
            self._check(trainer)
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        memory = self._memory
        if memory.aborted is not None and memory.aborted != digest(pl_module.state_dict()):  # drawn anew since
            vars(memory).update(vars(Weighed()))
        self._own_epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        # Here and not later: schedulers ask for the number of batches before on_fit_start.
        self._prepare(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        """Raise what a hand-written loop cannot do, before its first fit."""
        if self.cached:
            raise ActiveLearningError(
                "WarmStart(cached=True) keeps activations in a run folder, which a hand-written loop does not have: "
                "use ActiveLearner(fit=WarmStart(...)), or cached=False."
            )
        if self.mode == "resume":
            self._check_pool(trainer, f"{type(self).__name__}('resume')")

    def _check_pool(self, trainer: L.Trainer, who: str) -> None:
        if not isinstance(trainer.datamodule, PoolDataModule):  # type: ignore[attr-defined]
            raise ActiveLearningError(
                f"{who} has to know which labels are new, and loaders do not say: fit(model, "
                "datamodule=PoolDataModule(...)), or another policy."
            )

    def _prepare(self, trainer: L.Trainer) -> None:
        """Plan the fit, and put on the Trainer and the pool what the plan asks for."""
        memory, pool = self._memory, trainer.datamodule  # type: ignore[attr-defined]
        labelled = pool.labelled if isinstance(pool, PoolDataModule) else np.zeros(0, np.int64)
        new = len(labelled) - memory.labelled
        self._plan = self.plan(self._own_history(len(labelled)))
        for epochs in (self.first_epochs, self.epochs, self._plan.epochs):  # those of later fits are refused now, too
            plan = replace(self._plan, epochs=epochs)
            length = Length.of(plan, recipe=self._own_epochs, labelled=len(labelled), new=new)
        epochs = self._own_epochs if length.epochs is None else length.epochs
        if epochs is not None:
            set_epochs(trainer, epochs)
        served = Served()
        if isinstance(pool, PoolDataModule):
            served = records_of(
                self._plan, length, labelled=labelled, new=new, batch=pool.batch_size or 1, seed=0, round=memory.fits
            )
            pool.train_ids, pool.train_sampler = served
        others = [c for c in trainer.callbacks if c not in self._shaping]  # type: ignore[attr-defined]
        self._shaping = shaping(self._plan, served, new=new, moments=memory.moments)
        # On this round's copy of the Trainer only, and a new list: Lightning is running through the old one.
        trainer.callbacks = [*self._shaping, *others]  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """Return how many fits there were and, where a later one goes back to them, the initial weights."""
        found = super().state_dict()
        left_out = {"start", "aborted", *(() if self._returns else ("initial",))}
        return {name: value for name, value in found.items() if name not in left_out}

    def _resumed(self, trainer: L.Trainer) -> None:
        self._prepare(trainer)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the module its start weights and freeze what is frozen.

        Raises:
            ActiveLearningError: a fit that resumes from a checkpoint, where what shapes it has begun before that.
        """
        super().on_fit_start(trainer, pl_module)
        memory, resumed = self._memory, resumes(trainer)
        if resumed and self._shaping:
            raise ActiveLearningError(
                f"{type(self).__name__}(mode={self.mode!r}) with stable=, distillation or DASH shapes a fit from "
                "its first step on, and fit(ckpt_path=...) begins in the middle: ActiveLearner goes on with it; by "
                "hand, begin it anew without ckpt_path=."
            )
        if not memory.fits and not memory.initial:
            memory.initial = snapshot(pl_module)
        elif memory.aborted is not None and not resumed:
            load(pl_module, memory.start)
        elif not resumed:
            apply_start(pl_module, self._plan, initial=memory.initial, seed=number(0, memory.fits, "start"))
        if any(isinstance(callback, StallDetection) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            memory.start = snapshot(pl_module)
        self._frozen.enter_context(frozen(pl_module, self._plan.freeze))
        self._decided(self._started(trainer, "checkpoint" if resumed else self._plan.start))

    def _started(self, trainer: L.Trainer, start: str) -> Reason:
        memory = self._memory
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        sentence = (
            f"fit {memory.fits + 1} of this model starts from {_SAID[start]}, for "
            f"{'as long as the Trainer says' if epochs is None else f'{epochs} epoch' + 's' * (epochs > 1)}"
        )
        return Reason("start", sentence, {"start": start, "mode": self.mode, "fit": memory.fits + 1, "epochs": epochs})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the fit, unless it was aborted; one that looks for a learning rate does not come here."""
        memory, pool = self._memory, trainer.datamodule  # type: ignore[attr-defined]
        if stalled(trainer):
            memory.aborted = digest(pl_module.state_dict())
            return
        memory.start, memory.aborted, memory.fits = {}, None, memory.fits + 1
        memory.moments = next((part.kept for part in self._shaping if isinstance(part, KeepMoments)), None)
        if isinstance(pool, PoolDataModule):
            memory.labelled = len(pool.labelled)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Undo what was only for the fit."""
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._undo(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Undo what was only for this fit; Lightning does not tear down after an exception."""
        super().on_exception(trainer, pl_module, exception)
        self._undo(trainer)

    def _undo(self, trainer: L.Trainer) -> None:
        self._frozen.close()
        trainer.callbacks = [c for c in trainer.callbacks if c not in self._shaping]  # type: ignore[attr-defined]
        pool: Any = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(pool, PoolDataModule):
            pool.train_ids = pool.train_sampler = None

    def _own_history(self, labelled: int) -> History:
        memory = self._memory
        past = tuple(RoundRecord(round=i + 1, labelled=memory.labelled, queried=0) for i in range(memory.fits))
        return History(rounds=past, pool_size=0, unlabelled=0, labelled=labelled)
