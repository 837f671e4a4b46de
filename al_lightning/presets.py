"""The frugal preset: one word and one knob for everything that saves compute and labels together.

``frugal(...)`` and the command's ``experiment=frugal`` are made of the same functions, and of the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as L
import numpy as np

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates.staggered import RotatingSubset
from al_lightning.checks.given import check_datamodule, check_model
from al_lightning.cost.budget import Budget
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.prices import Prices
from al_lightning.cost.recipe import Recipe
from al_lightning.errors import BadPart, FeaturesMissing
from al_lightning.features.source import RawInputs
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.set_up import materialise
from al_lightning.fit.trainer import TrainerSource, fresh_trainer
from al_lightning.learner import ActiveLearner
from al_lightning.planning.architectures import BACKWARD
from al_lightning.planning.planner import Way
from al_lightning.planning.project import Project
from al_lightning.planning.rho import cheapest_rho
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query.base import Strategy
from al_lightning.query.margin import Margin
from al_lightning.query.novel import DistanceWeighted
from al_lightning.query.wrapper import Around
from al_lightning.result import Result
from al_lightning.round_size import EvenRounds
from al_lightning.run.store import read_run
from al_lightning.scoring.trainer import run_inference
from al_lightning.steps.rehearse import first_logit

Rho = float | Literal["auto"]

LEAST_RHO, MOST_RHO = 0.5, 4.0
LEAST_ROUND = 20
"""Labels of a round, at least: each round costs a fit, a validation and a scoring, however few labels it has."""
ORDINARY_ROUNDS, ORDINARY_ROUND = 20, 25
"""Rounds of ordinary active learning, and labels of one, at least: those of the reference protocols."""
SLACK = 0.02
"""What rounding to whole batches may add to a run, as rho."""
_SPEND = ((0.5, 0.1), (0.7, 0.15), (1.0, 0.22), (1.5, 0.3), (2.0, 0.4), (4.0, 0.8))
_FIRST_EPOCHS = ((0.5, 0.18), (0.7, 0.36))
_EPOCHS = ((0.5, 0.06), (0.7, 0.12), (2.0, 0.12), (4.0, 0.15))
_FINAL_EPOCHS = ((0.5, 0.12), (0.7, 0.25))
"""By rho, measured at 0.7, 1, 1.5 and 2 (benchmarks/results/savings-*.json), and on a line between and beyond them."""
_WIDEST = 1024
"""Numbers of a record, at most, that are taken for features as they are: distances in raw images say little."""
_LOOKED_AT = 32


class Numbers(NamedTuple):
    """Hold what a rho means for a number of labels.

    Args:
        rounds: how many rounds.
        spend: what scoring may cost, as a share of one training.
        first_epochs: of the first round, as a share of the Trainer's.
        epochs: of the other rounds, likewise.
        final_epochs: of the consolidating fit, at least, likewise.
        rho: what the fits, scoring and validation may come to.
    """

    rounds: int
    spend: float
    first_epochs: float
    epochs: float
    final_epochs: float
    rho: float


def numbers_of(labels: int, rho: float) -> Numbers:
    """Return what a rho means for a number of labels.

    Args:
        labels: bought in all.
        rho: compute of the whole run / one training on its labels.
    """

    def at(points: Sequence[tuple[float, float]]) -> float:
        known, values = zip(*points, strict=True)
        return round(float(np.interp(rho, known, values)), 4)

    return Numbers(
        rounds=max(1, min(round(7 * rho), labels // LEAST_ROUND)),
        spend=at(_SPEND),
        first_epochs=at(_FIRST_EPOCHS),
        epochs=at(_EPOCHS),
        final_epochs=at(_FINAL_EPOCHS),
        rho=round(rho - SLACK, 4),
    )


def ordinary_size(labels: int) -> int:
    """Return the labels of a round of ordinary active learning: twenty rounds, or fewer below 25 labels each."""
    rounds = max(1, min(ORDINARY_ROUNDS, labels // ORDINARY_ROUND))
    return -(-labels // rounds)


def check_rho(rho: Any) -> None:
    """Raise BadPart unless it is a rho that the preset can keep, or ``"auto"``."""
    number = isinstance(rho, int | float) and not isinstance(rho, bool)
    if rho != "auto" and not (number and LEAST_RHO <= rho <= MOST_RHO):
        raise BadPart(
            f"rho={rho!r}: compute of the whole run / one training on its labels, allowed: {LEAST_RHO:g} to "
            f'{MOST_RHO:g}, or "auto" for the cheapest at the prices.'
        )


# ---- its parts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WithFeatures(Around):
    """Query by a strategy that compares features, or, of a pool that can have none, by the score inside it.

    A pool without features gets ``RawInputs()`` where its records are flat: floating-point numbers, equally many in
    each, 1,024 at most.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "requires", self.strategy.requires - {"features"})

    def suited(self, pool: PoolDataModule) -> Strategy:
        """Return the strategy for this pool."""
        if pool.features is None and _flat(pool):
            pool.features = RawInputs()
        inner: Strategy = self.strategy.strategy  # type: ignore[attr-defined]
        return inner if pool.features is None else self.strategy

    def _pick(self, **found: Any) -> np.ndarray:
        raise NotImplementedError("the learner asks suited() for the strategy to query with.")


