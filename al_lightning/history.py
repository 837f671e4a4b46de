"""What has happened so far, as plain data: the only thing that policies, sizes and stopping rules decide on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from al_lightning.cost.bill import Bill


@dataclass(frozen=True)
class Reason:
    """Hold why something was decided: a kind to branch on, a sentence to read, the numbers behind it.

    Args:
        kind: for example ``"plateau"``, ``"stall"``, ``"budget"``, ``"exhausted"``, ``"waiting"``, ``"gave_up"``.
        sentence: one sentence for people.
        numbers: JSON-able values the decision was made from.
    """

    kind: str
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One trained round.

    Args:
        round: number of queries committed when the model was trained, 1 for the first fit.
        labelled: records with a label when the model was trained.
        queried: size of the query that opened the round.
        metrics: what the user's module logged, of the weights that were kept.
        epochs: epochs trained.
        start: where the weights came from (see :class:`~al_lightning.fit.plan.FitPlan`).
        attempts: fits this round took; more than one after a stall.
        restarted: whether the weights were drawn anew for this round after a stall.
        agreement: Cohen's kappa with the previous round's predictions on the stop set, or None.
        uncertainty: mean of the query strategy's fresh scores of those records, by the previous round's model, or None.
        coverage: share of the unlabelled records that labelled ones cover, measured where a rule asks for it, or None.
        candidates: records inferred to make the query that opened the round.
        stale: records of that query picked by an earlier round's score.
        final: whether this is the consolidating fit at the end.
        cost: FLOPs, seconds and money spent up to and including this fit; bytes read, where the dataset counts them,
            and ``seconds_lost``, those of the seconds that interruptions have cost, where there were any.
        forecast: labels bought, FLOPs, seconds, money and rho at the run's end, foreseen after this fit from measured
            costs; empty where that cannot be foreseen. The first round's is the plan that later ones are held against.
    """

    round: int
    labelled: int
    queried: int
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: int = 0
    start: str = "initial"
    attempts: int = 1
    restarted: bool = False
    agreement: float | None = None
    uncertainty: float | None = None
    coverage: float | None = None
    candidates: int = 0
    stale: int = 0
    final: bool = False
    cost: dict[str, float] = field(default_factory=dict)
    forecast: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-able data; ``RoundRecord(**data)`` reads it back."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Control:
    """Hold what the recipe reaches from new weights on validation records drawn at random, judged on the others.

    Args:
        labels: records it was trained on, no more than the run had.
        accuracy: of the metric that is watched, 0 to 1.
        judged: records it was judged on.
        chance: share of their commonest class.
        agreed: share of the labels bought so far that it predicts; None where that cannot be told.
        compared: how many those are.
    """

    labels: int
    accuracy: float
    judged: int
    chance: float
    agreed: float | None = None
    compared: int = 0

    @property
    def has_learnt(self) -> bool:
        """Return whether it is clearly better than the commonest class alone: three standard errors."""
        noise = (self.chance * (1 - self.chance) / max(1, self.judged)) ** 0.5
        return self.accuracy > self.chance + max(0.01, 3 * noise)


@dataclass(frozen=True, kw_only=True)
class History:
    """Everything a decision may look at.

    Args:
        rounds: the rounds trained so far, oldest first, the final fit excluded.
        pool_size: records in the pool.
        unlabelled: records that may still be queried.
        labelled: records with a label now.
        round: queries committed so far.
        val_labels: labelled records that validation uses, 0 where they are not known.
        bill: what has been spent so far.
        ahead: what will have been spent after one more round and the shortest final fit that follows, by measured
            costs; None before the first round, and where no rule needs it.
        control: what a random selection reached; None where nothing asks for it, and before the first round.
    """

    rounds: tuple[RoundRecord, ...] = ()
    pool_size: int
    unlabelled: int
    labelled: int = 0
    round: int = 0
    val_labels: int = 0
    bill: Bill = field(default_factory=Bill)
    ahead: Bill | None = None
    control: Control | None = None

    @property
    def since_restart(self) -> tuple[RoundRecord, ...]:
        """The rounds from the last restart on; all of them where there was none."""
        return self.rounds[max((i for i, r in enumerate(self.rounds) if r.restarted), default=0) :]

    def values(self, monitor: str) -> list[float]:
        """The monitored value of every round that has it, oldest first."""
        return [r.metrics[monitor] for r in self.rounds if monitor in r.metrics]


class RoundSize(Protocol):
    """Map the history to the size of the next query; 0 means no further round."""

    def __call__(self, history: History, /) -> int: ...
