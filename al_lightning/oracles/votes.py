"""What people said about records, and what follows from it: one label, a tie, or how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from al_lightning.oracles.oracle import SKIP, LabelRequest, People
from al_lightning.oracles.statements import Decision, Decisions, Statement
from al_lightning.pool import label_codec


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Hold how far two answers to the same records agree.

    Args:
        between: the two annotators, or ``("first answer", "second answer")`` of records that were asked twice.
        records: how many both answered.
        equal: share with the same answer.
        kappa: Cohen's kappa (1960), agreement beyond chance; None where there are no classes, or no chance either.
    """

    between: tuple[str, str]
    records: int
    equal: float
    kappa: float | None

    def __str__(self) -> str:
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return f"{self.between[0]} / {self.between[1]}: {self.equal:.0%} of {self.records} equal{kappa}"


def news(log: Iterable[Statement], said: Iterable[Statement]) -> list[Statement]:
    """Return what the sources say now and did not say before: the statements to append to the log.

    A source that names another annotator for a record than before has withdrawn what it said. An emptied cell, or a
    row that is gone, withdraws nothing: a label that was given is never lost by accident.

    Args:
        log: all statements so far, oldest first.
        said: everything the sources say now.
    """
    now: dict[tuple[str, int, int], dict[str, Statement]] = {}
    for s in said:
        now.setdefault((s.source, s.id, s.ask), {})[s.who] = s
    before: dict[tuple[str, int, int], dict[str, Statement]] = {}
    for s in log if now else ():
        before.setdefault((s.source, s.id, s.ask), {})[s.who] = s
    found: list[Statement] = []
    for place, people in now.items():
        known = {who: s for who, s in before.get(place, {}).items() if s.value is not None}
        first = next(iter(people.values()))
        found += [
            Statement(id=s.id, value=None, who=who, ask=s.ask, source=s.source, line=first.line)
            for who, s in known.items()
            if who not in people
        ]
        found += [s for who, s in people.items() if who not in known or not same(known[who].value, s.value)]
    return found


def same(a: Any, b: Any) -> bool:
    """Return whether two labels are the same; SKIP is one only to itself."""
    if a is SKIP or b is SKIP:
        return a is b
    return label_codec.same(a, b)


def current(log: Iterable[Statement]) -> dict[int, dict[int, dict[str, Statement]]]:
    """``{id: {ask: {annotator: statement}}}``: each annotator's last word that still stands, oldest first."""
    places: dict[tuple[int, int, str, str], Statement] = {}
    for s in log:
        places.pop((s.id, s.ask, s.who, s.source), None)  # what is said again is said last
        if s.value is not None:
            places[s.id, s.ask, s.who, s.source] = s
    last: dict[int, dict[int, dict[str, Statement]]] = {}
    for s in places.values():
        people = last.setdefault(s.id, {}).setdefault(s.ask, {})
        people.pop(s.who, None)
        people[s.who] = s
    return last


