"""WarmStart: where each round's weights come from, and how long they train."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from al_lightning.callbacks.base import RoundCallback
from al_lightning.errors import ActiveLearningError
from al_lightning.fit_plan import FitPlan, Length, Served, Start, Weights, frozen, records_of, snapshot
from al_lightning.fit_shape import KeepMoments, Moments, shaping
from al_lightning.fit_start import apply_start
from al_lightning.history import History
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.rounds import set_epochs
from al_lightning.seeds import number

Mode = Literal["reset", "keep", "shrink_perturb", "resume", "fire", "dash"]
AVERAGED = 0.85
"""Share of a stable round's steps whose weights are averaged: all but the first ones, which still move away."""
_START: dict[str, Start] = {
    "reset": "initial",
    "keep": "previous",
    "shrink_perturb": "shrink_perturb",
    "resume": "previous",
    "fire": "fire",
    "dash": "dash",
}


def few_new(history: History, max_new: float | None) -> bool:
    """Whether no more than this share of the labels is new since the last fit; None: always."""
    return max_new is None or history.labelled - history.rounds[-1].labelled <= max_new * history.labelled


def is_stable(history: History, gate: float | None) -> bool:
    """Whether warm starting may begin: no gate, or agreement between two rounds has reached it once."""
    return gate is None or any(r.agreement is not None and r.agreement >= gate for r in history.rounds)


