"""Scores of many distributions, a block of rows at a time: what is computed on the way stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SMALL, LARGE = 1 << 16, 1 << 19
"""Numbers in a block; 2 MiB of float32 where memory matters less than that threads wait for each other."""


def blocks_of(rows: Tensor, size: int = SMALL) -> tuple[Tensor, ...]:
    """Views of ``(n, C)``, a block of rows each where they lie in main memory; all rows in one on other devices.

    Args:
        rows: ``(n, C)``.
        size: numbers in a block.
    """
    return rows.split(max(1, size // rows.shape[1]) if rows.device.type == "cpu" else max(1, len(rows)))


def by_rows(score: Callable[[Tensor], Tensor], probabilities: Tensor) -> Tensor:
    """Apply a function of rows to all of them, block by block.

    Args:
        score: maps ``(rows, C)`` to ``(rows,)``.
        probabilities: ``(..., C)``.

    Returns:
        ``(...,)``.
    """
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    blocks = blocks_of(rows)
    if len(blocks) == 1:
        return score(rows).reshape(probabilities.shape[:-1])
    scores = torch.empty(len(rows), dtype=rows.dtype)
    for part, block in zip(scores.split(len(blocks[0])), blocks, strict=True):
        part.copy_(score(block))
    return scores.reshape(probabilities.shape[:-1])
