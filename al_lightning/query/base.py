"""A strategy turns what the model said about the candidates into a query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from al_lightning.errors import ActiveLearningError, BadScores, PoolExhausted
from al_lightning.pool.view import PoolView
from al_lightning.scoring.outputs import Outputs

if TYPE_CHECKING:
    from al_lightning.scoring.trainer import Scores


def top(scores: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the ``size`` highest scores, highest first; ties are broken by ``rng``, never by position.

    Args:
        scores: ``(n,)``, finite.
        size: how many, at most ``n``.
        rng: breaks ties.
    """
    return np.lexsort((rng.random(len(scores)), -scores))[:size]


class Strategy(ABC):
    """Base of every strategy. It checks what goes in and what comes out; the subclass writes ``_pick``.

    Attributes:
        requires: what the strategy needs: ``"logits"`` or ``"embedding"`` of the model (then candidates are inferred),
            ``"features"`` of the pool. Nothing required means nothing is inferred.
        columns: names of the arrays :meth:`payload` returns; ``"score"`` among them is remembered between rounds.
    """

    requires: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()

    @property
    def needs_inference(self) -> bool:
        """Whether candidates must go through the model before this strategy can pick."""
        return bool(self.requires & {"logits", "embedding"})

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """What travels from the model to :meth:`pick`, per batch of n records: small arrays of first length n."""
        return {}

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
        if len(picked) != size or distinct != size or not np.isin(picked, ids).all():
            raise ActiveLearningError(
                f"{type(self).__name__} returned {len(picked)} ids ({distinct} distinct) for a query of {size} out of "
                f"{len(ids)} candidates; a strategy returns exactly size distinct candidates."
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


class ScoreStrategy(Strategy):
    """A strategy that is one number per record: the subclass writes ``score``, the highest are picked."""

    requires = frozenset({"logits"})
    columns = ("score",)

    @staticmethod
    @abstractmethod
    def score(probabilities: Tensor) -> Tensor:
        """Map class probabilities ``(n, C)`` to ``(n,)``, higher is more worth labelling."""

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``{"score": (n,)}``, computed beside the model."""
        return {"score": self.score(outputs.probabilities)}

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
