"""What work will cost, by what work has cost: a budget is kept by not beginning a round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from al_lightning.cost.bill import Line
from al_lightning.cost.ledger import Entry
from al_lightning.cost.validation import Validation
from al_lightning.fit.plan import FitPlan, Length

SLACK = 1.2
"""Seconds are expected to be this much more than they were per record in the last round: they vary from run to run."""
_PASSES = ("score", "agree")
_BESIDE = ("cluster", "neighbours", "select")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Hold what past rounds say about the next.

    Args:
        entries: the ledger.
        flops: FLOPs per record by kind of pass.
        epochs: epochs each fit trained, in the order of rounds, ``{round: epochs}``.
        recipe: the Trainer's own epochs, None where nothing limits them.
        share: of an epoch's records that the Trainer's limits let it train on.
        world: processes.
        paces: seconds that a ``step`` of a training takes, an ``epoch`` beside its steps and a ``fit`` beside its
            loop, and the records of a ``batch``; empty: by the record, as in the last round.
        final: FLOPs and seconds of training on a record in the consolidating fit, where that is of another model.
        validation: what a fit validates where its plan has it validate once.
        tuning: records that Lightning's finders train on before a fit.
        distance: FLOPs of comparing a candidate with a labelled record, as long as no query has shown them.
        features: width of the pool's features, as far as picks are foreseen by it.
        answers: numbers that the model says of a candidate, likewise.
        guessed: FLOPs of inferring a record that the first candidates are counted by; None: what has been measured.
        cautious: whether seconds, and work beside inference, are upper bounds, for a budget; else they are expected.
    """

    entries: Sequence[Entry]
    flops: dict[str, float]
    epochs: dict[int, int]
    recipe: int | None
    share: float = 1.0
    world: int = 1
    paces: Mapping[str, float] = field(default_factory=dict)
    final: tuple[float, float] | None = None
    validation: Validation | None = None
    tuning: int = 0
    distance: float = 0.0
    features: int = 0
    answers: int = 0
    guessed: float | None = None
    cautious: bool = True
    _paces: dict[Sequence[str], float | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def assumed(
        cls,
        *,
        train: tuple[float, float],
        forward: tuple[float, float],
        epochs: int,
        validated_per_epoch: int = 0,
        validated_per_fit: int = 0,
    ) -> Measured:
        """Return what would have been measured, before anything was.

        Args:
            train: FLOPs and seconds of a record's forward and backward pass.
            forward: those of inferring it.
            epochs: of the recipe.
            validated_per_epoch: records that are validated in every epoch.
            validated_per_fit: records that are validated in every fit besides.
        """
        one = {"train": train, "agree": forward}  # agreement takes one pass, however many a score takes
        entries = [Entry(phase=p, round=0, records=1, flops=cost[0], seconds=cost[1]) for p, cost in one.items()]
        trained = {0: 1, -1: epochs}
        for round, count in trained.items():
            if n := validated_per_fit + count * validated_per_epoch:
                flops, seconds = (n * each for each in forward)
                entries.append(Entry(phase="validate", round=round, records=n, flops=flops, seconds=seconds))
        per_record = {"train": train[0], "forward": forward[0]}
        return cls(entries=entries, flops=per_record, epochs=trained, recipe=epochs, cautious=False)

    def line(self, phases: Sequence[str], round: int | None = None) -> Line:
        """All work of these phases, or that of one round."""
        line = Line()
        for entry in self.entries:
            if entry.phase in phases and round in (None, entry.round):
                line = line + entry
        return line

    def pace(self, phases: Sequence[str], otherwise: float) -> float:
        """Seconds per record in the last round that had such work."""
        if phases not in self._paces:
            rounds = [e.round for e in self.entries if e.phase in phases and e.records]
            last = self.line(phases, max(rounds)) if rounds else None
            self._paces[phases] = last.seconds / last.records if last else None
        known = self._paces[phases]
        return otherwise if known is None else known

    @property
    def slack(self) -> float:
        """Factor of seconds."""
        return SLACK if self.cautious else 1.0

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
        records = math.ceil(records * self.share) + (labelled if plan.start == "dash" else 0) + self.tuning
        other = self.final if plan.final else None
        flops, pace = other or (self._training(plan, new < labelled), self.pace(("train",), 0.0))
        seconds = records * self.slack * pace
        if self.paces and not self.cautious and other is None:
            steps = epochs * math.ceil(records / epochs / self.paces["batch"])
            seconds = steps * self.paces["step"] + epochs * self.paces["epoch"] + self.paces["fit"]
        yield Entry(phase="train", round=round, records=records, flops=records * flops, seconds=seconds)
        checked = self._validated(epochs)
        if plan.val_batches is not None and self.validation is not None:
            checked = self.validation.once(plan.val_batches)
        if checked:
            # Of another model's validation nothing is known but that it is no dearer than its training.
            known = self.flops.get("validate", self.forward), self.pace(("validate",), self.slack * pace)
            flops, pace = other or known
            seconds = checked * self.slack * pace
            yield Entry(phase="validate", round=round, records=checked, flops=checked * flops, seconds=seconds)

    def _training(self, plan: FitPlan, warm: bool) -> float:
        """FLOPs of training on a record: expected, with what is frozen and distilled, where that has been met."""
        kind = replace(plan, cached=False).kind(distils=warm and plan.distill is not None)
        return self.flops["train"] if self.cautious else self.flops.get(kind, self.flops["train"])

    def _validated(self, epochs: int) -> int:
        """Records that a fit of so many epochs validates."""
        past = [(max(1, e), n) for r, e in self.epochs.items() if (n := self.line(("validate",), r).records)]
        (short, few), (long, many) = min(past, default=(0, 0)), max(past, default=(0, 0))
        if not self.cautious and short < long:
            return round(few + (many - few) * (epochs - short) / (long - short))
        # A check before the first epoch lets validation grow more slowly than epochs: every round is an upper bound.
        return math.ceil(min((n * max(1.0, epochs / e) for e, n in past), default=0.0))

    def inference(self, phase: str, records: int, *, passes: int = 1, round: int) -> Entry:
        """Scoring, or the stop set."""
        other = passes * self.pace(_PASSES, self.pace(("validate",), self.pace(("train",), 0.0)))
        seconds = self.slack * records * self.pace((phase,), other)  # where it was done before, all passes are in it
        return Entry(phase=phase, round=round, records=records, flops=records * passes * self.forward, seconds=seconds)

    def beside(self, round: int, labelled: Mapping[int, int] | None = None) -> Entry:
        """Neighbours, clusters and the choice itself.

        To be kept: as much as in the round that had most of it, and a half more. Expected: distances as in the last
        round, by the labels since; what a run makes once (clusters, projections) not again.

        Args:
            round: for the ledger.
            labelled: records with a label in each round so far and in this one, where it is to be expected.
        """
        if labelled is not None and not self.cautious:
            return self._expected_beside(round, labelled)
        lines = [self.line(_BESIDE, r) for r in {e.round for e in self.entries if e.phase in _BESIDE}]
        flops, seconds = (max((getattr(x, name) for x in lines), default=0.0) for name in ("flops", "seconds"))
        return Entry(phase="select", round=round, flops=1.5 * flops, seconds=1.5 * seconds)

    def _expected_beside(self, round: int, labelled: Mapping[int, int]) -> Entry:
        flops = seconds = 0.0
        for phase in ("neighbours", "select"):
            last = next((e for e in reversed(self.entries) if e.phase == phase), None)
            if last is not None and last.round in labelled:
                growth = labelled[round] / labelled[last.round] if phase == "neighbours" else 1.0
                flops, seconds = flops + growth * last.flops, seconds + growth * last.seconds
        return Entry(phase="select", round=round, flops=flops, seconds=seconds)
