"""Scores of candidates, as ``score`` returns them and strategies pick from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from al_lightning.pool.view import PoolView


@dataclass(frozen=True)
class Scores:
    """Hold what came back for the candidates.

    Args:
        ids: candidates, ``(n,)``.
        arrays: payload arrays aligned with ``ids``.
        view: the pool they were scored for; what ``Strategy.pick`` needs beside them.
        rng: generator of the round.
        flops: FLOPs of the pass.
        seconds: of the pass, of all machines that took part.
        width: size of the last logits dimension (classes, for multiclass), 0 if nothing was inferred.

    Example:
        >>> scores = score(trainer, model, pool, Margin())  # doctest: +SKIP
        >>> ids = Margin().pick(scores, size=50)  # doctest: +SKIP
    """

    ids: np.ndarray
    arrays: dict[str, np.ndarray]
    view: PoolView
    rng: np.random.Generator = field(repr=False)
    flops: float = 0.0
    seconds: float = 0.0
    width: int = 0
