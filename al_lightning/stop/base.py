"""What stopping rules have in common: they decide on the history, and say what must be measured for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from al_lightning.history import History, Reason

StoppingRule = Callable[[History], Reason | None]
"""Looks at the history after a fit; a reason ends the run. A rule may have attributes more.

``needs``: what is to be measured for it, of :data:`NEEDS`. ``rules``: the rules it combines, and ``any``: whether one
of them is enough. ``report(history)``: numbers that are logged after every fit.
"""

NEEDS = ("agreement", "uncertainty", "coverage")
"""Numbers of a RoundRecord that are there only if something is set up for them."""


def every_rule(rules: Iterable[Any]) -> Iterator[Any]:
    """The rules, and those they combine."""
    for rule in rules:
        yield rule
        yield from every_rule(getattr(rule, "rules", ()))


def alternatives(rules: Iterable[Any]) -> Iterator[Any]:
    """The rules any of which ends the run: those of an AnyOf, and no others that are combined."""
    for rule in rules:
        yield from alternatives(rule.rules) if getattr(rule, "any", False) else [rule]


def needed_by(rules: Iterable[Any]) -> dict[str, str]:
    """``{number: a rule that needs it}``, those in combinations included."""
    return {need: type(rule).__name__ for rule in every_rule(rules) for need in getattr(rule, "needs", ())}


def last_agreements(history: History, count: int) -> list[float] | None:
    """Agreement of each of the last ``count`` rounds with the one before it, or None while one is missing."""
    found = [r.agreement for r in history.rounds[-count:] if r.agreement is not None]
    return found if len(found) == count else None
