"""Shards that were answered, on disk until all are: a driver that is killed does not pay for them twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.run.durable import UNREADABLE, check_seal, read_arrays, sealed, write_aside
from al_lightning.scoring.ray.worker import Done
from al_lightning.scoring.shards import Shard

_FORWARD = "forward"


class Kept:
    """A folder of answered shards.

    Args:
        folder: made when the first one comes; None keeps nothing.
        key: of the weights and the question; answers to others are never read.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = None if folder is None else folder / key

    def write(self, shard: Shard, done: Done) -> None:
        """Keep a shard's answers."""
        if self._folder is None:
            return
        forward = done.known.get(_FORWARD, np.nan)
        arrays: dict[str, Any] = {f"of {name}": values for name, values in done.arrays.items()}
        arrays |= {"ids": shard.ids, "spent": np.array([done.width, done.flops, done.seconds, forward, done.bytes])}
        write_aside(self._folder / f"{shard.start}.npz", sealed(lambda file: np.savez(file, **arrays)))

    def read(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Done]]:
        """Those of these shards that were answered; what is damaged is simply scored again."""
        for shard in shards:
            found = self._one(shard)
            if found is not None:
                yield shard, found

    def _one(self, shard: Shard) -> Done | None:
        path = None if self._folder is None else self._folder / f"{shard.start}.npz"
        if path is None or not path.exists():
            return None
        try:
            check_seal(path)
            arrays = read_arrays(path)
            ids, (width, flops, seconds, forward, read) = arrays.pop("ids"), arrays.pop("spent").tolist()
        except UNREADABLE:
            return None
        if not np.array_equal(ids, shard.ids):
            return None
        named = {name.removeprefix("of "): values for name, values in arrays.items()}
        known = {} if np.isnan(forward) else {_FORWARD: forward}
        return Done(arrays=named, width=int(width), flops=flops, seconds=seconds, known=known, bytes=int(read))


class Gathered:
    """Rows of all shards in one place each.

    Args:
        records: rows there will be.
    """

    def __init__(self, records: int) -> None:
        self.fresh = np.zeros(records, dtype=bool)
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, shard: Shard, arrays: dict[str, np.ndarray]) -> None:
        """Put a shard's rows where they belong."""
        at = slice(shard.start, shard.start + len(shard))
        for name, rows in arrays.items():
            if name not in self.arrays:
                self.arrays[name] = np.zeros((len(self.fresh), *rows.shape[1:]), rows.dtype)
            self.arrays[name][at] = rows
        self.fresh[at] = True

    def rows(self) -> dict[str, np.ndarray]:
        """Arrays of what has come, in order."""
        if self.fresh.all():
            return self.arrays
        return {name: values[self.fresh] for name, values in self.arrays.items()}


def missing(shards: Iterable[Shard], have: Iterable[Shard]) -> list[Shard]:
    """Shards that are not among those we have."""
    known = {shard.start for shard in have}
    return [shard for shard in shards if shard.start not in known]
