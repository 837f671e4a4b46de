"""What a fit validates, as far as its Trainer and its data say so beforehand."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as L

ALL = sys.maxsize
"""Batches of a whole pass, however many there are."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Records that fits validate.

    Args:
        records: of one pass.
        batch: of one batch.
        per_epoch: passes in an epoch.
        before: records that are validated before a fit's first epoch, Lightning's sanity check.
    """

    records: int
    batch: int
    per_epoch: float = 1.0
    before: int = 0

    @classmethod
    def of(cls, trainer: L.Trainer, pool: Any) -> Validation | None:
        """Read it off a Trainer and its pool; None where nothing is validated, or only the module's own data are."""
        labels, batch = pool.val_labels, pool.eval_batch_size or pool.batch_size or 1
        batches, limit = math.ceil(labels / batch), trainer.limit_val_batches
        kept = min(batches, limit) if isinstance(limit, int) else int(batches * (limit or 0.0))
        if not kept:
            return None
        every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
        often = int(1 / interval) if isinstance(interval, float) and interval > 0 else 1
        sanity = min(kept, trainer.num_sanity_val_steps)
        return cls(
            records=min(labels, kept * batch),
            batch=batch,
            per_epoch=often / (every or 1),
            before=int(min(labels, sanity * batch)),
        )

    @property
    def batches(self) -> int:
        """Batches of one pass."""
        return math.ceil(self.records / self.batch)

    def once(self, batches: int) -> int:
        """Records of one pass over so many batches at most."""
        return min(self.records, batches * self.batch)

    def seen(self, found: dict[str, int] | None) -> Validation:
        """The same, with records and batches as a fit has met them."""
        return replace(self, **found) if found else self
