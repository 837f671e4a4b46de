"""Stochastic: a query drawn by score instead of taken from the top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from al_lightning.pool.view import PoolView
from al_lightning.query.base import top
from al_lightning.query.wrapper import Wrapper, check_not_negative

Kind = Literal["power", "softmax", "soft_rank"]
KINDS: tuple[str, ...] = get_args(Kind)
"""What chances are proportional to: ``score ** beta``, ``exp(beta * score)``, or ``rank ** -beta`` (1 is the best)."""


def perturbed_scores(scores: np.ndarray, kind: Kind, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gumbel noise to scores: the highest ``k`` of them are a draw of ``k`` without replacement.

    One record after the other is drawn, each with chances in proportion to its weight among those that are left:
    ``score ** beta``, ``exp(beta * score)`` or ``rank ** -beta`` (Kool et al. 2019; Kirsch et al. 2023). Ranks among
    ties are dealt out by ``rng``.

    Args:
        scores: ``(n,)``, finite; for ``power`` 0 or more. Those of 0 have no chance before all others are drawn.
        kind: one of :data:`KINDS`.
        beta: above 0; large values take the highest, small ones anything.
        rng: of the noise.

    Returns:
        ``(n,)`` float64, ``-inf`` for a score of 0 under ``power``.
    """
    if kind == "power":
        with np.errstate(divide="ignore"):
            logits = np.log(scores, dtype=np.float64)
    elif kind == "softmax":
        logits = scores.astype(np.float64)
    else:
        logits = np.empty(len(scores))
        logits[top(scores, len(scores), rng)] = -np.log(np.arange(1, len(scores) + 1))
    return beta * logits + rng.gumbel(size=len(scores))


@dataclass(frozen=True)
class Stochastic(Wrapper):
    """Draw the query with chances that grow with another strategy's score.

    The records with the highest scores are often alike, and a batch of them holds one lesson many times over. A draw
    spreads the batch, for the price of one random number a record. With ``BALD`` inside, ``kind="power"`` is PowerBALD.

    Around other wrappers it goes outside: ``Stochastic(PerCost(BALD()))``.

    Source: A. Kirsch, S. Farquhar, P. Atighehchian, A. Jesson, F. Branchaud-Charron and Y. Gal, "Stochastic batch
    acquisition: a simple baseline for deep active learning", TMLR 2023.

    Args:
        strategy: one that gives a score per record.
        kind: ``"power"``, ``"softmax"`` or ``"soft_rank"``: chances in proportion to ``score ** beta``,
            ``exp(beta * score)`` or ``rank ** -beta``. Under ``power``, records that score 0 come last,
            in random order.
        beta: above 0. The larger it is, the closer the query comes to the highest scores.

    Raises:
        ValueError: a strategy without a score, or a setting out of range.
        NegativeScores: under ``power``, when picking; the ids are named.

    Example:
        >>> from al_lightning.query import Margin
        >>> Stochastic(Margin()).needs_inference
        True
    """

    kind: Kind = "power"
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise ValueError(f"Stochastic(kind={self.kind!r}): allowed: {', '.join(KINDS)}.")
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"Stochastic(beta={self.beta}): allowed: a number above 0; 1 is the usual one.")

    def worth(
        self, *, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """The score, perturbed."""
        scores = super().worth(view=view, ids=ids, arrays=arrays, rng=rng)
        if self.kind == "power":
            check_not_negative(scores, ids, 'Stochastic(kind="power")')
        return perturbed_scores(scores, self.kind, self.beta, rng)
