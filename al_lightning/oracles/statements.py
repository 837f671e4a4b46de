"""What people said about records, as data: statements, and the decisions that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One filled cell: who said what about a record, and where it stands.

    Args:
        id: the record.
        value: a label, :data:`~al_lightning.oracles.oracle.SKIP`, or None where the source no longer says what it said
            before.
        who: the annotator; empty where nobody is named.
        ask: 2 for the second answer to a record that is asked twice for quality control, else 1.
        source: file it is from.
        line: line in that file.
        at: when it was taken in, UTC; set by the run folder.
    """

    id: int
    value: Any
    who: str = ""
    ask: int = 1
    source: str = ""
    line: int = 0
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Hold what a record's label is, and on whose word."""

    value: Any
    who: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Hold what follows from all statements.

    Args:
        answers: id -> decision.
        ties: id -> ``{annotator: value}`` where people disagree and nobody adjudicates.
        few: ids that somebody answered, and fewer people than are asked for.
    """

    answers: dict[int, Decision] = field(default_factory=dict)
    ties: dict[int, dict[str, Any]] = field(default_factory=dict)
    few: tuple[int, ...] = ()
