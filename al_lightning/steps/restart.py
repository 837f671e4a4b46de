"""What a run does about a false start: throw the weights away and begin again, or give up."""

from __future__ import annotations

from dataclasses import asdict, replace

from al_lightning.callbacks.watch import Watch
from al_lightning.cost.ledger import Entry
from al_lightning.errors import ActiveLearningError
from al_lightning.features.source import Layer
from al_lightning.fit.plan import FitPlan, load, reinitialise, snapshot
from al_lightning.fit.trainer import steps_logged
from al_lightning.history import Control, Reason
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import KMeans
from al_lightning.run.changes import Change
from al_lightning.run.meta import Meta
from al_lightning.run.turn import Turn
from al_lightning.seeds import generator, number
from al_lightning.steps.control import COMPARED, gentler, measure
from al_lightning.steps.select import as_query, nothing_inferred, select

LOWER = 0.1
"""Factor of the learning rate after a fit that diverged, where no control can be asked."""


def check_control(pool: PoolDataModule, stall: Watch) -> None:
    """Raise unless there are validation records to draw a control from, and to count the classes of."""
    if stall.rounds is None:
        return
    who = f"FalseStart({stall.rounds.accuracy!r})"
    if pool.val_data is None or pool.val_labels < 2:
        raise ActiveLearningError(
            f"{who} trains a control on validation records, and the pool has {pool.val_labels} in one dataset: "
            "pass PoolDataModule(val=...), or leave it out."
        )
    if pool.items.attach is not None and pool.task in COMPARED:
        raise ActiveLearningError(
            f"{who} counts the classes of validation records, and with attach= nothing says where their labels are: "
            "serve tuples (..., target), or dicts with target_key=, or leave it out."
        )


def hold_against_control(turn: Turn, stall: Watch) -> Change | None:
    """Measure the control, unless there is one: the rounds that follow are held against it."""
    if stall.rounds is None or turn.saved.meta.get("control") is not None:
        return None
    scale = turn.saved.meta.get("rate_scale", 1.0)
    control = measure(turn, stall.rounds.accuracy, share=stall.rounds.control, scale=scale)
    return Change(meta={"control": asdict(control)})


def remedied(meta: Meta, plan: FitPlan) -> FitPlan:
    """A plan with what restarts have changed: the learning rate, and no layer of weights just drawn frozen."""
    freeze = () if meta["restarts"] and plan.start == "initial" else plan.freeze
    return replace(plan, rate_scale=plan.rate_scale * meta.get("rate_scale", 1.0), freeze=freeze)


def restart(turn: Turn, reason: Reason, *, stall: Watch, entries: tuple[Entry, ...], most: int) -> Change:
    """Throw the weights away and begin again, or give up; what was wasted stays on the ledger.

    Args:
        turn: the run.
        reason: what stalled.
        stall: how often to try, and how.
        entries: work of the aborted fit.
        most: records that may still be bought.
    """
    reasons = turn.ranks.gather(reason)
    reason = next((r for r in reasons if "cause" in r.numbers), reasons[0])
    turn.accounts.spend(*entries)
    reason = replace(reason, numbers={**reason.numbers, "spent": turn.accounts.bill.flops})
    restarts, tried = turn.saved.meta["restarts"], turn.saved.meta.get("remedies", [])
    if restarts >= stall.max_restarts:
        sentence = f"gave up after {restarts} restarts: {reason.sentence}"
        load(turn.model, turn.read_weights(turn.delivered))
        return Change(step="finish", reasons=(reason, Reason("gave_up", sentence, reason.numbers)))
    remedy = stall.remedy_for(reason, tried)
    fresh = min(len(turn.saved.queries[0]), most) if remedy == "weights_and_selection" else 0
    gentle: Meta = _lower_rate(turn, stall) if remedy == "weights_and_rate" else {}
    load(turn.model, turn.initial)  # what cannot be drawn anew starts from there, not from what stalled
    reinitialise(turn.model, number(turn.seed, turn.round, f"restart {restarts}"))
    turn.initial = snapshot(turn.model)
    files = {"initial": turn.write_weights(f"initial-{restarts + 1}.pt", turn.initial)}
    meta: Meta = {
        "attempt": turn.saved.meta["attempt"] + 1,
        "restarts": restarts + 1,
        "remedies": [*tried, remedy],
        "logged_steps": steps_logged(turn.last.trainer) if turn.last else turn.saved.meta.get("logged_steps", 0),
        **gentle,
    }
    reason = replace(reason, numbers={**reason.numbers, "remedy": remedy})
    if not fresh:
        return Change(step="train", reasons=(reason,), files=files, meta=meta)
    selection = _fresh_selection(turn, fresh)
    meta |= {**selection.meta, **_other_labels(turn.pool, turn.saved.meta, reason)}
    return replace(selection, step="label", reasons=(reason,), round=turn.round + 1, files=files, meta=meta)


def _lower_rate(turn: Turn, stall: Watch) -> Meta:
    scale = turn.saved.meta.get("rate_scale", 1.0)
    if stall.rounds is None:
        return {"rate_scale": scale * LOWER}
    # What a control reached at the old rate says nothing at the new one.
    return {
        "rate_scale": gentler(turn, stall.rounds.accuracy, share=stall.rounds.control, scale=scale),
        "control": None,
    }


def _fresh_selection(turn: Turn, size: int) -> Change:
    """Diverse where there are features that no fit has to make first, at random where there are none."""
    if turn.pool.features is not None and not isinstance(turn.pool.features, Layer):
        selection = select(turn, candidates=None, strategy=KMeans(), size=size)
        return Change(query=selection.query, meta=selection.meta)
    picked = turn.pool.state.draw(size, generator(turn.seed, turn.round, "restart"))
    return Change(query=as_query(turn.pool.state, picked, scored=0), meta=nothing_inferred())


def _other_labels(pool: PoolDataModule, meta: Meta, reason: Reason) -> Meta:
    """Return what becomes of the labels there were: paid for and kept, and left out of fits that they would mislead.

    That are labels which a control contradicts, and those of one class, which would outweigh all others.
    """
    if reason.numbers.get("cause") not in ("labels", "one_class"):
        return {}
    control = meta.get("control")
    settled = control and asdict(replace(Control(**control), agreed=None, compared=0))
    return {"set_aside": pool.labelled.tolist(), "control": settled}
