"""How a run begins, and how it goes on: what the folder holds becomes what the modules and the pool hold."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from al_lightning.fit.plan import load, snapshot
from al_lightning.run.changes import Change
from al_lightning.run.describe import describe
from al_lightning.run.files import RunFiles
from al_lightning.run.leftovers import Footprint
from al_lightning.run.meta import Meta
from al_lightning.run.run import Run
from al_lightning.run.turn import Turn
from al_lightning.seeds import generator
from al_lightning.steps.select import as_query
from al_lightning.stop.base import StoppingRule

_trained: weakref.WeakKeyDictionary[L.LightningModule, Path] = weakref.WeakKeyDictionary()


def note_trained(modules: Iterable[L.LightningModule], folder: Path) -> None:
    """From here on their weights are those of the run in that folder."""
    for module in modules:
        _trained[module] = folder


def begin(
    run: Run, modules: Sequence[L.LightningModule], *, stop_set: int, stop: object, labelling: dict[str, object]
) -> Change:
    """Return the first change of a run: initial weights, the stop set, and the labels that were there before the run.

    Args:
        run: whose folder is new.
        modules: that it trains.
        stop_set: size of the stop set.
        stop: stopping rules.
        labelling: rules that people label by.
    """
    footprint = Footprint.of(run.target, run.trainer, proxy=run.proxy)
    run.on_zero(lambda: footprint.check(run.folder))
    rank_zero_info(f"{run.folder} will take {footprint}.")
    run.initial = snapshot(run.model)
    state = run.pool.start_run()
    for module in (m for m in modules if m in _trained):
        warnings.warn(
            f"this {type(module).__name__} was trained by the run in {_trained[module]}, and those weights "
            "are now the initial weights of another one. Build a new module for a run from the start.",
            stacklevel=4,
        )
    reserved = np.sort(state.draw(stop_set, generator(run.seed, 0, "stop set")))
    state.reserve(reserved)
    meta: Meta = {"stop_set": reserved.tolist(), "stop": describe(stop), "labelling": labelling, "attempt": 1}
    meta |= {"restarts": 0, "config": run.config}
    files = _write_initial(run, _initial(run))
    brought = dict(state.labels)  # the user's labels from before the run are its first query
    if not brought:
        return Change(step="query", meta=meta, files=files)
    state.forget(brought)
    query = as_query(state, np.fromiter(brought, dtype=np.int64), scored=0)
    sources = dict.fromkeys(brought, ("", "brought"))
    return Change(step="train", query=query, answers=brought, sources=sources, round=1, meta=meta, files=files)


def _initial(turn: Turn) -> dict[str, tuple[str, L.LightningModule]]:
    own = {"initial": ("initial.pt", turn.model)}
    return own if turn.proxy is None else {**own, "target_initial": ("target.pt", turn.target)}


def _write_initial(files: RunFiles, wanted: dict[str, tuple[str, L.LightningModule]]) -> dict[str, str]:
    """Write the weights that modules have now as those the run starts from."""
    return {name: files.write_weights(path, snapshot(module)) for name, (path, module) in wanted.items()}


def _adopt(run: Run) -> Change:
    """Go on with settings that have changed: labels and answers stay, another model brings its own first weights."""
    other = {"model", "proxy"} & {key.split(".")[0] for key in run.changed}
    files = _write_initial(run, _initial(run)) if other else {}
    return Change(meta={"config": run.config}, files=files)


def resume(run: Run, *, stop: Sequence[StoppingRule], labelling: dict[str, object]) -> Iterator[Change]:
    """Take over the weights the folder holds, and rules that have changed since, one change after another.

    Args:
        run: whose folder is not new.
        stop: stopping rules as they are now.
        labelling: rules that people label by now.

    Yields:
        Changes; each is to be committed before the next is asked for.
    """
    missing = {name: found for name, found in _initial(run).items() if name not in run.saved.files}
    if missing:  # it was recovered without
        yield Change(files=_write_initial(run, missing))
    if run.changed:
        yield _adopt(run)
    run.initial = run.read_weights("initial")
    load(run.model, run.read_weights(run.delivered))
    if run.proxy is not None:
        load(run.target, run.read_weights("target_initial"))
    if run.step == "done" and run.saved.meta["stop"] != describe(stop):
        # The rules of a finished run have changed, for example to a larger budget: it goes on if they let it.
        still_stops = any(rule(run.accounts.history) is not None for rule in stop)
        # A proxy has not seen the last query's labels: the final fit, of the model, took the place of its own.
        behind = run.proxy is not None and run.saved.rounds[-1].round < run.round
        on = "train" if behind else "decide"
        yield Change(step="done" if still_stops else on, meta={"stop": describe(stop)})
    if run.saved.meta.get("labelling") != labelling:
        yield Change(meta={"labelling": labelling})
