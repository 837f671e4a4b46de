"""Features are read block by block, so that a memory map larger than memory will do."""

from __future__ import annotations

_BLOCK = 1 << 22
"""Numbers read at once: 16 MiB of float32."""


def row_blocks(rows: int, width: int, numbers: int | None = None) -> list[slice]:
    """Slices that cover ``rows`` rows of ``width`` numbers, at most ``numbers`` (by default 4 million) numbers each."""
    step = max(1, (numbers or _BLOCK) // width)
    return [slice(start, start + step) for start in range(0, rows, step)]
