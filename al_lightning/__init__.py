"""Active learning for PyTorch Lightning that saves as much on compute as it saves on labels."""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.callbacks.round_plateau import RoundPlateau as RoundPlateau
    from al_lightning.callbacks.stall_detection import StallDetection as StallDetection
    from al_lightning.callbacks.warm_start import WarmStart as WarmStart
    from al_lightning.candidates.base import CandidateSelector as CandidateSelector
    from al_lightning.cost.budget import Budget as Budget
    from al_lightning.cost.prices import Prices as Prices
    from al_lightning.errors import ActiveLearningError as ActiveLearningError
    from al_lightning.errors import BadLabelFile as BadLabelFile
    from al_lightning.errors import BadPart as BadPart
    from al_lightning.errors import BadScores as BadScores
    from al_lightning.errors import CannotWrite as CannotWrite
    from al_lightning.errors import ClusterUnavailable as ClusterUnavailable
    from al_lightning.errors import DamagedFile as DamagedFile
    from al_lightning.errors import DamagedShard as DamagedShard
    from al_lightning.errors import FeaturesMissing as FeaturesMissing
    from al_lightning.errors import Interrupted as Interrupted
    from al_lightning.errors import MissingExtra as MissingExtra
    from al_lightning.errors import NegativeScores as NegativeScores
    from al_lightning.errors import OutputMismatch as OutputMismatch
    from al_lightning.errors import PoisonedRecord as PoisonedRecord
    from al_lightning.errors import PoolChanged as PoolChanged
    from al_lightning.errors import PoolError as PoolError
    from al_lightning.errors import PoolExhausted as PoolExhausted
    from al_lightning.errors import PreflightFailed as PreflightFailed
    from al_lightning.errors import RhoTooSmall as RhoTooSmall
    from al_lightning.errors import RunLocked as RunLocked
    from al_lightning.errors import RunMismatch as RunMismatch
    from al_lightning.errors import UnknownFlops as UnknownFlops
    from al_lightning.errors import UnknownMonitor as UnknownMonitor
    from al_lightning.errors import UnsupportedModel as UnsupportedModel
    from al_lightning.errors import UnsupportedTrainer as UnsupportedTrainer
    from al_lightning.errors import WorkerFailed as WorkerFailed
    from al_lightning.fit.plan import FitPolicy as FitPolicy
    from al_lightning.fit.trainer import fresh_trainer as fresh_trainer
    from al_lightning.history import RoundSize as RoundSize
    from al_lightning.learner import ActiveLearner as ActiveLearner
    from al_lightning.oracles.oracle import DatasetOracle as DatasetOracle
    from al_lightning.oracles.oracle import Oracle as Oracle
    from al_lightning.pool.datamodule import PoolDataModule as PoolDataModule
    from al_lightning.presets import frugal as frugal
    from al_lightning.query.base import Strategy as Strategy
    from al_lightning.result import Result as Result
    from al_lightning.scoring.question import Scorer as Scorer
    from al_lightning.scoring.trainer import score as score
    from al_lightning.stop.base import StoppingRule as StoppingRule

__version__ = "0.1.0"

USERS = (
    "ActiveLearner",
    "Budget",
    "DatasetOracle",
    "PoolDataModule",
    "Prices",
    "Result",
    "RoundPlateau",
    "StallDetection",
    "WarmStart",
    "fresh_trainer",
    "frugal",
    "score",
)
"""What a user meets first; everything else is in its folder: ``al_lightning.query.Margin``."""
BASES = (
    "CandidateSelector",
    "FitPolicy",
    "Oracle",
    "RoundSize",
    "Scorer",
    "StoppingRule",
    "Strategy",
)
"""What an extension is made of."""
ERRORS = (
    "ActiveLearningError",
    "BadLabelFile",
    "BadPart",
    "BadScores",
    "CannotWrite",
    "ClusterUnavailable",
    "DamagedFile",
    "DamagedShard",
    "FeaturesMissing",
    "Interrupted",
    "MissingExtra",
    "NegativeScores",
    "OutputMismatch",
    "PoisonedRecord",
    "PoolChanged",
    "PoolError",
    "PoolExhausted",
    "PreflightFailed",
    "RhoTooSmall",
    "RunLocked",
    "RunMismatch",
    "UnknownFlops",
    "UnknownMonitor",
    "UnsupportedModel",
    "UnsupportedTrainer",
    "WorkerFailed",
)
ROOT = (*USERS, *BASES, *ERRORS)

_MOVED = {
    "query": (
        "BALD ClusterMargin Entropy InformationDensity KCenterGreedy KMeans LeastConfidence Margin PerCost ProbCover "
        "Random RandomControl Stochastic Stratified TypiClust Variance VariationRatio"
    ),
    "candidates": "EveryK Representatives ShardShare WholePool",
    "cost": "Bill",
    "features": "Layer RawInputs",
    "fit": "FitPlan",
    "history": "History Reason RoundRecord",
    "oracles": "SKIP FileOracle FunctionOracle LabelStudioOracle",
    "round_size": "Doubling Fixed Growing Listed Planned",
    "scoring": "AutoScorer Outputs RayScorer Scores Workers",
    "shards": "ParquetShards TarShards",
    "stop": "AllOf AnyOf ClassificationChange CostStopping OverallUncertainty StabilizingPredictions",
}
"""Names that were here before 0.2, and their folders."""
_RENAMED = {
    "Badge": "query.BADGE",
    "Novel": "query.DistanceWeighted",
    "PoolCovered": "stop.Coverage",
    "RandomShare": "candidates.RandomSubset",
    "Seals": "candidates.SEALS",
    "Spread": "round_size.EvenRounds",
    "Staggered": "candidates.RotatingSubset",
}
"""Names that were here before 0.2, and what they are now."""
_OLD = {name: f"{module}.{name}" for module, names in _MOVED.items() for name in names.split()} | _RENAMED

__all__ = [*ROOT, *_OLD]

_HOMES = {
    "callbacks.round_plateau": "RoundPlateau",
    "callbacks.stall_detection": "StallDetection",
    "callbacks.warm_start": "WarmStart",
    "candidates.base": "CandidateSelector",
    "cost.budget": "Budget",
    "cost.prices": "Prices",
    "fit.plan": "FitPolicy",
    "fit.trainer": "fresh_trainer",
    "learner": "ActiveLearner",
    "oracles.oracle": "DatasetOracle Oracle",
    "pool.datamodule": "PoolDataModule",
    "presets": "frugal",
    "query.base": "Strategy",
    "result": "Result",
    "history": "RoundSize",
    "scoring.question": "Scorer",
    "scoring.trainer": "score",
    "stop.base": "StoppingRule",
    "errors": " ".join(ERRORS),
}
_get, _names = lazily(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name not in _OLD:
        return _get(name)
    module, _, now = _OLD[name].rpartition(".")
    warnings.warn(
        f"al_lightning.{name} is al_lightning.{module}.{now} now: from al_lightning.{module} import {now}.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module(f"{__name__}.{module}"), now)


def __dir__() -> list[str]:
    return sorted({*_names(), *__all__})
