"""Scores of a record's parts (labels, pixels, tokens) become the record's own, by a named reduction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOP = 0.1
"""Share of a record's parts that ``top`` averages."""


def _mean(scores: Tensor, mask: Tensor) -> Tensor:
    return (scores * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _sum(scores: Tensor, mask: Tensor) -> Tensor:
    return (scores * mask).sum(dim=1)


def _max(scores: Tensor, mask: Tensor) -> Tensor:
    highest = scores.masked_fill(~mask, -torch.inf).amax(dim=1)
    return torch.where(mask.any(dim=1), highest, 0.0)


def _top(scores: Tensor, mask: Tensor) -> Tensor:
    counted = mask.sum(dim=1)
    wanted = (TOP * counted).ceil().long()
    ordered = scores.masked_fill(~mask, -torch.inf).sort(dim=1, descending=True).values
    taken = torch.arange(scores.shape[1], device=scores.device) < wanted[:, None]
    return torch.where(taken, ordered, 0.0).sum(dim=1) / wanted.clamp(min=1)


_REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "sum": _sum, "max": _max, "top": _top}
REDUCTIONS = tuple(_REDUCTIONS)
"""``mean``, ``sum`` (favours long records), ``max``, or ``top``: the mean of the highest tenth."""


def check_reduction(reduction: str, who: str) -> None:
    """Raise ValueError for a name that is none of :data:`REDUCTIONS`."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{who}(reduction={reduction!r}): allowed: {', '.join(REDUCTIONS)}.")


def reduced(scores: Tensor, mask: Tensor | None, reduction: str) -> Tensor:
    """One score per record.

    Args:
        scores: ``(n,)`` already, or ``(n, ...)``, one score per part.
        mask: of the shape of ``scores``, true where a part counts; None: all do. Parts that do not count may hold
            anything, also NaN. A record of which no part counts scores 0.
        reduction: one of :data:`REDUCTIONS`.

    Returns:
        ``(n,)``.
    """
    if scores.ndim == 1:
        return scores
    parts = scores.flatten(start_dim=1)
    counts = torch.ones_like(parts, dtype=torch.bool) if mask is None else mask.flatten(start_dim=1).bool()
    return _REDUCTIONS[reduction](torch.where(counts, parts, 0.0), counts)
