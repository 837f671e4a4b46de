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
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.run.changes import Change, Query
from al_lightning.run.meta import Meta
from al_lightning.run.run import Run
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Answers, Question
from al_lightning.scoring.trainer import run_inference
from al_lightning.seeds import generator, number


def select(
    run: Run, *, candidates: CandidateSelector | None, strategy: Strategy, size: int, predict: bool = False
) -> Change:
    """Make the next query and what goes with it.

    Args:
        run: the run; embedding, clustering and scoring are put on its ledger.
        candidates: which records are inferred; None for a first query, which nothing is inferred for.
        strategy: picks.
        size: how many.
        predict: whether the model answers the query first, for people to correct.
    """
    view = _view(run, strategy)
    meta = nothing_inferred()
    ids = view.unlabelled
    arrays: dict[str, np.ndarray] = {}
    inferred = Change()
    with Stopwatch.running() as watch:
        if candidates is not None:
            ids, meta["candidates"] = _propose(run, view, candidates, size, "candidates")
        if strategy.needs_inference:
            reuse = bool(candidates and candidates.reuses_scores)
            ids, arrays, inferred = _infer(run, view, ids, strategy, size, reuse)
        rng = generator(run.seed, run.round, "query")
        picked = strategy.pick(view=view, ids=ids, arrays=arrays, size=size, rng=rng)
    run.spend(Entry(phase="select", round=run.round, seconds=max(0.0, watch.seconds - run.pending_wall)))
    meta |= inferred.meta
    if predict:
        meta["predictions"] = _predict(run, picked)
    by_score = size - strategy.controls(size)
    if strategy.needs_inference:
        meta["stale"] = int(np.sum(view.score_rounds[picked[:by_score]] < run.round))
    query = as_query(run, picked, scored=by_score)
    return replace(inferred, step="label", query=query, round=run.round + 1, meta=meta)


def score_ahead(run: Run, *, candidates: CandidateSelector, strategy: Strategy, size: int) -> Change:
    """Score the next round's candidates with the model there is, while people answer.

    To the next round they are stale scores: it knows better where to look, and queries them where the selector may.

    Args:
        run: the run, whose query is out.
        candidates: which records are inferred.
        strategy: scores them.
        size: of the next query.
    """
    # What the selector remembers of its rounds is not moved on: this is none.
    ids, _ = _propose(run, _view(run, strategy), candidates, size, "ahead")
    if not len(ids):
        return Change(meta={"scored_ahead": run.round})
    found = run.ask(ids, Question.of(strategy, seed=number(run.seed, run.round, "ahead")), phase="score")
    run.pool.state.record_scores(found.ids, found.arrays["score"], run.round - 1)
    files = {"scores": _write_scores(run, f"scores-{run.round:03d}-ahead.npz")}
    return Change(meta={"scored_ahead": run.round}, files=files)


def _view(run: Run, strategy: Strategy) -> PoolView:
    return run.pool.view(round=run.round, features=Features(run), score_cost=run.score_cost(strategy.passes))


def _propose(
    run: Run, view: PoolView, candidates: CandidateSelector, size: int, purpose: str
) -> tuple[np.ndarray, dict[str, object]]:
    rng = generator(run.seed, run.round, purpose)
    return candidates.propose(view=view, size=size, rng=rng, state=run.saved.meta.get("candidates", {}))


def _write_scores(run: Run, name: str) -> str:
    state = run.pool.state
    return run.write(name, lambda f: np.savez(f, scores=state.scores, rounds=state.score_rounds))


def _infer(
    run: Run, view: PoolView, ids: np.ndarray, strategy: Strategy, size: int, reuse: bool
) -> tuple[np.ndarray, dict[str, np.ndarray], Change]:
    """Score candidates; return the ids to pick from, what is known of them, and what is to be kept of it."""
    question = Question.of(strategy, seed=number(run.seed, run.round, "passes"))
    found = run.ask(ids, question, phase="score", least=size)
    change = Change(meta={"inferred": len(found.ids)})
    run.pool.width = found.width
    missing = _missing_classes(run, found.width)
    if missing is not None:
        change = replace(change, meta={**change.meta, "said_missing": True}, reasons=missing)
    if len(found.ids) < len(ids):
        change = replace(change, reasons=(*change.reasons, _partly_scored(found, ids)))
    arrays, asked, ids = found.arrays, ids, found.ids
    if "score" in strategy.columns:
        if len(ids):
            run.pool.state.record_scores(ids, arrays["score"], run.round)
            mean = float(np.mean(arrays["score"], dtype=np.float64))
            change = replace(change, meta={**change.meta, "uncertainty": mean})
        change = replace(change, files={"scores": _write_scores(run, f"scores-{run.round:03d}.npz")})
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


def _predict(run: Run, ids: np.ndarray) -> dict[str, tuple[object, float | None]]:
    """Return what the model answers to a query; it is on the bill like other inference."""
    with run.reading(ids) as (_, meter):
        began = run.energy.reading()
        arrays, flops, seconds, _ = run_inference(run.trainer, run.model, run.pool, ids, _answers, meter)
    run.energy.note("score", began)
    run.spend(Entry(phase="score", round=run.round, records=len(ids), flops=flops, seconds=seconds))
    whole = run.pool.task != "regression"
    values = (arrays["answer"].astype(np.int64) if whole else arrays["answer"]).tolist()
    sure = arrays["confidence"].tolist() if whole else [None] * len(ids)
    return {str(i): pair for i, pair in zip(ids.tolist(), zip(values, sure, strict=True), strict=True)}


def _answers(outputs: Outputs) -> dict[str, Tensor]:
    if outputs.task == "regression":
        return {"answer": outputs.logits.reshape(len(outputs.logits), -1).squeeze(-1)}
    confidence, answer = outputs.distributions.max(dim=-1)
    return {"answer": answer, "confidence": confidence.reshape(len(answer), -1).amin(dim=-1)}


def as_query(run: Run, ids: np.ndarray, *, scored: int) -> Query:
    """Picked ids with the scores they were picked by: the first ``scored`` of them, where those have one."""
    state = run.pool.state
    scores, rounds = np.full(len(ids), np.nan, dtype=np.float32), np.full(len(ids), -1, dtype=np.int32)
    scores[:scored], rounds[:scored] = state.scores[ids[:scored]], state.score_rounds[ids[:scored]]
    return Query(ids=ids, scores=scores, score_rounds=rounds)


def _missing_classes(run: Run, width: int) -> tuple[Reason, ...] | None:
    """Name classes without a label, once; None: it has been looked at, or there are no classes to look for."""
    if run.pool.task != "multiclass" or width == 0 or run.saved.meta.get("said_missing"):
        return None
    missing = sorted(set(range(width)) - {int(label) for label in run.pool.state.labels.values()})
    if not missing:
        return ()
    sentence = f"classes {missing} have no labelled record after round {run.round}; the run goes on"
    if run.ranks.rank == 0:
        warnings.warn(sentence, stacklevel=2)
    return (Reason("missing_classes", sentence, {"classes": missing}),)
