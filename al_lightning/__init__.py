"""Active learning for PyTorch Lightning that saves as much on compute as it saves on labels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from al_lightning.callbacks.round_plateau import RoundPlateau
    from al_lightning.callbacks.stall_detection import StallDetection
    from al_lightning.callbacks.warm_start import WarmStart
    from al_lightning.candidates import EveryK, RandomShare, Representatives, Seals, ShardShare, Staggered, WholePool
    from al_lightning.cost.bill import Bill
    from al_lightning.cost.budget import Budget
    from al_lightning.cost.prices import Prices
    from al_lightning.features.source import Layer, RawInputs
    from al_lightning.fit.plan import FitPlan
    from al_lightning.fit.trainer import fresh_trainer
    from al_lightning.history import History, Reason, RoundRecord
    from al_lightning.learner import ActiveLearner
    from al_lightning.oracles.file_oracle import FileOracle
    from al_lightning.oracles.label_studio import LabelStudioOracle
    from al_lightning.oracles.oracle import SKIP, DatasetOracle, FunctionOracle
    from al_lightning.pool.datamodule import PoolDataModule
    from al_lightning.presets import frugal
    from al_lightning.query import (
        BALD,
        Badge,
        ClusterMargin,
        Entropy,
        InformationDensity,
        KCenterGreedy,
        KMeans,
        LeastConfidence,
        Margin,
        Novel,
        PerCost,
        ProbCover,
        Random,
        RandomControl,
        Stochastic,
        Stratified,
        TypiClust,
        Variance,
        VariationRatio,
    )
    from al_lightning.result import Result
    from al_lightning.round_size import Doubling, Fixed, Growing, Listed, Planned, Spread
    from al_lightning.scoring.auto import AutoScorer
    from al_lightning.scoring.outputs import Outputs
    from al_lightning.scoring.ray.scorer import RayScorer
    from al_lightning.scoring.ray.team import Workers
    from al_lightning.scoring.scores import Scores
    from al_lightning.scoring.trainer import score
    from al_lightning.shards.parquet import ParquetShards
    from al_lightning.shards.tar import TarShards
    from al_lightning.stop import (
        AllOf,
        AnyOf,
        ClassificationChange,
        CostStopping,
        OverallUncertainty,
        PoolCovered,
        StabilizingPredictions,
    )

__version__ = "0.1.0"

__all__ = [
    "BALD",
    "SKIP",
    "ActiveLearner",
    "AllOf",
    "AnyOf",
    "AutoScorer",
    "Badge",
    "Bill",
    "Budget",
    "ClassificationChange",
    "ClusterMargin",
    "CostStopping",
    "DatasetOracle",
    "Doubling",
    "Entropy",
    "EveryK",
    "FileOracle",
    "FitPlan",
    "Fixed",
    "FunctionOracle",
    "Growing",
    "History",
    "InformationDensity",
    "KCenterGreedy",
    "KMeans",
    "LabelStudioOracle",
    "Layer",
    "LeastConfidence",
    "Listed",
    "Margin",
    "Novel",
    "Outputs",
    "OverallUncertainty",
    "ParquetShards",
    "PerCost",
    "Planned",
    "PoolCovered",
    "PoolDataModule",
    "Prices",
    "ProbCover",
    "Random",
    "RandomControl",
    "RandomShare",
    "RawInputs",
    "RayScorer",
    "Reason",
    "Representatives",
    "Result",
    "RoundPlateau",
    "RoundRecord",
    "Scores",
    "Seals",
    "ShardShare",
    "Spread",
    "StabilizingPredictions",
    "Staggered",
    "StallDetection",
    "Stochastic",
    "Stratified",
    "TarShards",
    "TypiClust",
    "Variance",
    "VariationRatio",
    "WarmStart",
    "WholePool",
    "Workers",
    "fresh_trainer",
    "frugal",
    "score",
]

_HOMES = {
    "callbacks.round_plateau": "RoundPlateau",
    "callbacks.stall_detection": "StallDetection",
    "callbacks.warm_start": "WarmStart",
    "candidates": "EveryK RandomShare Representatives Seals ShardShare Staggered WholePool",
    "cost.bill": "Bill",
    "cost.budget": "Budget",
    "cost.prices": "Prices",
    "features.source": "Layer RawInputs",
    "fit.plan": "FitPlan",
    "history": "History Reason RoundRecord",
    "learner": "ActiveLearner",
    "pool.datamodule": "PoolDataModule",
    "presets": "frugal",
    "oracles.file_oracle": "FileOracle",
    "oracles.label_studio": "LabelStudioOracle",
    "oracles.oracle": "SKIP DatasetOracle FunctionOracle",
    "shards.parquet": "ParquetShards",
    "shards.tar": "TarShards",
    "query": (
        "BALD Badge ClusterMargin Entropy InformationDensity KCenterGreedy KMeans LeastConfidence Margin Novel "
        "PerCost ProbCover Random RandomControl Stochastic Stratified TypiClust Variance VariationRatio"
    ),
    "result": "Result",
    "round_size": "Doubling Fixed Growing Listed Planned Spread",
    "fit.trainer": "fresh_trainer",
    "scoring.auto": "AutoScorer",
    "scoring.outputs": "Outputs",
    "scoring.ray.scorer": "RayScorer",
    "scoring.ray.team": "Workers",
    "scoring.scores": "Scores",
    "scoring.trainer": "score",
    "stop": "AllOf AnyOf ClassificationChange CostStopping OverallUncertainty PoolCovered StabilizingPredictions",
}
"""Modules that the names above are from, loaded when a name is asked for: PyTorch takes seconds, and whoever asks how a
run stands needs none of it."""


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _HOMES.items() if name in names.split()), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
