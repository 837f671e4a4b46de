"""Which settings of a run may not change any more: those that something bought or trained depends on."""

from __future__ import annotations

from typing import Any

from al_lightning.errors import RunMismatch
from al_lightning.run.describe import differing
from al_lightning.run.store import Saved

_BY_FEATURES = ("embed", "cluster", "neighbours")
"""Phases of work that a run has only where something asks for features."""


def settled(saved: Saved) -> dict[str, str]:
    """Keys of a configuration on which something depends, and what; none before the first query.

    Args:
        saved: what the folder holds.
    """
    if not saved.queries:
        return {}
    why = dict.fromkeys(("initial", "round_size", "stop_set", "seed"), "records were drawn by it")
    why["task"] = "labels were taken in by it"
    if saved.rounds:
        why |= dict.fromkeys(("model", "proxy", "recipe", "fit"), "a fit was trained by it")
    if (saved.rounds and len(saved.queries) > saved.rounds[0].round) or "scored_ahead" in saved.meta:
        why |= dict.fromkeys(("query", "candidates"), "records were queried by it")
    # Folders of earlier versions say it by their ledger alone.
    if saved.meta.get("features_used") or any(entry.phase in _BY_FEATURES for entry in saved.entries):
        why["features"] = "records were compared by them"
    return why


def changes(saved: Saved, config: dict[str, Any], folder: object) -> dict[str, tuple[Any, Any]]:
    """``{key: (stored, now)}`` of the settings that have changed since the folder was written.

    Raises:
        RunMismatch: one of them is settled.
    """
    found, why = differing(saved.meta["config"], config), settled(saved)
    wrong = {key: values for key, values in found.items() if key.split(".")[0] in why}
    if wrong:
        raise RunMismatch(folder, wrong, {key: why[key.split(".")[0]] for key in wrong})
    return found
