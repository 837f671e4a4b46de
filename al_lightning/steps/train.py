"""TRAIN: a plan becomes weights, a record and ledger entries; a stalled fit becomes a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from torchmetrics.functional.classification import multiclass_cohen_kappa

from al_lightning.callbacks.loggers import log_round
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.cost.bill import Bill
from al_lightning.cost.ledger import Stopwatch
from al_lightning.features.activations import fitting
from al_lightning.features.blocks import PROJECTED, check_finite
from al_lightning.features.provider import Features
from al_lightning.fit.handed_back import Best
from al_lightning.fit.outcome import Outcome, run_fit
from al_lightning.fit.plan import FitPlan, Length, Served, load, records_of, snapshot
from al_lightning.fit.resume import FitFile, going_on
from al_lightning.fit.start import apply_start
from al_lightning.fit.trainer import steps_logged
from al_lightning.history import History, RoundRecord
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.fingerprint import digest
from al_lightning.run.accounts import Accounts
from al_lightning.run.changes import Change, Saved
from al_lightning.run.describe import describe
from al_lightning.run.leftovers import last_checkpoints
from al_lightning.run.meta import Meta
from al_lightning.run.turn import Turn
from al_lightning.seeds import generator, number
from al_lightning.steps.control import new_labels, trained_on
from al_lightning.stop.pool_covered import DIMS, SAMPLE, covered_share


def train(turn: Turn, plan: FitPlan, *, stall: StallDetection | None) -> Outcome:
    """Give the model its start weights and fit it once."""
    attempt = turn.saved.meta["attempt"]
    seed = number(turn.seed, turn.round, f"fit {attempt}{' final' if plan.final else ''}")
    if attempt > 1:
        load(turn.model, turn.initial)
    else:
        apply_start(turn.model, plan, initial=turn.initial, seed=seed)
    labelled, new = trained_on(turn.pool, turn.saved), new_labels(turn.pool, turn.saved)
    length = Length.of(plan, recipe=turn.accounts.recipe_epochs, labelled=len(labelled), new=new)
    batch = turn.pool.batch_size or 1
    served = records_of(plan, length, labelled=labelled, new=new, batch=batch, seed=turn.seed, round=turn.round)
    if len(labelled) < len(turn.pool.labelled) and served.ids is None:
        served = served._replace(ids=labelled)
    if stall is not None:
        stall.expect(turn.accounts.history)
    with fitting(turn, plan, labelled if served.ids is None else served.ids) as plan:
        began = turn.accounts.energy.reading()
        key = partial(_key, turn.pool, turn.saved, plan, length, served, labelled, seed)
        file = FitFile(turn, turn.accounts, key, began)
        fit = partial(
            run_fit,
            turn.source,
            turn.model,
            turn.pool,
            plan,
            length,
            served,
            new=new,
            round=turn.round,
            round_dir=turn.place(_folder(turn.saved, plan)),
            seed=seed,
            step=turn.saved.meta.get("logged_steps", 0),
            flops=turn.accounts.flops,
            stall=stall,
            note=turn.accounts.note_in_flight,
            moments=turn.read_moments() if plan.moments and plan.start == "previous" else None,
            file=file,
        )
        outcome = going_on(file, turn.model, lambda kept: fit(kept=kept))
    turn.accounts.energy.note("train" if outcome.stalled is None else "aborted", began, before=file.kwh)
    turn.accounts.bill_lost()
    turn.last = outcome
    return outcome


def _key(
    pool: PoolDataModule,
    saved: Saved,
    plan: FitPlan,
    length: Length,
    served: Served,
    labelled: np.ndarray,
    seed: int,
) -> str:
    """Tells a fit from any other: where it is in the run, what it does, and what it is taught."""
    ids = labelled if served.ids is None else served.ids
    labels = [pool.state.labels[int(i)] for i in ids]
    plain = all(isinstance(value, int | float | str) for value in labels)  # thousands, as one text
    said = repr(labels) if plain else labels
    return digest([_folder(saved, plan), seed, describe(plan), describe(length), ids, said])


def _folder(saved: Saved, plan: FitPlan) -> str:
    attempt = saved.meta["attempt"]
    return ("final" if plan.final else f"round-{len(saved.queries):03d}") + (
        f"-attempt-{attempt}" if attempt > 1 else ""
    )


def keep(
    turn: Turn,
    plan: FitPlan,
    outcome: Outcome,
    *,
    step: str,
    forecast: Callable[[RoundRecord, Bill], dict[str, float]],
) -> Change:
    """Return a fit that succeeded as a change: weights, metrics, agreement and cost."""
    turn.accounts.spend(*outcome.entries)
    folder = _folder(turn.saved, plan)
    files = {turn.kept_as: turn.write_weights(f"{folder}/weights.pt", snapshot(turn.model))}
    if outcome.moments is not None and not plan.final:
        files["moments"] = turn.write_moments(f"{folder}/moments.pt", outcome.moments)
    agreement = _agreement(turn, folder, files)
    rate, attempt = _train_rate(turn, plan, outcome), turn.saved.meta["attempt"]
    meta: Meta = {"pace": _pace(outcome, turn.ranks.world)}
    if outcome.tuning_records:
        meta["tuning"] = outcome.tuning_records
    if outcome.validation:
        meta["validation"] = outcome.validation
    if plan.val_batches is not None:
        meta["val_batches"] = plan.val_batches
    meta |= {"logged_steps": steps_logged(outcome.trainer), "train_rate": rate, "attempt": 1}
    if not plan.final:
        meta |= {"fits": turn.saved.meta["fits"] + 1, "withdrawn": []}  # all labels are old ones to the next round
    meta["best"] = Best.of(outcome.trainer)._asdict() if outcome.best_model_path else None
    meta["last_checkpoints"] = last_checkpoints(outcome.trainer, turn.folder)
    coverage = _coverage(turn) if turn.accounts.covers else None
    bill = turn.accounts.bill_with(rate)
    record = RoundRecord(
        round=turn.round,
        labelled=len(turn.pool.labelled),
        queried=len(turn.saved.queries[-1]),
        metrics=turn.ranks.broadcast(outcome.metrics),  # modules that log without sync_dist have one value per process
        epochs=outcome.epochs,
        start="initial" if attempt > 1 else plan.start,
        attempts=attempt,
        restarted=attempt > 1,
        agreement=agreement,
        uncertainty=turn.saved.meta.get("uncertainty"),
        coverage=coverage,
        candidates=turn.saved.meta.get("inferred", 0),
        stale=turn.saved.meta.get("stale", 0),
        final=plan.final,
        cost={
            **{"flops": bill.flops, "seconds": bill.seconds, "money": bill.money, "rho": bill.rho or 0.0},
            **({"bytes": bill.bytes} if bill.bytes else {}),
            **({"seconds_lost": bill.lines["lost"].seconds} if "lost" in bill.lines else {}),
        },
    )
    turn.saved.meta |= {"train_rate": rate, "pace": meta["pace"]}
    record = replace(record, forecast=turn.ranks.broadcast(forecast(record, bill)))
    return Change(step=step, record=record, files=files, meta=meta)


def log(
    accounts: Accounts, record: RoundRecord, loggers: list[Logger], reports: Callable[[History], Mapping[str, float]]
) -> None:
    """Log a round that was committed, with what ``reports`` adds."""
    if loggers:
        log_round(loggers, record, accounts.saved.meta["logged_steps"], reports(accounts.history))


def _train_rate(turn: Turn, plan: FitPlan, outcome: Outcome) -> dict[str, float]:
    # Seconds inside the training loop only: set-up is in the numerator of rho_seconds, not in its denominator.
    before = turn.saved.meta.get("train_rate", {"records": 0, "seconds": 0.0})
    if turn.model is not turn.target or (plan.freeze and before["records"]):
        return before  # the reference trains everything, and the target
    if turn.proxy is not None:
        before = {"records": 0, "seconds": 0.0}  # a whole fit says it better than a trial
    return {"records": before["records"] + outcome.loop_records, "seconds": before["seconds"] + outcome.loop_seconds}


def _pace(outcome: Outcome, world: int) -> dict[str, float]:
    """Seconds of a step, of what comes once an epoch, and of all that a fit takes beside its loop."""
    whole = sum(entry.seconds for entry in outcome.entries if entry.phase == "train")
    if not outcome.pace:
        return {}
    return {**outcome.pace, "batch": outcome.pace["batch"] * world, "fit": whole - outcome.loop_seconds}


def _agreement(turn: Turn, folder: str, files: dict[str, str]) -> float | None:
    """Agreement of this round's with the last round's predictions on the stop set, as Cohen's kappa.

    Bloodgood & Vijay-Shanker, 2009. This round's predictions are written for the next one.
    """
    ids = turn.pool.state.stop_set
    if len(ids) == 0:
        return None
    arrays, width = turn.infer(ids, lambda outputs: {"classes": outputs.predictions}, phase="agree")
    now = arrays["classes"].astype(np.int64)
    files["stop_set"] = turn.write(f"{folder}/stop_set.npy", lambda f: np.save(f, now, allow_pickle=False))
    if "stop_set" not in turn.saved.files:
        return None
    before = turn.read("stop_set", partial(np.load, allow_pickle=False))
    if np.array_equal(before, now):
        return 1.0  # kappa is 0 / 0 where both predict one class throughout
    return float(multiclass_cohen_kappa(torch.tensor(now), torch.tensor(before), num_classes=max(2, width)))


def _coverage(turn: Turn) -> float | None:
    """Share of the unlabelled records that labelled ones cover, on a sample; on the bill."""
    unlabelled, labelled = turn.pool.unlabelled, turn.pool.labelled
    if len(unlabelled) < 2 or len(labelled) == 0:
        return None
    rng = generator(turn.seed, turn.round, "coverage")
    left = rng.choice(unlabelled, size=min(SAMPLE, len(unlabelled)), replace=False)
    features = Features(turn)
    projected = features.projected(DIMS)
    for ids in (left, labelled):
        check_finite(projected, ids, limit=PROJECTED)
    with Stopwatch.running() as watch:
        share, flops = covered_share(projected[left], projected[labelled])
    features.spend(flops, watch.seconds)
    return turn.ranks.broadcast(share)
