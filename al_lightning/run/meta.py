"""The metadata of a run: what it knows beside its queries, labels, rounds, ledger and files.

Each key is a row of table ``meta``, its value as JSON; a change writes those that it changes. Keys that are new to a
version are absent from older folders, and a key whose meaning changes gets a migration in schema.py.
"""

from __future__ import annotations

from typing import Any, TypedDict

from al_lightning.stop.false_start import Remedy


class Meta(TypedDict, total=False):
    """The metadata of a run, by key; a change holds the keys that it changes.

    What a run is, and how it was set:

    - ``config``: its settings as plain data, see :mod:`~al_lightning.run.describe`; ``unconfigured`` after a recovery.
    - ``fingerprint``: size and checksum of the pool. ``stop_set``: ids kept for agreement between rounds.
    - ``stop``, ``labelling``, ``pricing``: stopping rules, rules that people label by, prices, at the last start.
    - ``approvals``: of queries, by people. ``recovered``: what a recovery could not restore.

    Where it stands:

    - ``rounds``: taken, where fewer than were set may be. ``fits``: rounds fitted. ``attempt``: of the fit at hand,
      from 1. ``logged_steps``: the loggers' last step.
    - ``restarts``, ``remedies``, ``rate_scale``, ``set_aside``, ``control``: what false starts have led to.
    - ``withdrawn``: ids that were trained on and have lost their label.
    - ``best``, ``last_checkpoints``: of the last fit. ``val_batches``: of a shortened fit.

    What the last query was chosen from:

    - ``inferred``, ``stale``, ``uncertainty``: candidates scored, picked by old scores, mean score.
    - ``candidates``: state of the selector. ``predictions``: the model's answers by id. ``scored_ahead``: the round.
    - ``said_missing``: whether classes without labels have been looked for. ``width``: outputs of the model.

    What work costs:

    - ``flops_per_record``, ``flops_unknown``, and with ``proxy_`` before them: by kind of pass, and why not counted.
    - ``train_rate``, ``pace``, ``validation``, ``tuning``: measured seconds and records of fits. ``kwh``: by phase.
    - ``rehearsed``: costs seen before anything was bought. ``in_flight``: of a fit that was not finished.
    - ``about``: what files that can be made again were made from. ``features_used``: whether anything rests on them.
    """

    config: dict[str, Any]
    unconfigured: bool
    fingerprint: dict[str, Any]
    stop_set: list[int]
    stop: list[Any]
    labelling: dict[str, Any]
    pricing: dict[str, Any]
    approvals: list[dict[str, Any]]
    recovered: list[str]

    rounds: int
    fits: int
    attempt: int
    logged_steps: int
    restarts: int
    remedies: list[Remedy]
    rate_scale: float
    set_aside: list[int]
    control: dict[str, Any] | None
    withdrawn: list[int]
    best: dict[str, Any] | None
    last_checkpoints: list[str]
    val_batches: int | float

    inferred: int
    stale: int
    uncertainty: float | None
    candidates: dict[str, Any]
    predictions: dict[str, tuple[Any, float | None]]
    scored_ahead: int
    said_missing: bool
    width: int

    flops_per_record: dict[Any, float]
    flops_unknown: dict[str, str]
    proxy_flops_per_record: dict[Any, float]
    proxy_flops_unknown: dict[str, str]
    train_rate: dict[str, float]
    pace: dict[str, float]
    validation: dict[str, Any]
    tuning: int
    kwh: dict[str, float]
    rehearsed: dict[str, Any]
    in_flight: dict[str, Any] | None
    about: dict[str, Any]
    features_used: bool
