"""What a step of a run changes, and what a run knows: the same data in memory, in the journal and in the database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from al_lightning.cost.ledger import Entry
from al_lightning.history import Reason, RoundRecord
from al_lightning.oracles.oracle import SKIP
from al_lightning.oracles.statements import Statement
from al_lightning.run.meta import Meta


@dataclass(frozen=True, kw_only=True)
class Query:
    """Ids picked in a round, best first; with the score each was picked by and the round that score is from."""

    ids: np.ndarray
    scores: np.ndarray
    score_rounds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Change:
    """The effect of one step of a run, and the step that comes next: one transaction.

    Steps return one, and the learner commits it. ``step`` is empty where the run stays at its step, and ``round`` below
    0 where it stays in its round; the commit fills them in. ``answers`` are to ids that had none, ``corrections`` to
    ids that had one; ``sources`` says who gave them, and in which file; ``places`` where those that are new stand among
    the labels, see :meth:`Saved.placed`. ``digests`` are those of ``files``, by the same names; ``dropped`` are names
    of files that the run does without from here on.
    """

    step: str = ""
    round: int = -1
    query: Query | None = None
    keys: dict[int, str] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)
    corrections: dict[int, Any] = field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    sources: dict[int, tuple[str, str]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    record: RoundRecord | None = None
    entries: tuple[Entry, ...] = ()
    reasons: tuple[Reason, ...] = ()
    meta: Meta = field(default_factory=Meta)
    files: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


@dataclass
class Saved:
    """Everything a run knows, as plain data: what the database holds.

    ``asked`` has the position of each queried id among all queries, ``places`` that of each answered one among labels.
    """

    step: str = "new"
    queries: list[list[int]] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    final: RoundRecord | None = None
    entries: list[Entry] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    meta: Meta = field(default_factory=Meta)
    files: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)

    @property
    def open_ids(self) -> list[int]:
        """Ids that were queried and have no answer, in the order of their queries."""
        return [i for query in self.queries for i in query if i not in self.answers]

    @property
    def second_answers(self) -> int:
        """Records that people answered a second time, for quality control; they are paid for, too."""
        return len({s.id for s in self.statements if s.ask == 2})

    @property
    def first_new_place(self) -> int:
        """Place from which on labels are that no fit has trained on."""
        return first_new_place(self.meta.get("fits", 0))

    def placed(self, change: Change) -> Change:
        """Return the change with the places of its labels.

        Labels stand in the order of the fits that first train on them, and before one fit in the order in which they
        were asked for. When an answer came in, and with which others, makes no difference; one that comes late is new.
        """
        asked, first = self.asked, self.first_new_place + _NEW
        if change.query is not None:
            asked = {**asked, **{int(i): len(asked) + k for k, i in enumerate(change.query.ids)}}
        was_trained_on = set(self.meta.get("withdrawn", ()))
        late = (i for i in change.corrections if self.answers[i] is SKIP and i not in was_trained_on)
        return replace(change, places={i: first + asked[i] for i in (*change.answers, *late)})

    def apply(self, change: Change) -> None:
        """Make the change in memory."""
        self.step = change.step
        if change.query is not None:
            self.queries.append([int(i) for i in change.query.ids])
            self.asked.update({i: len(self.asked) + k for k, i in enumerate(self.queries[-1])})
        self.keys.update(change.keys)
        self.answers.update({**change.answers, **change.corrections})
        self.places.update(change.places)
        self.statements.extend(change.statements)
        if change.record is not None and change.record.final:
            self.final = change.record
        elif change.record is not None:
            # A round that is trained again after a restart replaces its record, here as in the table.
            self.rounds = [r for r in self.rounds if r.round != change.record.round] + [change.record]
        self.entries.extend(change.entries)
        self.reasons.extend(change.reasons)
        self.meta.update(change.meta)
        self.files.update(change.files)
        for name in (*change.files, *change.dropped):
            self.digests.pop(name, None)
        self.digests.update(change.digests)
        for name in change.dropped:
            self.files.pop(name, None)


_NEW = 1 << 39


def first_new_place(fits: int) -> int:
    """Return the place from which on labels are that have come in since so many fits of rounds."""
    return (2 * fits + 1) * _NEW
