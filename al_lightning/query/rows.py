"""Scores of many distributions, a block of rows at a time: what is computed on the way stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SMALL, LARGE = 1 << 17, 1 << 19
"""Numbers in a block: half a MiB of float32; two MiB, where memory matters less than waits of threads for each other."""


def by_rows(score: Callable[[Tensor], Tensor], probabilities: Tensor, block: int = SMALL) -> Tensor:
    """Apply a function of rows to all of them, in blocks where they lie in main memory.

    Args:
        score: maps ``(rows, C)`` to ``(rows,)``.
        probabilities: ``(..., C)``.
        block: numbers in a block.

    Returns:
        ``(...,)``.
    """
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    step = max(1, block // rows.shape[1]) if rows.device.type == "cpu" else max(1, len(rows))
    if len(rows) <= step:
        return score(rows).reshape(probabilities.shape[:-1])
    scores = torch.empty(len(rows), dtype=rows.dtype)
    for start in range(0, len(rows), step):
        scores[start : start + step] = score(rows[start : start + step])
    return scores.reshape(probabilities.shape[:-1])
