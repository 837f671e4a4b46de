"""Stopping rules: pure decisions on the history, each a function and a thin class on it."""

from al_lightning.stop.agreement import ClassificationChange, StabilizingPredictions
from al_lightning.stop.combine import AllOf, AnyOf
from al_lightning.stop.cost_stopping import CostStopping
from al_lightning.stop.false_start import FalseStart
from al_lightning.stop.overall_uncertainty import OverallUncertainty
from al_lightning.stop.pool_covered import PoolCovered

__all__ = [
    "AllOf",
    "AnyOf",
    "ClassificationChange",
    "CostStopping",
    "FalseStart",
    "OverallUncertainty",
    "PoolCovered",
    "StabilizingPredictions",
]
