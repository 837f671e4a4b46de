"""Stopping rules: pure decisions on the history, each a function and a thin class on it."""

from al_lightning.lazy import renamed
from al_lightning.stop.agreement import ClassificationChange, StabilizingPredictions
from al_lightning.stop.base import StoppingRule
from al_lightning.stop.combine import AllOf, AnyOf
from al_lightning.stop.cost_stopping import CostStopping
from al_lightning.stop.false_start import FalseStart
from al_lightning.stop.overall_uncertainty import OverallUncertainty
from al_lightning.stop.pool_covered import Coverage

__all__ = [
    "AllOf",
    "AnyOf",
    "ClassificationChange",
    "CostStopping",
    "Coverage",
    "FalseStart",
    "OverallUncertainty",
    "StabilizingPredictions",
    "StoppingRule",
]

__getattr__ = renamed(__name__, {"PoolCovered": "Coverage"})
