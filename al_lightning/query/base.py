"""A strategy turns what the model said about the candidates into a query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from al_lightning.errors import ActiveLearningError, BadScores, OutputMismatch, PoolExhausted
from al_lightning.pool.view import PoolView
from al_lightning.query.reduction import check_reduction, reduced
from al_lightning.query.work import PickSize
from al_lightning.scoring.outputs import CLASSES, TASKS, Outputs

if TYPE_CHECKING:
    from al_lightning.pool.datamodule import PoolDataModule
    from al_lightning.scoring.scores import Scores


def top(scores: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the ``size`` highest scores, highest first; ties are broken by ``rng``, never by position.

    A partition, ``O(n)``, and a sort of what it leaves, ``O(size log size)``.

    Args:
        scores: ``(n,)``, none NaN.
        size: how many, at most ``n``.
        rng: breaks ties.
    """
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    lowest = np.partition(scores, len(scores) - size)[len(scores) - size]
    above = rng.permutation(np.flatnonzero(scores > lowest))
    tied = rng.choice(np.flatnonzero(scores == lowest), size=size - len(above), replace=False)
    # Stable, so that only rng decides how ties fall, and not the machine's sorting network.
    return np.concatenate([above[np.argsort(-scores[above], kind="stable")], tied])


def check_task(strategy: Strategy, task: str) -> None:
    """Raise OutputMismatch unless the strategy can work on the outputs of such a task."""
    if task not in strategy.tasks:
        raise OutputMismatch(
            f"{type(strategy).__name__} cannot query for task={task!r}; it takes {', '.join(strategy.tasks)}. Variance "
            "is for regression; Random, KCenterGreedy and other strategies on features take every task."
        )


