"""Labels by people: who said how much, what was refused or changed, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from al_lightning.oracles.oracle import SKIP
from al_lightning.oracles.statements import Statement
from al_lightning.oracles.votes import Agreement, agreement, current, decide
from al_lightning.report.runs import ReportedRun


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Hold what one annotator said.

    Args:
        who: the annotator; empty where nobody is named.
        labels: records they gave a label that still stands, first answers only.
        refusals: records they refused.
        second: records they answered a second time, for quality control.
        changed: times they changed or withdrew something they had said.
        first: when their first word was taken in, UTC.
        last: when their last one was.
    """

    who: str
    labels: int
    refusals: int
    second: int
    changed: int
    first: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Voices:
    """Hold what all of them said.

    Args:
        voices: one per annotator, by name.
        agreement: of each two, and of first with second answers.
        ties: ``{id: {annotator: label}}`` where they disagree and nobody has settled it, as people write labels.
        approvals: who let a query out, when, and at what price, as the run noted it.
    """

    voices: tuple[Voice, ...]
    agreement: tuple[Agreement, ...]
    ties: dict[int, dict[str, str]]
    approvals: tuple[dict[str, object], ...]


def voices(run: ReportedRun) -> Voices | None:
    """Everything people said in a run; None where nobody said anything."""
    log, meta = run.saved.statements, run.saved.meta
    approvals = tuple({str(k): v for k, v in approval.items()} for approval in meta.get("approvals", []))
    if not log and not approvals:
        return None
    rules = meta.get("labelling") or {}
    decisions = decide(log, task=run.task, annotators=rules.get("annotators", 1), adjudicator=rules.get("adjudicator"))
    write = run.language.write if run.language else str
    return Voices(
        voices=tuple(_voice(who, own) for who, own in sorted(_by_annotator(log).items())),
        agreement=agreement(log, task=run.task),
        ties={i: {who: write(value) for who, value in said.items()} for i, said in decisions.ties.items()},
        approvals=approvals,
    )


def _by_annotator(log: Sequence[Statement]) -> dict[str, list[Statement]]:
    said: dict[str, list[Statement]] = {}
    for s in log:
        said.setdefault(s.who, []).append(s)
    return said


def _voice(who: str, own: Sequence[Statement]) -> Voice:
    asks = current(own)
    first, second = ([said[ask][who] for said in asks.values() if ask in said] for ask in (1, 2))
    return Voice(
        who=who,
        labels=sum(s.value is not SKIP for s in first),
        refusals=sum(s.value is SKIP for s in first),
        second=len(second),
        changed=len(own) - len({(s.id, s.ask, s.source) for s in own}),
        first=min(s.at for s in own),
        last=max(s.at for s in own),
    )
