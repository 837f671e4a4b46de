"""The table: one row per exported strategy, selector, round size and callback.

A new method is in the contract by its row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from al_lightning import callbacks, candidates, contrib, query, round_size, stop
from al_lightning.callbacks import RoundPlateau, StallDetection, WarmStart
from al_lightning.candidates import SEALS, EveryK, RandomSubset, Representatives, RotatingSubset, ShardShare, WholePool
from al_lightning.contrib import Dash, Fire, Gated, Replay, ShrinkPerturb, Thaw
from al_lightning.query import (
    BADGE,
    BALD,
    ClusterMargin,
    DistanceWeighted,
    Entropy,
    InformationDensity,
    KCenterGreedy,
    KMeans,
    LeastConfidence,
    Margin,
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
from al_lightning.round_size import Doubling, EvenRounds, Fixed, Growing, Listed, Planned
from al_lightning.scoring.outputs import Outputs
from al_lightning.stop import (
    AllOf,
    AnyOf,
    ClassificationChange,
    CostStopping,
    Coverage,
    FalseStart,
    OverallUncertainty,
    StabilizingPredictions,
)

STRATEGIES = [
    Random(),
    LeastConfidence(),
    Margin(),
    Entropy(),
    KCenterGreedy(),
    DistanceWeighted(Margin()),
    DistanceWeighted(Entropy(), weight=0.2, dims=2),
    VariationRatio(),
    BALD(passes=3),
    Variance(),
    Stochastic(Margin()),
    Stochastic(BALD(), kind="softmax", beta=4.0),
    Stochastic(PerCost(Entropy()), kind="soft_rank"),
    RandomControl(Margin(), share=0.3),
    RandomControl(KCenterGreedy(), share=0.3),
    PerCost(Margin()),
    InformationDensity(Entropy()),
    InformationDensity(PerCost(Variance()), beta=0.5),
    BADGE(),
    ClusterMargin(),
    ClusterMargin(Entropy(), n_clusters=5, oversample=2.5, order="score"),
    KMeans(),
    TypiClust(max_clusters=4),
    TypiClust(max_clusters=3, neighbours=2),
    ProbCover(),
    ProbCover(delta=1.0),
    Stratified(),
    Stratified(n_clusters=3),
]

DRAWS = (BADGE, KMeans, ProbCover, Random, RandomControl, Stochastic, Stratified)
"""Strategies that draw, or count so few things that they always have ties: another seed gives another query."""

SELECTORS = [
    WholePool(),
    RandomSubset(0.3),
    Representatives(0.3),
    Representatives(0.3, n_clusters=1),
    Representatives(0.3, n_clusters=7, memory=True),
    SEALS(),
    SEALS(neighbours=3),
    RotatingSubset(0.3),
    RotatingSubset(0.3, best=0.0),
    RotatingSubset(0.3, spend=0.2),
    ShardShare(0.3),
    ShardShare(0.3, best=0.5),
    EveryK(WholePool(), 1),
    EveryK(Representatives(0.3), 3),
]

ROUND_SIZES = [
    Fixed(10),
    Fixed(10, first=5),
    Growing(10, 1.5),
    Doubling(10),
    Listed([10, 20]),
    EvenRounds(50, rounds=4),
    Planned(50, first=10, epochs=2, fit=WarmStart("reset")),
]

CALLBACKS = [
    WarmStart("reset"),
    WarmStart("keep", epochs=1),
    WarmStart("shrink_perturb", epochs=1),
    WarmStart("resume", epochs=1),
    WarmStart("keep", epochs=1, freeze=("net.0",)),
    WarmStart("keep", epochs=0.5, stable=True),
    RoundPlateau("val_acc", patience=2, min_delta=0.7),  # nine validation labels support no less
    RoundPlateau("val_loss", mode="min", patience=1, min_delta=100.0),
    StallDetection("train_loss", patience=2),
    StallDetection("val_acc", mode="max", reference=0.0),
    StallDetection("train_loss", reference="chance", min_delta=0.1, patience=1.0),
]

CONTRIBUTED = [
    Replay(epochs=1, distill=0.5),
    Fire(epochs=1),
    Dash(epochs=1),
    ShrinkPerturb(epochs=1, shrink=0.5),
    Thaw("keep", epochs=1, freeze=("net.0",), thaw=2),
    Gated("keep", epochs=1, max_new=0.9),
]

STOPPING_RULES = [
    StabilizingPredictions(),
    StabilizingPredictions(0.9, models=2),
    ClassificationChange(),
    ClassificationChange(rounds=2),
    OverallUncertainty(0.5),
    Coverage(),
    Coverage(0.1),
    CostStopping(price_per_point=1.0),
    CostStopping(price_per_point=0.5, agreement=-1.0),
    CostStopping(target=0.9),
    AnyOf([StabilizingPredictions(), CostStopping(target=0.9)]),
    AllOf([StabilizingPredictions(), RoundPlateau("val_acc", min_delta=0.1)]),
]

TABLE: dict[ModuleType, list[Any]] = {
    query: STRATEGIES,
    candidates: SELECTORS,
    round_size: ROUND_SIZES,
    callbacks: CALLBACKS,
    contrib: CONTRIBUTED,
    stop: [*STOPPING_RULES, FalseStart("val_acc", min_gap=1.0)],
}


def methods_of(module: ModuleType) -> set[type]:
    """The exported classes a user can build; bases and protocols cannot be."""
    exported = [getattr(module, name) for name in module.__all__]
    return {
        x
        for x in exported
        if inspect.isclass(x)
        and x.__module__.startswith("al_lightning.")
        and not inspect.isabstract(x)
        and not getattr(x, "_is_protocol", False)
    }


@pytest.fixture
def table() -> Iterator[tuple[ModuleType, list[Any], set[type]]]:
    return ((module, rows, methods_of(module)) for module, rows in TABLE.items())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, rows in {
        "strategy": STRATEGIES,
        "selector": SELECTORS,
        "sizes": ROUND_SIZES,
        "callback": [*CALLBACKS, *CONTRIBUTED],
        "rule": STOPPING_RULES,
    }.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, rows, ids=repr)


def payload_of(strategy: Any, logits: torch.Tensor, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
    """What travels for a batch; of a strategy that samples, from three answers that are not the same."""
    outputs = Outputs(logits, embedding, task=strategy.tasks[0])
    if "samples" not in strategy.requires:
        return strategy.payload(outputs)
    return strategy.payload_of(replace(outputs, logits=x) for x in (logits, -logits, logits.roll(2, dims=1)))


@pytest.fixture
def payload() -> Callable[..., dict[str, torch.Tensor]]:
    return payload_of


@pytest.fixture
def arrays_of() -> Callable[..., dict[str, np.ndarray]]:
    """What travels for n candidates: the payload of random (or constant) logits."""

    def arrays(strategy: Any, n: int, *, constant: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
        if not strategy.needs_inference:
            return {}
        generator = torch.Generator().manual_seed(seed)
        shape = (1, 4) if constant else (n, 4)
        logits = torch.randn(shape, generator=generator).expand(n, 4)
        embedding = torch.randn((shape[0], 3), generator=generator).expand(n, 3)
        return {k: v.numpy() for k, v in payload_of(strategy, logits, embedding).items()}

    return arrays
