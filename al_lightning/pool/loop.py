"""The rounds of a loop the user writes by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from al_lightning.candidates.base import CandidateSelector, State
from al_lightning.cost.bill import Bill
from al_lightning.cost.budget import Budget
from al_lightning.history import History, RoundSize
from al_lightning.oracles.oracle import DatasetOracle, Oracle
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.turns import Loop, Round
from al_lightning.seeds import generator


def rounds(
    pool: PoolDataModule,
    *,
    sizes: RoundSize,
    budget: Budget | None = None,
    candidates: CandidateSelector | None = None,
    oracle: Oracle | None = None,
    seed: int = 0,
) -> Iterator[Round]:
    """Yield rounds until the sizes, the budget or the pool end, or a callback asks to stop.

    The first round's labels are bought before it is yielded, at random. The last round has size 0, so that the model
    is trained on all labels that were bought.

    Args:
        pool: the pool; its ``candidates`` are set for every round.
        sizes: how many records each query takes.
        budget: ``Budget(labels=...)``; queries are cut to fit it. Only labels are known to a hand-written loop.
        candidates: which records are inferred; default: all unlabelled ones.
        oracle: who answers the first query; default: the dataset's own labels.
        seed: of the first draw and of every round's generator.
    """
    pool.stop_reason, pool.loop = None, Loop()
    number = 0
    state: State = {}

    def next_size() -> int:
        history = History(
            pool_size=pool.size,
            unlabelled=len(pool.unlabelled),
            labelled=len(pool.labelled),
            round=number,
            bill=Bill(labels=len(pool.labelled), label_units=pool.label_units),
        )
        size = min(sizes(history), len(pool.unlabelled))
        return size if budget is None else min(size, budget.labels_left(history))

    if len(pool.labelled) == 0:
        pool.label(pool.state.draw(next_size(), generator(seed, 0, "initial")), oracle or DatasetOracle())
    while True:
        number += 1
        current = Round(number, next_size(), seed, stopped=lambda: pool.stop_reason is not None)
        if current.final:
            pool.candidates = np.zeros(0, dtype=np.int64)
        elif candidates is not None:
            pool.candidates, state = candidates.propose(
                view=pool.view(round=number), size=current.size, rng=generator(seed, number, "candidates"), state=state
            )
        else:
            pool.candidates = pool.unlabelled
        yield current
        if current.final:
            return
