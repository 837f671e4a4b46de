"""How many labels each round asks for. Fewer, larger rounds are the cheapest lever on compute.

A round size is any function of the history: it returns the size of the next query, and 0 means that there is no
further round. It is a wish: the caller cuts it to what the pool and the budget still hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from al_lightning.candidates.base import CandidateSelector
from al_lightning.candidates.whole import WholePool
from al_lightning.cost.ahead import Measured
from al_lightning.cost.bill import Line
from al_lightning.cost.course import Course
from al_lightning.fit.plan import FitPolicy
from al_lightning.history import History, RoundSize
from al_lightning.lazy import renamed
from al_lightning.planning.architectures import BACKWARD
from al_lightning.planning.efficiency import Efficiency, growing, whole_sizes


def _check_size(value: object, setting: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{setting}={value!r}: a round asks for a whole number of labels, allowed: 1 or more.")


@dataclass(frozen=True)
class Fixed:
    """Ask for the same number of labels every round.

    Args:
        size: labels per round.
        first: labels in the first round, ``size`` by default.

    Example:
        >>> Fixed(25)(History(pool_size=1000, unlabelled=1000))
        25
    """

    size: int
    first: int | None = None

    def __post_init__(self) -> None:
        _check_size(self.size, "Fixed: size")
        if self.first is not None:
            _check_size(self.first, "Fixed: first")

    def __call__(self, history: History, /) -> int:
        return self.first if self.first is not None and history.round == 0 else self.size


@dataclass(frozen=True)
class Growing:
    """Multiply the labelled set by a factor every round: 200, 200, 400, 800 labels for ``Growing(200, 2.0)``.

    The size follows the labels that are there, not the labels that were asked for: refused records are not made up.
    Training from scratch every round then costs at most ``factor / (factor - 1)`` times the last round's training.

    Args:
        first: labels in the first round, and in every round until one label has arrived.
        factor: labelled records after a round / before it, more than 1.

    Example:
        >>> Growing(200, 1.5)(History(pool_size=1000, unlabelled=800, labelled=200, round=1))
        100
    """

    first: int
    factor: float = 2.0

    def __post_init__(self) -> None:
        _check_size(self.first, f"{type(self).__name__}: first")
        if not 1 < self.factor < float("inf"):
            raise ValueError(
                f"{type(self).__name__}: factor={self.factor}: the labelled set is multiplied by it, allowed: more "
                "than 1. Use Fixed for rounds that do not grow."
            )

    def __call__(self, history: History, /) -> int:
        if history.round == 0 or history.labelled == 0:
            return self.first
        return max(1, round(history.labelled * (self.factor - 1)))


@dataclass(frozen=True)
class Doubling(Growing):
    """Double the labelled set every round: :class:`Growing` with a factor of 2.

    Example:
        >>> Doubling(first=50)(History(pool_size=1000, unlabelled=1000))
        50
    """

    factor: float = field(default=2.0, init=False)


@dataclass(frozen=True)
class Listed:
    """Ask for sizes written down, one per round; no further round after the last.

    Args:
        sizes: labels per round, at least one round.

    Example:
        >>> Listed([50, 100])(History(pool_size=1000, unlabelled=1000))
        50
    """

    sizes: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not self.sizes:
            raise ValueError("Listed(sizes=[]): no round at all; allowed: one size or more.")
        for size in self.sizes:
            _check_size(size, "Listed: one of sizes")

    def __call__(self, history: History, /) -> int:
        return self.sizes[history.round] if history.round < len(self.sizes) else 0


@dataclass(frozen=True)
class EvenRounds:
    """Spread a number of labels evenly over a number of rounds.

    What is still to be bought is divided by the rounds that are left: refused records are asked for again later, and
    labels that were there before the run make its rounds smaller.

    Args:
        labels: labelled records after the last round.
        rounds: how many rounds.
        shrink: whether a learner may take fewer where the rho of its fits could not be kept with these. What it takes
            is decided once, before the first label is bought, and kept in the run folder.

    Example:
        >>> EvenRounds(labels=400, rounds=8)(History(pool_size=1000, unlabelled=1000))
        50
    """

    labels: int
    rounds: int
    shrink: bool = field(default=False, repr=False, metadata={"described": False})

    def __post_init__(self) -> None:
        _check_size(self.labels, "EvenRounds: labels")
        if not isinstance(self.rounds, int) or not 1 <= self.rounds <= self.labels:
            raise ValueError(f"EvenRounds: rounds={self.rounds!r}: a whole number, allowed: 1 to labels={self.labels}.")

    def __call__(self, history: History, /) -> int:
        missing = max(0, self.labels - history.labelled)
        return math.ceil(missing / max(1, self.rounds - history.round))


@dataclass(frozen=True)
class Planned:
    """Plan the cheapest rounds still to come anew before every query, by what the run has cost; ask for the first.

    After a fit a record's FLOPs and seconds of training and of scoring are known, and so are the labels there are. Of
    one to 24 further rounds, even or growing, each with as many labels as it takes, those are kept that cost the least
    money for labels and compute together. No further round once the labels there are suffice.

    Args:
        labels: of ordinary active learning in twenty rounds, which says how good the model is to be (docs/bill.md).
        first: labels in the first round; nothing is measured before it.
        epochs: of the recipe, the Trainer's own.
        fit: the learner's.
        candidates: the learner's.
        worth: of a label under them, beside one of ordinary active learning; 0.86 for ``experiment=frugal``.
        efficiency: what larger rounds cost in labels.

    Example:
        >>> from al_lightning import WarmStart
        >>> Planned(400, first=40, epochs=24, fit=WarmStart("keep"))(History(pool_size=1000, unlabelled=1000))
        40
    """

    labels: int
    first: int
    epochs: int
    fit: FitPolicy
    candidates: CandidateSelector = field(default_factory=WholePool)
    worth: float = 1.0
    efficiency: Efficiency = field(default_factory=Efficiency)

    def __post_init__(self) -> None:
        for name in ("labels", "first", "epochs"):
            _check_size(getattr(self, name), f"Planned: {name}")
        if self.first > self.labels:
            raise ValueError(f"Planned: first={self.first} of labels={self.labels}: allowed: no more than those.")
        if not 0 < self.worth <= 1.5:
            raise ValueError(f"Planned: worth={self.worth}: of a label beside another, allowed: above 0, to 1.5.")

    def __call__(self, history: History, /) -> int:
        measured = self._measured(history)
        if measured is None:
            return self.first
        shapes = ((n, growth) for n in _AHEAD for growth in (1.0, 1.4) if n > 1 or growth == 1)
        ways = [sizes for n, growth in shapes if (sizes := self._sizes(history, n, growth))]
        return min(ways, key=lambda sizes: self._money(history, measured, sizes))[0] if ways else 0

    def _measured(self, history: History) -> Measured | None:
        """Return what a record costs; None before anything was trained."""
        lines = history.bill.lines
        train, score = lines.get("train", Line()), lines.get("score", Line())
        if not history.rounds or not history.labelled or not train.records:
            return None
        full = train.flops / train.records, train.seconds / train.records
        known = (score.flops / score.records, score.seconds / score.records) if score.records else None
        return Measured.assumed(
            train=full, forward=known or (full[0] / (1 + BACKWARD), full[1] / (1 + BACKWARD)), epochs=self.epochs
        )

    def _sizes(self, history: History, rounds: int, growth: float) -> list[int]:
        """So many further rounds that make the model good enough; none where the labels there are do."""
        have, total = history.labelled, self.labels
        taken = min(1.0, self.labels / history.pool_size)
        past = [record.labelled for record in history.rounds if record.labelled < have]
        for _ in range(20):  # more labels make the rounds before them a smaller part
            missing = max(0, total - have)
            after = [*past, have, *(have + missing * share for share in growing(rounds, growth))]
            needed = self.efficiency.needed(self.labels, after, self.worth, taken)
            if needed == total:
                break
            total = needed
        missing = min(total - have, history.unlabelled)
        return whole_sizes(missing, growing(rounds, growth)) if missing >= rounds else []

    def _money(self, history: History, measured: Measured, sizes: Sequence[int]) -> float:
        """Return what the run will have cost after these rounds, and the final fit."""
        began = history.round

        def size(then: History) -> int:
            return sizes[then.round - began] if then.round - began < len(sizes) else 0

        def reference(labels: int) -> Line:
            n, cost = labels * self.epochs, measured.line(("train",))
            return Line(records=n, flops=n * cost.flops, seconds=n * cost.seconds)

        course = Course(size=size, policy=self.fit, candidates=self.candidates)
        *_, last = course.rounds(history, measured, reference)
        return last.bill.money


_AHEAD = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Further rounds that are looked at."""

__all__ = ["Doubling", "EvenRounds", "Fixed", "Growing", "Listed", "Planned", "RoundSize"]

__getattr__ = renamed(__name__, {"Spread": "EvenRounds"})
