"""FLOPs, measured on the user's model instead of assumed: forward and forward-and-backward apart, no 1:3 rule."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def batch_length(batch: Any) -> int:
    """Records in a collated batch: the first length found in a tensor, going into dicts, tuples and lists."""
    if isinstance(batch, Tensor | np.ndarray):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if hasattr(batch, "values") else batch
    if isinstance(parts, str | bytes) or not hasattr(parts, "__iter__"):
        return 0
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], str):
        return len(batch)
    return next((n for n in map(batch_length, parts) if n), 0)


class FlopMeter:
    """FLOPs per record by kind of pass, each measured once on a real batch.

    Matrix multiplications, convolutions and attention are counted (2 per multiply-add) by
    ``torch.utils.flop_counter``; element-wise work is not. Counting slows a pass down several times, so one batch per
    kind is measured and the rest multiplied.

    Args:
        known: measurements of an earlier process, ``{kind: FLOPs per record}``.
    """

    def __init__(self, known: dict[Any, float] | None = None) -> None:
        self.per_record: dict[Hashable, float] = dict(known or {})
        self._mode: FlopCounterMode | None = None

    def start(self, kind: Hashable) -> None:
        """Begin counting, unless this kind is known or a count is already running."""
        if kind not in self.per_record and self._mode is None:
            self._mode = FlopCounterMode(display=False)
            self._mode.__enter__()

    def stop(self, kind: Hashable, records: int) -> None:
        """End a count that :meth:`start` began for ``records`` records."""
        if self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)
            if records:
                self.per_record[kind] = mode.get_total_flops() / records

    def cancel(self) -> None:
        """Drop a running count: the pass failed."""
        if self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)

    @contextmanager
    def counting(self, kind: Hashable, records: int) -> Iterator[None]:
        """Count the block as one pass over ``records`` records, if this kind is not known yet."""
        self.start(kind)
        try:
            yield
        except BaseException:
            self.cancel()
            raise
        self.stop(kind, records)

    def flops(self, kind: Hashable, records: int) -> float:
        """FLOPs of ``records`` records; 0 for a kind that never ran."""
        return self.per_record.get(kind, 0.0) * records