def frugal_query() -> WithFeatures:
    """Return the preset's query: the margin, mixed with the distance to what is labelled where there are features."""
    return WithFeatures(DistanceWeighted(Margin()))


def frugal_candidates(rho: float) -> RotatingSubset:
    """Return the preset's candidates: at most 30 % of the pool a round, in turns, for what rho has left for scoring."""
    return RotatingSubset(0.3, spend=numbers_of(LEAST_ROUND, rho).spend)


def frugal_fit(rho: float) -> WarmStart:
    """Return the preset's fits: short rounds from warm weights at the peak rate, and at the end what is left of rho."""
    numbers = numbers_of(LEAST_ROUND, rho)
    return WarmStart(
        "keep",
        stable=True,
        first_epochs=numbers.first_epochs,
        epochs=numbers.epochs,
        final="previous",
        final_epochs=numbers.final_epochs,
        final_average=0.5,
        rho=numbers.rho,
    )


def frugal(trainer: TrainerSource, *, labels: int, rho: Rho = 1.0, run_dir: str | Path, **parts: Any) -> ActiveLearner:
    """Return an ActiveLearner that spends the compute of ``rho`` trainings, everything included.

    Rounds, scoring and the final fit go together: rho 1 is 7 rounds, 1.5 is 10 and 2 is 14 (about seven times rho, and
    no round of less than 20 labels); scoring takes a fifth of it; what the rounds leave trains the delivered model.
    Where so many rounds of a model would not be within rho, fewer are taken. Measured from 0.7 to 2; below and above,
    the same lines are followed on. From about 3 on, the final fit is the whole recipe and not everything may be spent.

    Args:
        trainer: an unused Trainer, or a function that builds one.
        labels: to buy from the pool.
        rho: compute of the whole run / one training on its labels, 0.5 to 4; or ``"auto"``: the one whose labels and
            compute cost the least together at the prices, for equally good models, from a look at the model and the
            pool as ``fit`` begins. A run that goes on keeps what it began with.
        run_dir: the run's folder.
        **parts: any setting of ActiveLearner, in the place of the preset's.

    Raises:
        BadPart: a rho out of range, or no number of labels.

    Example:
        >>> import lightning.pytorch as L
        >>> learner = frugal(L.Trainer(max_epochs=24, logger=False), labels=2000, rho=1.5, run_dir="runs/mine")
        >>> learner.round_size
        EvenRounds(labels=2000, rounds=10)
    """
    check_rho(rho)
    if isinstance(labels, bool) or not isinstance(labels, int) or labels < 1:
        raise BadPart(f"labels={labels!r}: to buy from the pool, allowed: a whole number, 1 or more.")
    if rho == "auto":
        return _Auto(trainer, labels, run_dir, parts)
    return ActiveLearner(trainer, run_dir=run_dir, **_parts(labels, rho, parts))


