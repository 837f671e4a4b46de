"""Whether it pays to infer on other machines: by what share of the work inference is."""

from __future__ import annotations

from dataclasses import dataclass

from al_lightning.cost.bill import Bill
from al_lightning.planning.architectures import BACKWARD

INFERENCE = ("score", "embed", "agree")
EFFICIENCY = 0.9
"""What is left of a worker's time after shards were handed out (benchmarks/distributed.py)."""
WORTH = 1.1
"""A run should become at least this much faster: less is not worth a cluster."""


@dataclass(frozen=True, kw_only=True)
class Distributing:
    """A verdict.

    Args:
        share: of all seconds that inference takes on one machine.
        workers: of the same speed as that machine.
        speedup: of the whole run, by Amdahl's law; at most ``1 / (1 - share)``.
        money: of the whole run's compute, as a share of what it costs on one machine.
    """

    share: float
    workers: int
    speedup: float
    money: float

    @property
    def pays(self) -> bool:
        """Return whether the run becomes faster or cheaper by enough."""
        return self.speedup >= WORTH or self.money <= 1 / WORTH

    def __str__(self) -> str:
        return (
            f"inference is {self.share:.0%} of the compute: {self.workers} workers make the run {self.speedup:.2f} "
            f"times as fast, for {self.money:.2f} of the money; distributing "
            f"{'pays' if self.pays else 'does not pay'}"
        )


def distributing(share: float, workers: int, *, discount: float = 1.0) -> Distributing:
    """Return whether it pays, by Amdahl's law.

    A pool whose inference is 4 % of the compute gains next to nothing, whatever the workers; at 65 % eight workers make
    a run more than twice as fast.

    >>> print(distributing(0.04, 8))
    inference is 4% of the compute: 8 workers make the run 1.04 times as fast, for 1.00 of the money; distributing \
does not pay
    >>> print(distributing(0.65, 8, discount=0.3))
    inference is 65% of the compute: 8 workers make the run 2.27 times as fast, for 0.57 of the money; distributing pays

    Args:
        share: of all seconds that inference takes on one machine, 0 to 1.
        workers: of the same speed as that machine.
        discount: price of a worker's hour / price of that machine's, for example 0.3 for spot machines.

    Raises:
        ValueError: a share, or a number of workers, out of range.
    """
    if not 0 <= share <= 1 or workers < 1:
        raise ValueError(f"distributing({share}, {workers}): allowed: a share of 0 to 1, and 1 worker or more.")
    left = 1 - share + share / (workers * EFFICIENCY)
    return Distributing(share=share, workers=workers, speedup=1 / left, money=1 - share + share * discount / EFFICIENCY)


def inference_share(bill: Bill, *, records: int = 0) -> float | None:
    """Share of a bill's seconds that are inference; None of an empty bill.

    Args:
        bill: measured, or planned.
        records: to be inferred on top of it; a record takes what it took before, or a third of a training pass.
    """
    inferred = [bill.lines[phase] for phase in INFERENCE if phase in bill.lines and bill.lines[phase].records]
    seconds, count = sum(line.seconds for line in inferred), sum(line.records for line in inferred)
    train = bill.lines.get("train")
    pace = (
        seconds / count if count else train.seconds / train.records / (1 + BACKWARD) if train and train.records else 0.0
    )
    total = bill.seconds + records * pace
    return (seconds + records * pace) / total if total else None