def decide(
    log: Iterable[Statement],
    *,
    task: str,
    annotators: int = 1,
    adjudicator: str | None = None,
    ids: Collection[int] | None = None,
) -> Decisions:
    """The label of every record somebody answered.

    The adjudicator's word stands. Else it is what most people say (per class for multilabel; the median for
    regression). A tie waits, as do numbers of unlike length. An unnamed answer counts no longer once somebody named has
    answered after it. Second answers for quality control decide nothing.

    Args:
        log: all statements, oldest first.
        task: of the pool.
        annotators: how many answers a record takes, unless the adjudicator has spoken.
        adjudicator: whose word stands.
        ids: the records to decide; default: all.
    """
    if ids is not None:
        log = (s for s in log if s.id in ids)
    answers: dict[int, Decision] = {}
    ties: dict[int, dict[str, Any]] = {}
    few: list[int] = []
    for id, asks in current(log).items():
        people = list(asks.get(1, {}).values())
        people = [s for i, s in enumerate(people) if s.who or i == len(people) - 1]
        final = next((s for s in people if s.who == adjudicator and adjudicator), None)
        if final is not None:
            answers[id] = Decision(value=final.value, who=final.who, source=final.source)
        elif len(people) < max(1, annotators):
            few += [id] if people else []
        elif len(people) == 1:
            answers[id] = Decision(value=people[0].value, who=people[0].who, source=people[0].source)
        else:
            value = _majority([s.value for s in people], task)
            if value is None:
                ties[id] = {s.who or "unnamed": s.value for s in sorted(people, key=lambda s: s.who)}
                continue
            backing = sorted([s for s in people if same(s.value, value)] or people, key=lambda s: (s.who, s.source))
            who = "+".join(s.who for s in backing if s.who)
            answers[id] = Decision(value=value, who=who, source="+".join(dict.fromkeys(s.source for s in backing)))
    return Decisions(answers=answers, ties=ties, few=tuple(few))


def answers(oracle: People, request: LabelRequest) -> dict[int, Any]:
    """The labels that follow from what people have said by now: ``collect`` of an oracle behind which they are."""
    decisions = decide(
        oracle.said(request), task=request.task, annotators=oracle.annotators, adjudicator=oracle.adjudicator
    )
    return {i: decision.value for i, decision in decisions.answers.items()}


def _majority(values: Sequence[Any], task: str) -> Any:
    """Return what most of them say, or None for a tie."""
    counts = Counter(_text(v) for v in values)
    ((top, most), *rest) = counts.most_common()
    if not rest or most * 2 > len(values):
        return next(v for v in values if _text(v) == top)
    labels = [v for v in values if v is not SKIP]
    if len(labels) * 2 <= len(values):
        return None  # nobody knows whether it can be labelled at all
    if task == "multilabel":
        shares = [sum(column) * 2 - len(labels) for column in zip(*labels, strict=True)]
        return None if 0 in shares else [int(share > 0) for share in shares]
    if task == "regression":
        if len({len(v) if isinstance(v, list) else 0 for v in labels}) > 1:
            return None  # numbers and lists, or lists of unlike length, have no middle
        if isinstance(labels[0], list):
            return [median(column) for column in zip(*labels, strict=True)]
        return median(labels)
    return None if rest[0][1] == most else next(v for v in values if _text(v) == top)


def _text(value: Any) -> str:
    return "skip" if value is SKIP else label_codec.encode(value)


def agreement(log: Iterable[Statement], *, task: str) -> tuple[Agreement, ...]:
    """Return how far first and second answers agree, and each two annotators on the records both answered.

    Args:
        log: all statements, oldest first.
        task: of the pool; kappa is of classes.
    """
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for asks in current(log).values():
        if len(asks) == 1 and len(asks.get(1, ())) == 1:
            continue  # nobody else said anything
        first, second = (list(asks.get(ask, {}).values()) for ask in (1, 2))
        if first and second:
            pair = _text(first[-1].value), _text(second[-1].value)
            pairs.setdefault(("first answer", "second answer"), []).append(pair)
        for a, b in combinations(sorted(first, key=lambda s: s.who), 2):
            if a.who:
                pairs.setdefault((a.who, b.who), []).append((_text(a.value), _text(b.value)))
    return tuple(_agreement(between, said, task) for between, said in sorted(pairs.items()))


def _agreement(between: tuple[str, str], said: list[tuple[str, str]], task: str) -> Agreement:
    n = len(said)
    equal = sum(a == b for a, b in said) / n
    kappa = None
    if task in ("multiclass", "binary"):
        a, b = (Counter(side) for side in zip(*said, strict=True))
        chance = sum(a[value] * b[value] for value in a) / n**2
        kappa = None if chance == 1 else (equal - chance) / (1 - chance)
    return Agreement(between=between, records=n, equal=equal, kappa=kappa)
