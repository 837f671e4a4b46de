"""What the next round will cost, by what the rounds before have cost: a budget is kept by not beginning a round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from al_lightning.cost.bill import Line
from al_lightning.cost.ledger import Entry
from al_lightning.fit_plan import FitPlan, Length

SLACK = 1.2
"""Seconds are expected to be this much more than they were per record in the last round: they vary from run to run."""
_PASSES = ("score", "agree")
_BESIDE = ("cluster", "neighbours", "select")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What past rounds say about the next.

    Args:
        entries: the ledger.
        flops: FLOPs per record by kind of pass.
        epochs: epochs each fit trained, in the order of rounds, ``{round: epochs}``.
        recipe: the Trainer's own epochs, None where nothing limits them.
        share: of an epoch's records that the Trainer's limits let it train on.
        world: processes.
    """

    entries: Sequence[Entry]
    flops: dict[str, float]
    epochs: dict[int, int]
    recipe: int | None
    share: float = 1.0
    world: int = 1

    def line(self, phases: Sequence[str], round: int | None = None) -> Line:
        """All work of these phases, or that of one round."""
        line = Line()
        for entry in self.entries:
            if entry.phase in phases and round in (None, entry.round):
                line = line + entry
        return line

    def pace(self, phases: Sequence[str], otherwise: float) -> float:
        """Seconds per record in the last round that had such work."""
        rounds = [e.round for e in self.entries if e.phase in phases and e.records]
        if not rounds:
            return otherwise
        last = self.line(phases, max(rounds))
        return last.seconds / last.records

    @property
    def forward(self) -> float:
        """FLOPs of inferring a record; before the first scoring, those of validating one, or half a training pass."""
        return self.flops.get("forward", self.flops.get("validate", self.flops.get("train", 0.0) / 2))

    def fit(self, plan: FitPlan, *, labelled: int, new: int, round: int) -> Iterator[Entry]:
        """A fit's training and validation.

        Args:
            plan: of the fit.
            labelled: records with a label.
            new: how many of them are new.
            round: for the ledger.
        """
        length = Length.of(plan, recipe=self.recipe, labelled=labelled, new=new)
        epochs = length.epochs or self.recipe or max(self.epochs.values(), default=1)
        records = length.records or labelled
        if plan.replay is not None and 0 < new < labelled:
            records = new + min(labelled - new, math.ceil(plan.replay * new))
        records = math.ceil(records / self.world) * self.world * epochs  # Lightning evens out the processes' shares
        records = math.ceil(records * self.share) + (labelled if plan.start == "dash" else 0)
        pace = SLACK * self.pace(("train",), 0.0)
        yield Entry(
            phase="train", round=round, records=records, flops=records * self.flops["train"], seconds=records * pace
        )
        # A check before the first epoch lets validation grow more slowly than epochs: every round is an upper bound.
        past = [(self.line(("validate",), r).records, max(1, e)) for r, e in self.epochs.items()]
        if checked := math.ceil(min((n * max(1.0, epochs / e) for n, e in past if n), default=0.0)):
            flops = checked * self.flops.get("validate", self.forward)
            seconds = checked * SLACK * self.pace(("validate",), pace)
            yield Entry(phase="validate", round=round, records=checked, flops=flops, seconds=seconds)

    def inference(self, phase: str, records: int, *, passes: int = 1, round: int) -> Entry:
        """Scoring, or the stop set."""
        pace = SLACK * self.pace(_PASSES, self.pace(("validate",), self.pace(("train",), 0.0)))
        flops = records * passes * self.forward
        return Entry(phase=phase, round=round, records=records, flops=flops, seconds=records * passes * pace)

    def beside(self, round: int) -> Entry:
        """Neighbours, clusters and the choice itself: as much as in the round that had most of it, and a half more."""
        rounds = {e.round for e in self.entries if e.phase in _BESIDE}
        lines = [self.line(_BESIDE, r) for r in rounds]
        flops, seconds = (max((getattr(x, name) for x in lines), default=0.0) for name in ("flops", "seconds"))
        return Entry(phase="select", round=round, flops=1.5 * flops, seconds=1.5 * seconds)
