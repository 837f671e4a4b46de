"""FLOPs, measured on the user's model instead of assumed: forward and forward-and-backward apart, no 1:3 rule."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from al_lightning.cost.flop_count import FlopCount, UncompiledCount
from al_lightning.errors import UnknownFlops

UNKNOWN = float("nan")
"""FLOPs that could not be counted: whatever they are added to is unknown, too."""
T = TypeVar("T")


class FlopMeter:
    """FLOPs per record by kind of pass, each measured once on a real batch.

    Matrix products, convolutions, attention and recurrent layers are counted (2 per multiply-add) by the formulas of
    ``torch.utils.flop_counter``; element-wise work is not. Counting slows a pass down several times, so one batch per
    kind is measured and the rest multiplied. A pass that cannot be counted runs as it would have, and the FLOPs of its
    kind are unknown.

    Args:
        known: measurements of an earlier process, ``{kind: FLOPs per record}``.
        unknown: kinds it could not count, ``{kind: why}``.

    Attributes:
        per_record: FLOPs of a record by kind, as measured.
        unknown: why kinds could not be counted.
        needed_by: a limit that cannot be kept without FLOPs; None: there is none.
    """

    def __init__(self, known: Mapping[Hashable, float] | None = None, unknown: Mapping[str, str] | None = None) -> None:
        self.per_record: dict[Hashable, float] = dict(known or {})
        self.unknown: dict[str, str] = dict(unknown or {})
        self.needed_by: str | None = None
        self._count: FlopCount | None = None
        self._inside = False

    def known(self) -> dict[Hashable, float]:
        """FLOPs of a record by kind; NaN for those that could not be counted."""
        return {**dict.fromkeys(self.unknown, UNKNOWN), **self.per_record}

    def start(self, kind: Hashable, *, uncompiled: bool = False) -> None:
        """Begin counting, unless this kind has been measured, or a count is already running.

        Args:
            kind: of pass.
            uncompiled: whether a step that is compiled as a whole runs uncompiled while it is counted.
        """
        if kind not in self.per_record and str(kind) not in self.unknown and self._count is None:
            self._count = UncompiledCount() if uncompiled else FlopCount()

    def part(self, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Run part of a pass, and count it if a count is running."""
        if self._count is None or self._inside:
            return work(*args, **kwargs)
        self._inside = True
        try:
            with self._count:
                return work(*args, **kwargs)
        finally:
            self._inside = False

    def stop(self, kind: Hashable, records: int) -> None:
        """End a count that :meth:`start` began for ``records`` records.

        Raises:
            UnknownFlops: they could not be counted, and a limit needs them.
        """
        count, self._count = self._count, None
        if count is None or not records:
            return
        if count.why_not is None:
            self.per_record[kind] = count.total / records
            return
        self.unknown[str(kind)] = count.why_not
        if self.needed_by is not None:
            raise UnknownFlops(self.needed_by, self.unknown)
        warnings.warn(
            f"FLOPs of {kind!r} are unknown, and rho is in seconds: {count.why_not}. Nothing else changes.",
            stacklevel=2,
        )

    def cancel(self) -> None:
        """Drop a running count: the pass failed."""
        self._count = None

    @contextmanager
    def counting(self, kind: Hashable, records: int) -> Iterator[None]:
        """Count the block as one pass over ``records`` records, if this kind has not been measured yet."""
        self.start(kind)
        try:
            if self._count is None or self._inside:
                yield
            else:
                with self._count:
                    yield
        except BaseException:
            self.cancel()
            raise
        self.stop(kind, records)

    def flops(self, kind: Hashable, records: int) -> float:
        """FLOPs of ``records`` records; 0 for a kind that never ran, NaN where they could not be counted."""
        if records and str(kind) in self.unknown:
            return UNKNOWN
        return self.per_record.get(kind, 0.0) * records