def _parts(labels: int, rho: float, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "query": frugal_query(),
        "candidates": frugal_candidates(rho),
        "fit": frugal_fit(rho),
        "round_size": EvenRounds(labels=labels, rounds=numbers_of(labels, rho).rounds, shrink=True),
        "stop": Budget(labels=labels),
        **given,
    }


class _Auto(ActiveLearner):
    """A frugal learner that finds its rho once it knows the model and the pool."""

    def __init__(self, trainer: TrainerSource, labels: int, run_dir: str | Path, parts: dict[str, Any]) -> None:
        super().__init__(trainer, run_dir=run_dir, **_parts(labels, 1.0, parts))
        self._labels, self._parts = labels, parts

    def fit(self, model: L.LightningModule, datamodule: PoolDataModule, **how: Any) -> Result:
        """Choose rho, then run."""
        check_model(model)
        check_datamodule(datamodule)
        rho = choose_rho(self.trainer, model, datamodule, self._labels, self.prices, self.run_dir)
        return frugal(self.trainer, labels=self._labels, rho=rho, run_dir=self.run_dir, **self._parts).fit(
            model, datamodule, **how
        )


# ---- the cheapest rho -----------------------------------------------------------------------------------------------


def choose_rho(
    trainer: TrainerSource,
    model: L.LightningModule,
    pool: PoolDataModule,
    labels: int,
    prices: Prices,
    run_dir: str | Path,
) -> float:
    """Return the cheapest rho for a model and a pool: that of the run folder, or from the price of inferring a batch.

    A few batches are inferred for it, off the bill; training is taken for three times as much.

    Args:
        trainer: an unused Trainer, or a function that builds one.
        model: the module.
        pool: the data.
        labels: to buy from the pool.
        prices: of a label and of an hour.
        run_dir: the run's folder.
    """
    begun = _begun_with(Path(run_dir))
    if begun is not None:
        return begun
    first = fresh_trainer(trainer, model=model, datamodule=pool)
    ranks = Ranks(first)
    ranks.start()
    materialise(model, first, pool)
    epochs = Recipe.of(first).epochs
    if epochs is None:
        raise BadPart('rho="auto" prices one training, and this Trainer has no limit on epochs: set max_epochs.')
    ids, meter = np.arange(min(pool.size, 8 * (pool.eval_batch_size or pool.batch_size or 1))), FlopMeter()
    run_inference(first, model, pool, ids, first_logit, meter)
    _, _, seconds, _ = run_inference(first, model, pool, ids, first_logit, meter)  # the first one was counted
    return float(
        ranks.broadcast(
            frugal_rho(
                Project(
                    pool=pool.size,
                    labels=min(labels, pool.size),
                    epochs=epochs,
                    forward=max(100.0, meter.per_record["forward"]),
                    forward_seconds=seconds / len(ids),
                    train_seconds=(1 + BACKWARD) * seconds / len(ids),
                    val_labels=pool.val_labels,
                    validated_per_fit=pool.val_labels,
                    prices=prices,
                )
            )
        )
    )


def frugal_rho(project: Project) -> float:
    """Return the rho at which the preset's labels and compute cost the least together."""

    def way(rho: float, sizes: Sequence[int]) -> Way:
        return Way(sizes=sizes, policy=frugal_fit(rho), candidates=frugal_candidates(rho))

    return cheapest_rho(project, way, lambda rho: numbers_of(project.labels, rho).rounds)


def _begun_with(folder: Path) -> float | None:
    if not (folder / "run.sqlite").exists():
        return None
    kept = read_run(folder).meta["config"]["fit"].get("rho")
    return None if kept is None else round(kept + SLACK, 4)


def _flat(pool: PoolDataModule) -> bool:
    """Tell whether records, as far as a few of them show, are equally many floating-point numbers."""
    ids = np.unique(np.linspace(0, pool.size - 1, _LOOKED_AT).astype(int)).tolist()
    try:
        rows = RawInputs().rows(pool.eval_data, pool.items, ids)
    except FeaturesMissing:
        return False
    return rows.dtype.kind == "f" and rows.shape[1] <= _WIDEST and bool(np.isfinite(rows).all())