class Strategy(ABC):
    """Serve as the base of every strategy. It checks what goes in and what comes out; the subclass writes ``_pick``.

    Attributes:
        requires: what the strategy needs: ``"logits"`` or ``"embedding"`` of the model (then candidates are inferred),
            ``"samples"``, several answers to the same records, ``"features"`` of the pool. Nothing required means
            nothing is inferred.
        columns: names of the arrays :meth:`payload` returns; ``"score"`` among them is remembered between rounds.
        tasks: what the logits may mean to it.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[str, ...]] = TASKS
    beyond_candidates: ClassVar[bool] = False
    """Whether unlabelled records that are no candidates may be picked, too."""

    def suited(self, pool: PoolDataModule) -> Strategy:
        """Return the strategy to query this pool with; the learner asks once it knows the pool."""
        return self

    @property
    def passes(self) -> int:
        """Forward passes per candidate."""
        return 1

    @property
    def needs_inference(self) -> bool:
        """Return whether candidates must go through the model before this strategy can pick."""
        return bool(self.requires & {"logits", "embedding"})

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return what travels from the model to :meth:`pick` for n records: small arrays of first length n."""
        return {}

    def payload_of(self, samples: Iterable[Outputs]) -> dict[str, Tensor]:
        """:meth:`payload` of a strategy that requires ``"samples"``; the answers are made while they are read."""
        raise NotImplementedError(f"{type(self).__name__} requires samples and has no payload_of().")

    def worth(
        self, *, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """Return what a strategy around this one works with: ``(n,)``, higher is more worth labelling."""
        return arrays["score"]

    def work(self, at: PickSize) -> float:
        """FLOPs of a pick beside inference, about or at most: a rho that is kept foresees what ``view.spend`` is told.

        Distances by :meth:`PoolView.distance_to_labelled` and clusters that are made once are foreseen by themselves.
        """
        return 0.0

    def controls(self, size: int) -> int:
        """Return how many at the end of a query of this size were drawn at random, whatever they score."""
        return 0

    def pick(
        self,
        scores: Scores | None = None,
        /,
        *,
        size: int,
        view: PoolView | None = None,
        ids: np.ndarray | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Choose the query, from what :func:`al_lightning.score` returned or from its parts.

        Args:
            scores: holds all that follows but the size.
            size: how many records to query.
            view: the pool, read-only.
            ids: candidates, ``(n,)``, unlabelled, without duplicates.
            arrays: what :meth:`payload` returned for them, aligned with ``ids``.
            rng: generator of this seed and round.

        Returns:
            ``(size,)`` int64 ids, best first.

        Raises:
            PoolExhausted: fewer candidates than ``size``.
            BadScores: an array holds NaN or infinity; the ids are named.
        """
        if scores is not None:
            view, ids, arrays, rng = scores.view, scores.ids, scores.arrays, scores.rng
        if view is None or ids is None or rng is None:
            raise TypeError("pick() takes the Scores that score() returned, or view=, ids=, arrays= and rng=.")
        ids, arrays = np.asarray(ids, dtype=np.int64), arrays or {}
        if len(ids) < size:
            raise PoolExhausted(size, len(ids), "candidates")
        if size == 0:
            return ids[:0]
        for name, values in arrays.items():
            if len(values) != len(ids):
                raise ActiveLearningError(f"{name} has {len(values)} rows for {len(ids)} candidates.")
            bad = ~np.isfinite(values).reshape(len(ids), -1).all(axis=1)
            if bad.any():
                raise BadScores(ids[bad], name)
        picked = np.asarray(self._pick(view=view, ids=ids, arrays=arrays, size=size, rng=rng), dtype=np.int64)
        distinct = len(np.unique(picked))
        allowed = view.unlabelled if self.beyond_candidates else ids
        if len(picked) != size or distinct != size or not np.isin(picked, allowed).all():
            raise ActiveLearningError(
                f"{type(self).__name__} returned {len(picked)} ids ({distinct} distinct) for a query of {size} out of "
                f"{len(allowed)} records; a strategy returns exactly size distinct ones of them."
            )
        return picked

    @abstractmethod
    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return ``size`` distinct members of ``ids``; everything has been checked."""


@dataclass(frozen=True)
class _Scored(Strategy):
    """One number per record; the highest are picked."""

    reduction: str = "mean"

    columns: ClassVar[tuple[str, ...]] = ("score",)

    def __post_init__(self) -> None:
        check_reduction(self.reduction, type(self).__name__)

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return ids[top(arrays["score"], size, rng)]


@dataclass(frozen=True)
class ScoreStrategy(_Scored):
    """Query by one number per record: the subclass writes ``score``, the highest are picked.

    Where the model's ``infer`` returns ``Outputs(scores=...)``, these are taken instead.

    Args:
        reduction: how the scores of a record's parts (labels, pixels, tokens) become its own, one of
            :data:`~al_lightning.query.reduction.REDUCTIONS`. A record classified as a whole has one part.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    tasks: ClassVar[tuple[str, ...]] = CLASSES

    @staticmethod
    @abstractmethod
    def score(probabilities: Tensor) -> Tensor:
        """Map class probabilities ``(..., C)`` to ``(...,)``, higher is more worth labelling."""

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``{"score": (n,)}``, computed beside the model, or what the model says of itself."""
        if outputs.scores is not None:
            return {"score": outputs.scores}
        return {"score": reduced(self.score(outputs.distributions), outputs.mask, self.reduction)}


@dataclass(frozen=True)
class SampledStrategy(_Scored):
    """A score of several answers to the same records: members of an ensemble, or passes with dropout on.

    The subclass writes ``score``. The answers are read one by one and need not be kept: never ``n x C x passes``.

    Args:
        reduction: as for :class:`ScoreStrategy`.
        passes: forward passes with dropout on, where the model is no ensemble; at least 2. They are on the bill.

    Raises:
        ValueError: fewer than two passes.
    """

    passes: int = 20

    requires: ClassVar[frozenset[str]] = frozenset({"logits", "samples"})
    tasks: ClassVar[tuple[str, ...]] = CLASSES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passes < 2:
            raise ValueError(f"{type(self).__name__}(passes={self.passes}): allowed: 2 or more.")

    @staticmethod
    @abstractmethod
    def score(samples: Iterable[Tensor]) -> Tensor:
        """Map sampled class probabilities, each ``(..., C)``, to ``(...,)``, higher is more worth labelling."""

    def payload_of(self, samples: Iterable[Outputs]) -> dict[str, Tensor]:
        """Return ``{"score": (n,)}`` of the answers, computed beside the model as they come."""
        mask: Tensor | None = None

        def read() -> Iterator[Tensor]:
            nonlocal mask
            for outputs in samples:
                mask = outputs.mask
                yield self.sampled(outputs)

        scores = self.score(read())
        return {"score": reduced(scores, mask, self.reduction)}

    def sampled(self, outputs: Outputs) -> Tensor:
        """Return what :meth:`score` gets of one answer."""
        return outputs.distributions