@dataclass(eq=False)
class WarmStart(RoundCallback):
    """A fit policy: reuse weights between rounds, or not.

    Args:
        mode: ``reset`` to the initial weights (pretrained ones included) and train on everything labelled; ``keep``
            the previous round's weights; ``shrink_perturb`` them (Ash & Adams, 2020); ``resume`` on the new labels
            with ``replay`` times as many old ones (continual active learning, Das et al., 2023); ``fire`` gives every
            layer the nearest isometry (Han et al., 2026), ``dash`` shrinks weights by how far they point where the
            gradient would take them (Shin et al., 2024). No default: plain warm starting costs accuracy on some
            models, resetting costs compute on all.
        epochs: epochs of a round that starts warm: a number (int), a share of the Trainer's own (float), or None for
            the Trainer's own. A share that does not come to whole epochs is rounded up to them, and each goes over
            the new labels and as many old ones as make up the share.
        first_epochs: epochs of a round that starts cold, likewise.
        stable: whether fits from warm weights are one long training in parts: they stay at the peak of the user's
            learning-rate schedule, go on with the optimiser's state, and keep the average of the weights they went
            through, which takes the place of the schedule's descent (Izmailov et al., 2018; Hägele et al., 2024).
            Without it every fit runs through the whole schedule with a new optimiser.
        replay: old records per new one under ``resume``.
        distill: weight of the divergence from the previous round's predictions on old records, under ``resume``; for
            classification, on one process. None: the loss is the user's alone.
        freeze: prefixes of parameter names that do not train once weights are warm.
        cached: whether the frozen part, one submodule that takes one input and returns one tensor, runs once a record:
            its activations are kept in the run folder, and rounds train the rest and score candidates from them until
            that part trains again. The frozen part is in eval mode, cached or not: dropout in it is off and the
            statistics of its BatchNorm stay. Records must be the same in training as in scoring, so nothing augments
            them. Whether ``training_step`` does the same from activations is tried out first; if not, the part runs in
            every pass, and a warning says why.
        thaw: every so many rounds everything trains all the same; None: never before the consolidating fit.
        shrink: factor of the previous weights under ``shrink_perturb``.
        perturb: factor of fresh weights under ``shrink_perturb``.
        gate: agreement (Cohen's kappa on the stop set, 0 to 1) between two rounds that must be reached once before
            any round starts warm; needs ``ActiveLearner(stop_set=...)``. None: warm from the second round.
        max_new: share of the labels, between 0 and 1, that may be new where a round starts warm; a round with more new
            ones starts cold. None: however many.
        final: weights the consolidating fit at the end starts from, ``"initial"`` or ``"previous"``; None delivers
            the last round's model.
        final_epochs: epochs of the consolidating fit, likewise.
        final_average: share of the consolidating fit's steps, its last, whose weights are averaged where it is
            ``stable``, ``0 < share <= 1``; less where it is short or the model has BatchNorm. None: all but the first
            where it starts warm; where it starts from ``"initial"`` weights, it runs through the whole schedule.
        rho: what the run may spend in all, as rho: the consolidating fit trains for what is left of it, up to the whole
            recipe, and for ``final_epochs`` at least. None, or where rho is not known: ``final_epochs``. Validation
            within that fit comes on top.

    Raises:
        ValueError: a value out of range.
    """

    mode: Mode
    epochs: int | float | None = None
    first_epochs: int | float | None = None
    stable: bool = False
    replay: float = 1.0
    distill: float | None = None
    freeze: tuple[str, ...] = ()
    cached: bool = False
    thaw: int | None = None
    shrink: float = 0.4
    perturb: float = 0.1
    gate: float | None = None
    max_new: float | None = None
    final: Literal["initial", "previous"] | None = None
    final_epochs: int | float | None = None
    final_average: float | None = None
    rho: float | None = None

    _initial: Weights = field(default_factory=dict, init=False, repr=False)
    _shaping: list[Callback] = field(default_factory=list, init=False, repr=False)
    _moments: Moments | None = field(default=None, init=False, repr=False)
    _fits: int = field(default=0, init=False, repr=False)
    _labelled: int = field(default=0, init=False, repr=False)
    _frozen: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    def __post_init__(self) -> None:
        self.freeze = tuple(self.freeze)
        if self.mode not in _START:
            raise ValueError(f"WarmStart(mode={self.mode!r}): allowed are {', '.join(_START)}.")
        for name in ("epochs", "first_epochs", "final_epochs"):
            value = getattr(self, name)
            if value is None or (isinstance(value, float) and 0 < value <= 1):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"WarmStart({name}={value!r}): allowed are a number of epochs (int, 1 or more), a share of the "
                    "Trainer's own (float, 0 < share <= 1), or None for the Trainer's own."
                )
        if self.replay < 0:
            raise ValueError(f"WarmStart(replay={self.replay}): old records per new one, 0 or more.")
        for name in ("shrink", "perturb"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"WarmStart({name}={getattr(self, name)}): a factor of weights, allowed: 0 or more.")
        if self.distill is not None and not (self.distill > 0 and self.mode == "resume" and self.replay > 0):
            raise ValueError(
                f"WarmStart(distill={self.distill}): a number above 0; it looks at replayed records, so it needs "
                "mode='resume' and replay= above 0."
            )
        if self.cached and not (len(self.freeze) == 1 and self.mode in ("keep", "resume") and self.distill is None):
            raise ValueError(
                f"WarmStart(cached=True) keeps activations of the one part that freeze= names, got {self.freeze!r}, "
                f"under mode='keep' or 'resume', got {self.mode!r}, without distill=."
            )
        if self.thaw is not None and not (self.thaw >= 2 and self.freeze):
            raise ValueError(f"WarmStart(thaw={self.thaw}): a number of rounds, 2 or more, with freeze=.")
        if self.gate is not None and not 0 < self.gate <= 1:
            raise ValueError(f"WarmStart(gate={self.gate}): an agreement, allowed: 0 < gate <= 1, or None.")
        if self.max_new is not None and not 0 < self.max_new < 1:
            raise ValueError(f"WarmStart(max_new={self.max_new}): a share of the labels, 0 < max_new < 1, or None.")
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
        warm = bool(history.rounds) and self.mode != "reset"
        if not (warm and is_stable(history, self.gate) and few_new(history, self.max_new)):
            return FitPlan(start="initial", epochs=self.first_epochs, moments=self.stable)
        thawed = self.thaw is not None and len(history.rounds) % self.thaw == 0
        return FitPlan(
            start=_START[self.mode],
            epochs=self.epochs,
            **self._shape(AVERAGED if _START[self.mode] == "previous" else None),
            replay=self.replay if self.mode == "resume" else None,
            distill=self.distill,
            freeze=() if thawed else self.freeze,
            cached=self.cached and not thawed,
            shrink=self.shrink,
            perturb=self.perturb,
        )

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
        if stage != "fit":
            return
        if self.gate is not None:
            raise ActiveLearningError(
                f"WarmStart(gate={self.gate}) needs agreement on a stop set, which a hand-written loop does not "
                "measure: use ActiveLearner(fit=WarmStart(...), stop_set=...), or gate=None."
            )
        if self.cached:
            raise ActiveLearningError(
                "WarmStart(cached=True) keeps activations in a run folder, which a hand-written loop does not have: "
                "use ActiveLearner(fit=WarmStart(...)), or cached=False."
            )
        if self.new_loop(trainer):
            self._initial, self._fits, self._labelled, self._moments = {}, 0, 0, None
        pool: Any = trainer.datamodule  # type: ignore[attr-defined]
        labelled = pool.labelled if isinstance(pool, PoolDataModule) else ()
        self._plan = self.plan(self._own_history(len(labelled)))
        new = len(labelled) - self._labelled
        own = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        length = Length.of(self._plan, recipe=own, labelled=len(labelled), new=new)
        if length.epochs is not None:
            set_epochs(trainer, length.epochs)
        # Here and not later: schedulers ask for the number of batches before on_fit_start.
        if not isinstance(pool, PoolDataModule):
            if self._plan.replay is not None or self._plan.start == "dash" or self.max_new is not None:
                raise ActiveLearningError(f"WarmStart({self.mode!r}) needs fit(model, datamodule=PoolDataModule(...)).")
            served = Served()
        else:
            batch = pool.batch_size or 1
            served = records_of(
                self._plan, length, labelled=pool.labelled, new=new, batch=batch, seed=0, round=self._fits
            )
            pool.train_ids, pool.train_sampler = served
        self._shaping = shaping(self._plan, served, new=new, moments=self._moments)
        # On this round's copy of the Trainer only, and a new list: Lightning is running through the old one.
        trainer.callbacks = [*self._shaping, *trainer.callbacks]  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the module its start weights and freeze what is frozen."""
        if not self._initial:
            self._initial = snapshot(pl_module)
        else:
            apply_start(pl_module, self._plan, initial=self._initial, seed=number(0, self._fits, "start"))
        self._frozen.enter_context(frozen(pl_module, self._plan.freeze))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Count the fit and undo what was only for it."""
        if stage == "fit":
            self._undo(trainer)
            self._moments = next((part.kept for part in self._shaping if isinstance(part, KeepMoments)), None)
            pool: Any = trainer.datamodule  # type: ignore[attr-defined]
            if isinstance(pool, PoolDataModule):
                self._labelled = len(pool.labelled)
            self._fits += 1

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Undo what was only for this fit; Lightning does not tear down after an exception."""
        self._undo(trainer)

    def _undo(self, trainer: L.Trainer) -> None:
        self._frozen.close()
        trainer.callbacks = [c for c in trainer.callbacks if c not in self._shaping]  # type: ignore[attr-defined]
        pool: Any = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(pool, PoolDataModule):
            pool.train_ids = pool.train_sampler = None

    def _own_history(self, labelled: int) -> History:
        from al_lightning.history import RoundRecord

        past = tuple(RoundRecord(round=i + 1, labelled=self._labelled, queried=0) for i in range(self._fits))
        return History(rounds=past, pool_size=0, unlabelled=0, labelled=labelled)
