"""AutoScorer: other machines only where that pays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import ClassVar

from al_lightning.cost.bill import Bill
from al_lightning.errors import UnsupportedTrainer
from al_lightning.planning.distributing import Distributing, distributing, inference_share
from al_lightning.scoring.question import Answers, Request, Scorer
from al_lightning.scoring.trainer import TrainerScorer


@dataclass(kw_only=True)
class AutoScorer:
    """Infer elsewhere where the share of inference makes that pay, else through the Trainer; and say which and why.

    The share is foreseen before every call, from the bill so far and the records to infer. Once it pays it stays there.

    Args:
        elsewhere: for example a ``RayScorer``; nothing is started before it pays.
        workers: of this machine's speed that it has.
        discount: price of a worker's hour / price of this machine's.

    Example:
        >>> scorer = AutoScorer(elsewhere=RayScorer(), workers=8)  # doctest: +SKIP
    """

    elsewhere: Scorer
    workers: int
    discount: float = 1.0

    every_rank: ClassVar[bool] = False
    verdict: Distributing | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"AutoScorer(workers={self.workers}): allowed: 1 or more.")
        if not self.discount > 0:
            raise ValueError(f"AutoScorer(discount={self.discount}): a ratio of prices, allowed: above 0.")

    def run(self, request: Request) -> Answers:
        """Ask there or here, see :class:`~al_lightning.scoring.question.Scorer`.

        Raises:
            UnsupportedTrainer: a job of several processes, which infers on all of them already.
        """
        if request.trainer.world_size > 1:
            raise UnsupportedTrainer(
                f"AutoScorer with {request.trainer.world_size} processes: the Trainer infers on all of them already. "
                "Leave scoring= out, or pass the RayScorer itself."
            )
        if self.verdict is None or not self.verdict.pays:
            self._decide(request.bill.undisturbed, len(request.ids))
        there = self.verdict is not None and self.verdict.pays
        return (self.elsewhere if there else TrainerScorer()).run(request)

    def _decide(self, bill: Bill, records: int) -> None:
        share, before = inference_share(bill, records=records), self.verdict
        if share is None:
            return
        self.verdict = distributing(share, self.workers, discount=self.discount)
        if before is None or before.pays != self.verdict.pays:
            warnings.warn(f"{self.verdict}.", stacklevel=2)

    def close(self) -> None:
        """Let go of machines."""
        self.elsewhere.close()
