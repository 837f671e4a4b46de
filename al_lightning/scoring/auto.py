"""AutoScorer: other machines only where that pays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as L
import numpy as np

from al_lightning.cost.bill import Bill
from al_lightning.cost.distributing import Distributing, distributing, inference_share
from al_lightning.cost.flops import FlopMeter
from al_lightning.errors import UnsupportedTrainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.scoring.question import Answers, Question, Scorer
from al_lightning.scoring.trainer import TrainerScorer


@dataclass(kw_only=True)
class AutoScorer:
    """Infer elsewhere where the share of inference makes that pay, else through the Trainer; and say which and why.

    The share is foreseen before every call, from the bill so far and the records to infer. Once it pays it stays there.

    Args:
        elsewhere: for example a ``RayScorer``; nothing is started before it pays.
        workers: of this machine's speed that it has.
        discount: price of a worker's hour / price of this machine's.
    """

    elsewhere: Scorer
    workers: int
    discount: float = 1.0

    every_rank: ClassVar[bool] = False
    verdict: Distributing | None = field(default=None, init=False)

    def run(
        self,
        *,
        trainer: L.Trainer,
        model: L.LightningModule,
        pool: PoolDataModule,
        ids: np.ndarray,
        question: Question,
        meter: FlopMeter,
        least: int | None = None,
        scratch: Path | None = None,
        bill: Bill | None = None,
    ) -> Answers:
        """Ask there or here, see :class:`~al_lightning.scoring.question.Scorer`.

        Raises:
            UnsupportedTrainer: a job of several processes, which infers on all of them already.
        """
        if trainer.world_size > 1:
            raise UnsupportedTrainer(
                f"AutoScorer with {trainer.world_size} processes: the Trainer infers on all of them already. Leave "
                "scoring= out, or pass the RayScorer itself."
            )
        if self.verdict is None or not self.verdict.pays:
            self._decide(bill or Bill(), len(ids))
        scorer = self.elsewhere if self.verdict is not None and self.verdict.pays else TrainerScorer()
        return scorer.run(
            trainer=trainer,
            model=model,
            pool=pool,
            ids=ids,
            question=question,
            meter=meter,
            least=least,
            scratch=scratch,
        )

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
