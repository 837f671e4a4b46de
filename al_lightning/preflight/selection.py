"""A first and a later query, tried on a few records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import numpy as np
from torch import nn

from al_lightning.candidates.representatives import MOST_CLUSTERS
from al_lightning.checks.compatible import clusters_anew, goes_by_size
from al_lightning.checks.parts import Parts
from al_lightning.features.provider import Features
from al_lightning.features.source import Layer
from al_lightning.oracles.oracle import check_labels
from al_lightning.pool.view import PoolView
from al_lightning.preflight.small_pool import RECORDS, SmallPool, spread
from al_lightning.preflight.trying import trying
from al_lightning.preflight.work import Work
from al_lightning.query.base import Strategy
from al_lightning.query.clusters import usual_clusters
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Question
from al_lightning.seeds import generator, number
from al_lightning.stop.pool_covered import DIMS

_PASSES = 2
"""Answers that are drawn of a model that is asked several times: enough to see whether it can be."""


def try_first_query(work: Work, strategy: Strategy, size: int) -> None:
    """Pick a first query, which no model is needed for; it may have been made already, or brought.

    Args:
        work: of the rehearsal.
        strategy: of the first query.
        size: of it.
    """
    turn = work.turn
    if turn.saved.queries or len(turn.pool.labelled):
        return
    if "features" in strategy.requires:
        small = _small(work, apart=True)
        small.anew = clusters_anew(strategy)
        view, size = small.view(0, round=0), min(size, max(1, len(small.ids) // 2))
    else:
        view = turn.pool.view(features=Features(turn))
    _pick(strategy, view, view.unlabelled, {}, size, turn.seed)


def try_query(work: Work, learner: Parts, trainer: L.Trainer, actor: L.LightningModule, size: int) -> None:
    """Make a later query: candidates, what the model says of them, and the pick.

    Args:
        work: of the rehearsal.
        learner: whose parts are tried.
        trainer: for ``actor``.
        actor: stands in for the module that selects.
        size: of a query; fewer where there are few records.
    """
    turn = work.turn
    if isinstance(turn.pool.features, Layer):
        turn.pool.features.question(actor, fitted=True)  # a name that is no layer's is refused, needed or not
    apart = learner.candidates.uses_features or "features" in learner.query.requires
    small = _small(work, trainer, actor, apart=apart)
    view = small.view(len(small.ids) // 4, round=1)
    size = max(1, min(size, len(view.unlabelled) // 2))
    with trying(f"candidates={type(learner.candidates).__name__}", "They are chosen from the view alone."):
        rng = generator(turn.seed, 0, "preflight candidates")
        ids, _ = learner.candidates.propose(view=view, size=size, rng=rng, state={})
    ids = ids if len(ids) >= size else view.unlabelled
    arrays: dict[str, np.ndarray] = {}
    if learner.query.needs_inference:
        arrays = work.ask(trainer, actor, small.real(ids), _briefly(learner.query, turn.seed))
        work.met.answers = sum(values[0].size for values in arrays.values())
        check_labels(turn.pool.state.labels, turn.pool.task, classes=work.width)
    small.anew = clusters_anew(learner.query)
    _pick(learner.query, view, ids, arrays, size, turn.seed)
    if turn.accounts.covers:
        small.project_once(DIMS)
    if learner.stop_set:
        work.ask(trainer, actor, small.real(ids), Question(_classes, "classes"))


def usual_of(learner: Parts, records: int, size: int) -> int:
    """Clusters that parts will ask for, the most, where they go by the size of the pool.

    Args:
        learner: whose parts.
        records: of the pool.
        size: of a query.
    """
    most = min(learner.candidates.count(unlabelled=records - size, size=size), MOST_CLUSTERS)
    usual = usual_clusters(records)
    parts = ((learner.candidates, most), (learner.query, usual), (learner.initial, usual))
    return max((clusters for part, clusters in parts if goes_by_size(part)), default=0)


def _small(
    work: Work, trainer: L.Trainer | None = None, actor: L.LightningModule | None = None, *, apart: bool
) -> SmallPool:
    def embed(layer: Layer, ids: np.ndarray) -> np.ndarray:
        question = layer.question(actor or work.turn.model, fitted=actor is not None)
        if trainer is not None and actor is not None:
            return work.ask(trainer, actor, ids, question)["features"]
        with work.stand_in(work.turn.model) as untrained:
            return work.ask(work.trainer(untrained), untrained, ids, question)["features"]

    size = work.turn.pool.size
    return SmallPool(work.turn.pool, spread(size, RECORDS), embed, apart, work.usual, rehearsed=work.met)


def _pick(
    strategy: Strategy, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], size: int, seed: int
) -> None:
    with trying(f"{type(strategy).__name__}.pick", "It is made from the view and the payload alone."):
        strategy.pick(view=view, ids=ids, arrays=arrays, size=size, rng=generator(seed, 0, "preflight query"))


def _briefly(strategy: Strategy, seed: int) -> Question:
    question = Question.of(strategy, seed=number(seed, 0, "preflight passes"))
    samples = question.samples
    return question if samples is None else replace(question, samples=replace(samples, passes=_PASSES))


@contextmanager
def _classes(model: nn.Module) -> Iterator[Any]:
    def predicted(outputs: Outputs) -> dict[str, Any]:
        return {"classes": outputs.predictions}

    yield predicted
