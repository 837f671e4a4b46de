"""LABEL: what an oracle says becomes labels, corrections of labels, and a record of who said so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from al_lightning.errors import PoolError
from al_lightning.history import Reason
from al_lightning.oracles.oracle import LabelRequest, Oracle, People
from al_lightning.oracles.votes import decide, same
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.run.intake import Intake, take_in
from al_lightning.run.paths import QUERIES
from al_lightning.run.turn import Turn


def request(turn: Turn, ids: Iterable[int] = ()) -> LabelRequest:
    """The query, or the open part of one, as an oracle gets it."""
    picked = np.fromiter(ids, dtype=np.int64)
    query = turn.pool.request(picked, turn.round, folder=turn.folder / QUERIES, prices=turn.accounts.prices)
    answers = turn.saved.meta.get("predictions", {})
    return replace(query, predictions={i: tuple(answers[str(i)]) for i in picked.tolist() if str(i) in answers})


def ask(turn: Turn, oracle: Oracle, query: LabelRequest) -> Intake:
    """Send a query out, unless nothing of it is open, and take in what there is by now."""

    def on_zero() -> Intake:
        if len(query.ids):
            oracle.ask(query)
        if isinstance(oracle, People):
            return take_in(turn.saved, oracle.said(query), query.task, oracle.annotators, oracle.adjudicator)
        found = turn.pool.plain(oracle.collect()) if len(query.ids) else {}
        answers = {i: found[i] for i in query.ids.tolist() if i in found}
        return Intake(answers=answers, sources=dict.fromkeys(answers, ("", type(oracle).__name__)))

    intake: Intake = turn.on_zero(on_zero)
    turn.pool.check_labels({**intake.answers, **intake.corrections})
    return intake


def corrected(turn: Turn, oracle: Oracle) -> Intake:
    """Return what people have said since this run last looked, where no query is open."""
    if not isinstance(oracle, People):
        return Intake()
    query = request(turn)
    intake: Intake = turn.on_zero(
        lambda: take_in(turn.saved, oracle.said(query), query.task, oracle.annotators, oracle.adjudicator)
    )
    turn.pool.check_labels({**intake.answers, **intake.corrections})
    return intake


def mended(turn: Turn, oracle: Oracle) -> Intake:
    """Other labels for those that the folder holds and that cannot be trained on, from whoever gave them.

    Raises:
        PoolError: there is one, and nothing else is said of it yet.
    """
    wrong = _wrong(turn.pool, turn.saved.answers)
    if not wrong:
        return Intake()
    intake = corrected(turn, oracle) if isinstance(oracle, People) else _asked_again(turn, oracle, list(wrong))
    left = _wrong(turn.pool, {i: intake.corrections.get(i, turn.saved.answers[i]) for i in wrong})
    if left:
        raise PoolError(
            f"{turn.folder} holds a label that cannot be trained on: {next(iter(left.values()))} Correct it where it "
            "came from, the file, the function or the dataset, and run the same command: it goes on from there."
        )
    return intake


def _wrong(pool: PoolDataModule, answers: Mapping[int, object]) -> dict[int, str]:
    """Return what is wrong with each of these labels that cannot be trained on."""
    found = {}
    for i, label in answers.items():
        try:
            pool.check_labels({i: label})
        except PoolError as error:
            found[i] = str(error)
    return found


def _asked_again(turn: Turn, oracle: Oracle, ids: Sequence[int]) -> Intake:
    def on_zero() -> Intake:
        oracle.ask(request(turn, ids))
        found = turn.pool.plain(oracle.collect())
        corrections = {i: found[i] for i in ids if i in found and not same(found[i], turn.saved.answers[i])}
        return Intake(corrections=corrections, sources=dict.fromkeys(corrections, ("", type(oracle).__name__)))

    intake: Intake = turn.on_zero(on_zero)
    return intake


def waits(turn: Turn, oracle: Oracle) -> Reason:
    """Return what a run that has stopped waits for."""
    query = request(turn, turn.saved.open_ids)
    n = len(query.ids)
    if not isinstance(oracle, People):
        return Reason("waiting", f"waiting for {n} labels; run again when they are there", {"labels": n})
    decisions = decide(
        turn.saved.statements,
        task=query.task,
        annotators=oracle.annotators,
        adjudicator=oracle.adjudicator,
        ids=frozenset(turn.saved.open_ids),
    )
    reason: Reason = turn.on_zero(lambda: oracle.waits(query, decisions))
    return reason
