"""Fit policies that were measured and do not pay beside ``WarmStart("keep", stable=True)``: docs/cards/warm_start.md.

Each is a WarmStart with one thing more, in ``ActiveLearner(fit=...)`` and on a Trainer of a hand-written loop alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import lightning.pytorch as L

from al_lightning.callbacks.warm_start import Mode, WarmStart
from al_lightning.errors import ActiveLearningError
from al_lightning.fit.plan import FitPlan, Start
from al_lightning.history import History


@dataclass(eq=False)
class _FromStart(WarmStart):
    """Start warm rounds from weights that are changed before the fit."""

    mode: Mode = field(default="keep", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cached:
            name = type(self).__name__
            raise ValueError(f"{name}(cached=True): every fit changes what activations would be kept of: leave it out.")

    def _start(self) -> Start:
        raise NotImplementedError

    def _warm(self, history: History) -> FitPlan:
        plan = super()._warm(history)
        return replace(plan, start=self._start(), rate="schedule", average=0.0, moments=False)


@dataclass(eq=False)
class Fire(_FromStart):
    """Start every warm round from the nearest isometry of each layer (Han et al., 2026).

    Example:
        >>> Fire(epochs=4).plan(History(pool_size=9, unlabelled=9)).start
        'initial'
    """

    def _start(self) -> Start:
        return "fire"


@dataclass(eq=False)
class Dash(_FromStart):
    """Shrink weights by how far they point where the gradient would take them (Shin et al., 2024).

    It costs one pass over all labelled records before every warm fit.

    Example:
        >>> Dash(epochs=4).plan(History(pool_size=9, unlabelled=9)).start
        'initial'
    """

    def _start(self) -> Start:
        return "dash"

    def _check(self, trainer: L.Trainer) -> None:
        super()._check(trainer)
        self._check_pool(trainer, "Dash()")


@dataclass(eq=False)
class ShrinkPerturb(WarmStart):
    """Shrink and perturb weights by factors of your own (Ash & Adams, 2020).

    Args:
        shrink: factor of the previous weights.
        perturb: factor of fresh weights.

    Example:
        >>> ShrinkPerturb(shrink=0.5, perturb=0.2).plan(History(pool_size=9, unlabelled=9)).start
        'initial'
    """

    mode: Mode = field(default="shrink_perturb", init=False)
    shrink: float = 0.4
    perturb: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shrink", "perturb"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"ShrinkPerturb({name}={value}): a factor of weights, allowed: 0 or more.")

    def _warm(self, history: History) -> FitPlan:
        return replace(super()._warm(history), shrink=self.shrink, perturb=self.perturb)


@dataclass(eq=False)
class Replay(WarmStart):
    """Train warm rounds on the new labels and some old ones, held near what the previous model said of those.

    Source: Das et al., "Accelerating batch active learning using continual learning techniques", TMLR 2023.

    Args:
        replay: old records per new one, 0 or more.
        distill: weight of the divergence from the previous round's predictions on old records; for classification, on
            one process. None: the loss is the user's alone.

    Example:
        >>> Replay(replay=2.0, epochs=4, final="initial").plan(History(pool_size=9, unlabelled=9)).start
        'initial'
    """

    mode: Mode = field(default="resume", init=False)
    replay: float = 1.0
    distill: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay < 0:
            raise ValueError(f"Replay(replay={self.replay}): old records per new one, 0 or more.")
        if self.distill is not None and not (self.distill > 0 and self.replay > 0):
            raise ValueError(
                f"Replay(distill={self.distill}): a number above 0; it looks at replayed records, so it needs replay= "
                "above 0."
            )
        if self.cached and self.distill is not None:
            raise ValueError("Replay(cached=True) keeps activations, and distill= asks about records: leave one out.")

    def _warm(self, history: History) -> FitPlan:
        return replace(super()._warm(history), replay=self.replay, distill=self.distill)


@dataclass(eq=False)
class Thaw(WarmStart):
    """Train everything in every so many rounds, where the other rounds keep a part frozen.

    Args:
        thaw: every so many rounds, 2 or more.

    Example:
        >>> Thaw("keep", freeze=("trunk",), thaw=3).plan(History(pool_size=9, unlabelled=9)).freeze
        ()
    """

    thaw: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.thaw >= 2 and self.freeze):
            raise ValueError(f"Thaw(thaw={self.thaw}): a number of rounds, 2 or more, with freeze=.")

    def _warm(self, history: History) -> FitPlan:
        plan = super()._warm(history)
        return plan if len(history.rounds) % self.thaw else replace(plan, freeze=(), cached=False)


@dataclass(eq=False)
class Gated(WarmStart):
    """Start rounds warm once the model has settled, or where few labels are new.

    Args:
        gate: agreement (Cohen's kappa on the stop set, 0 to 1) between two rounds that must be reached once before
            any round starts warm; needs ``ActiveLearner(stop_set=...)``. None: from the second round.
        max_new: share of the labels, between 0 and 1, that may be new where a round starts warm. None: however many.

    Example:
        >>> Gated("keep", max_new=0.5).plan(History(pool_size=9, unlabelled=9)).start
        'initial'
    """

    gate: float | None = None
    max_new: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate is not None and not 0 < self.gate <= 1:
            raise ValueError(f"Gated(gate={self.gate}): an agreement, allowed: 0 < gate <= 1, or None.")
        if self.max_new is not None and not 0 < self.max_new < 1:
            raise ValueError(f"Gated(max_new={self.max_new}): a share of the labels, 0 < max_new < 1, or None.")

    def _starts_warm(self, history: History) -> bool:
        if not super()._starts_warm(history):
            return False
        settled = self.gate is None or any(r.agreement is not None and r.agreement >= self.gate for r in history.rounds)
        new = history.labelled - history.rounds[-1].labelled
        return settled and (self.max_new is None or new <= self.max_new * history.labelled)

    @property
    def _returns(self) -> bool:
        return super()._returns or self.max_new is not None

    def _check(self, trainer: L.Trainer) -> None:
        super()._check(trainer)
        if self.gate is not None:
            raise ActiveLearningError(
                f"Gated(gate={self.gate}) needs agreement on a stop set, which a hand-written loop does not measure: "
                "use ActiveLearner(fit=Gated(...), stop_set=...), or gate=None."
            )
        if self.max_new is not None:
            self._check_pool(trainer, f"Gated(max_new={self.max_new})")
