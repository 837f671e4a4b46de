"""AnyOf and AllOf: stopping rules together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from al_lightning.history import History, Reason
from al_lightning.stop.base import StoppingRule


def _check(rules: Sequence[StoppingRule], who: str) -> tuple[StoppingRule, ...]:
    if not rules:
        raise ValueError(f"{who}([]) combines nothing: give it one rule or more.")
    for rule in rules:
        if not callable(rule):
            raise TypeError(
                f"{who} combines functions of the history, and {type(rule).__name__} is none; StallDetection goes "
                "into ActiveLearner(stop=[...]) beside it."
            )
    return tuple(rules)


@dataclass(frozen=True)
class AnyOf:
    """Stop as soon as one of the rules does; inside an AllOf, what a list of rules is to the learner.

    Args:
        rules: in the order of asking; the reason is the first one's.

    Raises:
        ValueError: no rule.
        TypeError: something that is not a rule.

    Example:
        >>> from al_lightning import Budget
        >>> AnyOf([Budget(labels=9), Budget(money=5)])(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    rules: Sequence[StoppingRule]

    any: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", _check(self.rules, "AnyOf"))

    def __call__(self, history: History) -> Reason | None:
        """The first reason, or None."""
        return next((reason for rule in self.rules if (reason := rule(history)) is not None), None)


@dataclass(frozen=True)
class AllOf:
    """Stop when all of the rules would, after the same round.

    A Budget in here limits nothing by itself: the others may let the run go on beyond it.

    Args:
        rules: two or more make sense.

    Raises:
        ValueError: no rule.
        TypeError: something that is not a rule.

    Example:
        >>> from al_lightning import Budget
        >>> AllOf([Budget(labels=9), Budget(money=5)])(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    rules: Sequence[StoppingRule]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", _check(self.rules, "AllOf"))

    def __call__(self, history: History) -> Reason | None:
        """All reasons as one, or None."""
        reasons = [rule(history) for rule in self.rules]
        found = [reason for reason in reasons if reason is not None]
        if len(found) < len(reasons):
            return None
        numbers = {"kinds": [reason.kind for reason in found], "numbers": [reason.numbers for reason in found]}
        return Reason("all", "; ".join(reason.sentence for reason in found), numbers)
