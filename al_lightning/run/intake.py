"""What people said becomes a change of a run: new labels, corrections, and a record of who said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from al_lightning.errors import PoolError
from al_lightning.oracles.label_cell import bare
from al_lightning.oracles.oracle import SKIP
from al_lightning.oracles.statements import Decisions, Statement
from al_lightning.oracles.votes import decide, news, same
from al_lightning.run.changes import Change, Saved


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Hold what answers change in a run: new labels, other labels, and everything that was said.

    Args:
        answers: id -> label or SKIP, of ids that had no answer.
        corrections: the same, of ids that had another one.
        statements: what people said and had not said before.
        sources: id -> who gave the label, and in which file.
        decisions: on the records that wait for an answer, and on those that somebody said something about.
    """

    answers: dict[int, Any] = field(default_factory=dict)
    corrections: dict[int, Any] = field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    sources: dict[int, tuple[str, str]] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)

    @property
    def empty(self) -> bool:
        """Return whether it changes nothing."""
        return not (self.answers or self.corrections or self.statements)

    def change(self, saved: Saved, step: str) -> Change:
        """Return this intake as a change that leads to the given step."""
        known = saved.meta.get("withdrawn", [])
        withdrawn = [i for i in known if self.corrections.get(i, SKIP) is SKIP]
        withdrawn += [
            i for i, value in self.corrections.items() if value is SKIP and saved.places[i] < saved.first_new_place
        ]
        return Change(
            step=step,
            answers=self.answers,
            corrections=self.corrections,
            statements=self.statements,
            sources=self.sources,
            meta={"withdrawn": withdrawn} if withdrawn != known else {},
        )


def take_in(
    saved: Saved, said: Sequence[Statement], task: str, annotators: int = 1, adjudicator: str | None = None
) -> Intake:
    """Return what statements change; nothing is changed yet.

    Args:
        saved: what the run knows.
        said: everything the sources say now, in the order in which it counts.
        task: of the pool.
        annotators: see :func:`~al_lightning.oracles.votes.decide`.
        adjudicator: the same.

    Raises:
        PoolError: one person says two things about a record at once.
    """
    fresh = news(saved.statements, said)
    _check_one_voice(fresh)
    open_ids = saved.open_ids
    log, ids = [*saved.statements, *fresh], {*open_ids, *(s.id for s in fresh)}
    decisions = decide(log, task=task, annotators=annotators, adjudicator=adjudicator, ids=ids)
    found = decisions.answers
    answers = {i: found[i].value for i in open_ids if i in found}
    corrections = {i: d.value for i, d in found.items() if i in saved.answers and _differs(saved.answers[i], d.value)}
    return Intake(
        answers=answers,
        corrections=corrections,
        statements=tuple(fresh),
        sources={i: (found[i].who, found[i].source) for i in (*answers, *corrections)},
        decisions=decisions,
    )


def _differs(label: Any, said: Any) -> bool:
    """Return whether people say another label now: a cell does not tell a number from a list of it, or an array."""
    return not same(label, said) and (label is SKIP or said is SKIP or not same(bare(label), bare(said)))


def next_step(saved: Saved, intake: Intake) -> str:
    """The step after corrections: a finished run trains its last round again on what was corrected."""
    again = saved.step == "done" and intake.corrections and saved.rounds and saved.reasons[-1].kind != "gave_up"
    return "train" if again else saved.step


def _check_one_voice(fresh: Sequence[Statement]) -> None:
    """Of two files of one round, none is the later one."""
    seen: dict[tuple[int, int, str, str], Statement] = {}
    for s in fresh:
        if s.value is None:
            continue
        first = seen.setdefault((s.id, s.ask, s.who, Path(s.source).name.split(".")[0]), s)
        if not same(first.value, s.value):
            raise PoolError(
                f"id {s.id} has two labels by {s.who or 'one person'} at once: {first.source} line {first.line} and "
                f"{s.source} line {s.line}. Leave one of the two; nothing was taken in."
            )
