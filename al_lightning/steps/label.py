"""LABEL: what an oracle says becomes labels, corrections of labels, and a record of who said so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.errors import PoolError
from al_lightning.history import Reason
from al_lightning.pool.label_cell import bare
from al_lightning.pool.oracle import SKIP, LabelRequest, Oracle, People
from al_lightning.pool.votes import Decisions, Statement, decide, news, same
from al_lightning.run import Run
from al_lightning.run_paths import QUERIES
from al_lightning.store import Saved


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What answers change in a run: new labels, other labels, and everything that was said.

    Args:
        answers: id -> label or SKIP, of ids that had no answer.
        corrections: the same, of ids that had another one.
        statements: what people said and had not said before.
        sources: id -> who gave the label, and in which file.
        decisions: ties, and records too few people answered.
    """

    answers: dict[int, Any] = field(default_factory=dict)
    corrections: dict[int, Any] = field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    sources: dict[int, tuple[str, str]] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return not (self.answers or self.corrections or self.statements)

    def effects(self, saved: Saved) -> dict[str, Any]:
        """It all, as effects of a commit."""
        known = saved.meta.get("withdrawn", [])
        withdrawn = [i for i in known if self.corrections.get(i, SKIP) is SKIP]
        withdrawn += [
            i for i, value in self.corrections.items() if value is SKIP and saved.places[i] < saved.first_new_place
        ]
        return {
            "answers": self.answers,
            "corrections": self.corrections,
            "statements": self.statements,
            "sources": self.sources,
            "meta": {"withdrawn": withdrawn} if withdrawn != known else {},
        }


def request(run: Run, ids: Iterable[int] = ()) -> LabelRequest:
    """The query, or the open part of one, as an oracle gets it."""
    picked = np.fromiter(ids, dtype=np.int64)
    query = run.pool.request(picked, run.round, folder=run.folder / QUERIES, prices=run.prices)
    answers = run.saved.meta.get("predictions", {})
    return replace(query, predictions={i: tuple(answers[str(i)]) for i in picked.tolist() if str(i) in answers})


def ask(run: Run, oracle: Oracle, query: LabelRequest) -> Intake:
    """Send a query out, unless nothing of it is open, and take in what there is by now."""

    def on_zero() -> Intake:
        if len(query.ids):
            oracle.ask(query)
        if isinstance(oracle, People):
            return take_in(run.saved, oracle.said(query), query.task, oracle.annotators, oracle.adjudicator)
        found = run.pool.plain(oracle.collect()) if len(query.ids) else {}
        answers = {i: found[i] for i in query.ids.tolist() if i in found}
        return Intake(answers=answers, sources=dict.fromkeys(answers, ("", type(oracle).__name__)))

    intake: Intake = run.on_zero(on_zero)
    run.pool.check_labels({**intake.answers, **intake.corrections})
    return intake


def corrected(run: Run, oracle: Oracle) -> Intake:
    """What people have said since this run last looked, where no query is open."""
    if not isinstance(oracle, People):
        return Intake()
    query = request(run)
    intake: Intake = run.on_zero(
        lambda: take_in(run.saved, oracle.said(query), query.task, oracle.annotators, oracle.adjudicator)
    )
    run.pool.check_labels({**intake.answers, **intake.corrections})
    return intake


def mended(run: Run, oracle: Oracle) -> Intake:
    """Other labels for those that the folder holds and that cannot be trained on, from whoever gave them.

    Raises:
        PoolError: there is one, and nothing else is said of it yet.
    """
    wrong = _wrong(run, run.saved.answers)
    if not wrong:
        return Intake()
    intake = corrected(run, oracle) if isinstance(oracle, People) else _asked_again(run, oracle, list(wrong))
    left = _wrong(run, {i: intake.corrections.get(i, run.saved.answers[i]) for i in wrong})
    if left:
        raise PoolError(
            f"{run.folder} holds a label that cannot be trained on: {next(iter(left.values()))} Correct it where it "
            "came from, the file, the function or the dataset, and run the same command: it goes on from there."
        )
    return intake


def _wrong(run: Run, answers: Mapping[int, Any]) -> dict[int, str]:
    """What is wrong with each of these labels that cannot be trained on."""
    found = {}
    for i, label in answers.items():
        try:
            run.pool.check_labels({i: label})
        except PoolError as error:
            found[i] = str(error)
    return found


def _asked_again(run: Run, oracle: Oracle, ids: Sequence[int]) -> Intake:
    def on_zero() -> Intake:
        oracle.ask(request(run, ids))
        found = run.pool.plain(oracle.collect())
        corrections = {i: found[i] for i in ids if i in found and not same(found[i], run.saved.answers[i])}
        return Intake(corrections=corrections, sources=dict.fromkeys(corrections, ("", type(oracle).__name__)))

    intake: Intake = run.on_zero(on_zero)
    return intake


def take_in(
    saved: Saved, said: Sequence[Statement], task: str, annotators: int = 1, adjudicator: str | None = None
) -> Intake:
    """What statements change; nothing is changed yet.

    Args:
        saved: what the run knows.
        said: everything the sources say now, in the order in which it counts.
        task: of the pool.
        annotators: see :func:`~al_lightning.pool.votes.decide`.
        adjudicator: the same.

    Raises:
        PoolError: one person says two things about a record at once.
    """
    fresh = news(saved.statements, said)
    _check_one_voice(fresh)
    log = [*saved.statements, *fresh]
    decisions = decide(log, task=task, annotators=annotators, adjudicator=adjudicator)
    touched = {s.id for s in fresh}
    found = {i: d for i, d in decisions.answers.items() if i in touched or i not in saved.answers}
    answers = {i: found[i].value for i in saved.open_ids if i in found}
    corrections = {i: d.value for i, d in found.items() if i in saved.answers and _differs(saved.answers[i], d.value)}
    return Intake(
        answers=answers,
        corrections=corrections,
        statements=tuple(fresh),
        sources={i: (found[i].who, found[i].source) for i in (*answers, *corrections)},
        decisions=decisions,
    )


def _differs(label: Any, said: Any) -> bool:
    """Whether what people say now is another label: a cell does not tell a number from a list of it, or an array."""
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


def waits(run: Run, oracle: Oracle) -> Reason:
    """What a run that has stopped waits for."""
    query = request(run, run.saved.open_ids)
    n = len(query.ids)
    if not isinstance(oracle, People):
        return Reason("waiting", f"waiting for {n} labels; run again when they are there", {"labels": n})
    decisions = decide(
        run.saved.statements, task=query.task, annotators=oracle.annotators, adjudicator=oracle.adjudicator
    )
    reason: Reason = run.on_zero(lambda: oracle.waits(query, decisions))
    return reason
