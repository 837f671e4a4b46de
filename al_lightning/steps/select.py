"""SELECT: candidates -> scores -> query."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from torch import Tensor

from al_lightning.candidates.base import CandidateSelector
from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.features.provider import Features
from al_lightning.history import Reason
from al_lightning.pool.state import PoolState
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.run.accounts import Accounts
from al_lightning.run.changes import Change, Query
from al_lightning.run.files import RunFiles
from al_lightning.run.meta import Meta
from al_lightning.run.turn import Turn
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Answers, Question
from al_lightning.seeds import generator, number


def select(
    turn: Turn, *, candidates: CandidateSelector | None, strategy: Strategy, size: int, predict: bool = False
) -> Change:
    """Make the next query and what goes with it.

    Args:
        turn: the run; embedding, clustering and scoring are put on its ledger.
        candidates: which records are inferred; None for a first query, which nothing is inferred for.
        strategy: picks.
        size: how many.
        predict: whether the model answers the query first, for people to correct.
    """
    view = _view(turn, strategy)
    meta = nothing_inferred()
    ids = view.unlabelled
    arrays: dict[str, np.ndarray] = {}
    inferred = Change()
    with Stopwatch.running() as watch:
        if candidates is not None:
            ids, meta["candidates"] = _propose(turn.seed, turn.saved.meta, view, candidates, size, "candidates")
        if strategy.needs_inference:
            reuse = bool(candidates and candidates.reuses_scores)
            ids, arrays, inferred = _infer(turn, view, ids, strategy, size, reuse)
        rng = generator(turn.seed, turn.round, "query")
        picked = strategy.pick(view=view, ids=ids, arrays=arrays, size=size, rng=rng)
    turn.accounts.spend(
        Entry(phase="select", round=turn.round, seconds=max(0.0, watch.seconds - turn.accounts.pending_wall))
    )
    meta |= inferred.meta
    if predict:
        meta["predictions"] = _predict(turn, picked)
    by_score = size - strategy.controls(size)
    if strategy.needs_inference:
        meta["stale"] = int(np.sum(view.score_rounds[picked[:by_score]] < turn.round))
    query = as_query(turn.pool.state, picked, scored=by_score)
    return replace(inferred, step="label", query=query, round=turn.round + 1, meta=meta)


def score_ahead(turn: Turn, *, candidates: CandidateSelector, strategy: Strategy, size: int) -> Change:
    """Score the next round's candidates with the model there is, while people answer.

    To the next round they are stale scores: it knows better where to look, and queries them where the selector may.

    Args:
        turn: the run, whose query is out.
        candidates: which records are inferred.
        strategy: scores them.
        size: of the next query.
    """
    # What the selector remembers of its rounds is not moved on: this is none.
    ids, _ = _propose(turn.seed, turn.saved.meta, _view(turn, strategy), candidates, size, "ahead")
    if not len(ids):
        return Change(meta={"scored_ahead": turn.round})
    found = turn.ask(ids, Question.of(strategy, seed=number(turn.seed, turn.round, "ahead")), phase="score")
    turn.pool.state.record_scores(found.ids, found.arrays["score"], turn.round - 1)
    files = {"scores": _write_scores(turn, turn.pool.state, f"scores-{turn.round:03d}-ahead.npz")}
    return Change(meta={"scored_ahead": turn.round}, files=files)


def _view(turn: Turn, strategy: Strategy) -> PoolView:
    return turn.pool.view(
        round=turn.round, features=Features(turn), score_cost=turn.accounts.score_cost(strategy.passes)
    )


def _propose(
    seed: int, meta: Meta, view: PoolView, candidates: CandidateSelector, size: int, purpose: str
) -> tuple[np.ndarray, dict[str, object]]:
    rng = generator(seed, view.round, purpose)
    return candidates.propose(view=view, size=size, rng=rng, state=meta.get("candidates", {}))


def _write_scores(files: RunFiles, state: PoolState, name: str) -> str:
    return files.write(name, lambda f: np.savez(f, scores=state.scores, rounds=state.score_rounds))


def _infer(
    turn: Turn, view: PoolView, ids: np.ndarray, strategy: Strategy, size: int, reuse: bool
) -> tuple[np.ndarray, dict[str, np.ndarray], Change]:
    """Score candidates; return the ids to pick from, what is known of them, and what is to be kept of it."""
    question = Question.of(strategy, seed=number(turn.seed, turn.round, "passes"))
    found = turn.ask(ids, question, phase="score", least=size)
    change = Change(meta={"inferred": len(found.ids)})
    turn.pool.width = found.width
    missing = _missing_classes(turn.accounts, found.width)
    if missing is not None:
        change = replace(change, meta={**change.meta, "said_missing": True}, reasons=missing)
    if len(found.ids) < len(ids):
        change = replace(change, reasons=(*change.reasons, _partly_scored(found, ids)))
    arrays, asked, ids = found.arrays, ids, found.ids
    if "score" in strategy.columns:
        if len(ids):
            turn.pool.state.record_scores(ids, arrays["score"], turn.round)
            mean = float(np.mean(arrays["score"], dtype=np.float64))
            change = replace(change, meta={**change.meta, "uncertainty": mean})
        change = replace(change, files={"scores": _write_scores(turn, turn.pool.state, f"scores-{turn.round:03d}.npz")})
        if reuse or len(ids) < len(asked):
            ids = view.unlabelled if reuse else asked
            ids = ids[view.score_rounds[ids] >= 0]
            arrays = {"score": view.scores[ids]}
    return ids, arrays, change


def nothing_inferred() -> Meta:
    """Return the metadata of a query that no model was asked for."""
    return {"inferred": 0, "stale": 0, "uncertainty": None}


def _partly_scored(found: Answers, asked: np.ndarray) -> Reason:
    fresh, all_of_them = len(found.ids), len(asked)
    sentence = f"{fresh:,} of {all_of_them:,} candidates have a fresh score; the scorer was allowed to leave the rest"
    return Reason("partly_scored", sentence, {"fresh": fresh, "asked": all_of_them})


def _predict(turn: Turn, ids: np.ndarray) -> dict[str, tuple[object, float | None]]:
    """Return what the model answers to a query; it is on the bill like other inference."""
    arrays, _ = turn.infer(ids, _answers, phase="score")
    whole = turn.pool.task != "regression"
    values = (arrays["answer"].astype(np.int64) if whole else arrays["answer"]).tolist()
    sure = arrays["confidence"].tolist() if whole else [None] * len(ids)
    return {str(i): pair for i, pair in zip(ids.tolist(), zip(values, sure, strict=True), strict=True)}


def _answers(outputs: Outputs) -> dict[str, Tensor]:
    if outputs.task == "regression":
        return {"answer": outputs.logits.reshape(len(outputs.logits), -1).squeeze(-1)}
    confidence, answer = outputs.distributions.max(dim=-1)
    return {"answer": answer, "confidence": confidence.reshape(len(answer), -1).amin(dim=-1)}


def as_query(state: PoolState, ids: np.ndarray, *, scored: int) -> Query:
    """Picked ids with the scores they were picked by: the first ``scored`` of them, where those have one."""
    scores, rounds = np.full(len(ids), np.nan, dtype=np.float32), np.full(len(ids), -1, dtype=np.int32)
    scores[:scored], rounds[:scored] = state.scores[ids[:scored]], state.score_rounds[ids[:scored]]
    return Query(ids=ids, scores=scores, score_rounds=rounds)


def _missing_classes(accounts: Accounts, width: int) -> tuple[Reason, ...] | None:
    """Name classes without a label, once; None: it has been looked at, or there are no classes to look for."""
    if accounts.pool.task != "multiclass" or width == 0 or accounts.saved.meta.get("said_missing"):
        return None
    missing = sorted(set(range(width)) - {int(label) for label in accounts.pool.state.labels.values()})
    if not missing:
        return ()
    sentence = f"classes {missing} have no labelled record after round {accounts.round}; the run goes on"
    if accounts.ranks.rank == 0:
        warnings.warn(sentence, stacklevel=2)
    return (Reason("missing_classes", sentence, {"classes": missing}),)
