"""The outcome of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L
import numpy as np

from al_lightning.cost.bill import Bill
from al_lightning.history import Reason, RoundRecord
from al_lightning.oracles.votes import Agreement


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hold the outcome of a run; printed, it is the bill, where weights and folder are, and why the run ended.

    Args:
        bill: everything it spent; ``bill.rho`` is its overhead factor.
        history: one record per trained round, the consolidating fit last if there was one.
        labelled: ids with a label, in the order of the rounds that first trained on them, then of the queries.
        model: the user's module, holding the delivered weights.
        trainer: the copy of the Trainer that ran the last fit; None if this call trained nothing.
        best_model_path: best checkpoint of the last fit where a ModelCheckpoint monitors, else the run's weights file.
        reason: why the run ended, or what it waits for.
        run_dir: its folder.
        agreement: how far people agree on records that more than one answered, or one twice.

    Example:
        >>> result = frugal(trainer, labels=400, run_dir="runs/mine").fit(model, pool)  # doctest: +SKIP
        >>> print(result)  # doctest: +SKIP
    """

    bill: Bill
    history: tuple[RoundRecord, ...]
    labelled: np.ndarray
    model: L.LightningModule
    trainer: L.Trainer | None
    best_model_path: str
    reason: Reason
    run_dir: Path
    agreement: tuple[Agreement, ...] = ()

    @property
    def rho(self) -> float | None:
        """All compute spent / one training on the labels the run ended with, in FLOPs."""
        return self.bill.rho

    @property
    def waits(self) -> bool:
        """Return whether the run waits for people, and the same call goes on."""
        return self.reason.kind in ("waiting", "approval")

    def __str__(self) -> str:
        lines = [
            str(self.bill),
            *(f"agreement, {pair}" for pair in self.agreement),
            f"weights: {self.best_model_path}",
            f"run folder: {self.run_dir}",
            str(self.reason) if self.waits else f"ended: {self.reason}",  # last: it may say what to do
        ]
        return "\n".join(lines)
