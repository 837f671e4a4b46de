"""Whether the parts of a run go together: asked before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as L

from al_lightning.checks.parts import Parts
from al_lightning.cost.budget import Budget
from al_lightning.errors import BadPart, FeaturesMissing, OutputMismatch, PoolError, PoolExhausted
from al_lightning.features.source import Layer
from al_lightning.history import History
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.view import NO_FEATURES
from al_lightning.query.base import check_task
from al_lightning.round_size import Planned
from al_lightning.scoring.infer import check_shown
from al_lightning.scoring.outputs import AGREEMENT
from al_lightning.stop.base import alternatives, needed_by


def check_parts(parts: Parts) -> None:
    """Before a pool is known.

    Raises:
        BadPart: two parts that cannot go together, or a number out of range.
    """
    if parts.initial.needs_inference:
        raise BadPart(
            f"initial={type(parts.initial).__name__}() needs the model, which knows nothing before the first fit: "
            "use Random() or a strategy on features."
        )
    if parts.proxy is not None:
        _check_proxy(parts)
    if parts.stop_set < 0:
        raise BadPart(f"stop_set={parts.stop_set}: a number of records, 0 or more.")
    needed = needed_by(parts.stop)
    if "agreement" in needed and not parts.stop_set:
        raise BadPart(f"{needed['agreement']} needs agreement between rounds: pass stop_set=, for example 500.")
    if "uncertainty" in needed and "score" not in parts.query.columns:
        raise BadPart(
            f"{needed['uncertainty']} reads the scores a query is made from, and {type(parts.query).__name__} gives "
            "none: use a strategy with one score per record (Margin, Entropy, LeastConfidence)."
        )
    if getattr(parts.policy, "gate", None) is not None and not parts.stop_set:
        raise BadPart("Gated(gate=...) needs agreement between rounds: pass stop_set=, for example 500.")
    if getattr(parts.oracle, "score_ahead", False) and "score" not in parts.query.columns:
        raise BadPart(
            f"{type(parts.oracle).__name__}(score_ahead=True) scores while people answer, and "
            f"{type(parts.query).__name__} gives no score: use a strategy with one score per record (Margin, "
            "Entropy, LeastConfidence)."
        )
    if parts.candidates.reuses_scores and "score" not in parts.query.columns:
        raise BadPart(
            f"{type(parts.candidates).__name__} queries by earlier scores, and {type(parts.query).__name__} gives "
            "none: use a strategy with one score per record (Margin, Entropy, LeastConfidence)."
        )


def check_clusters(part: Any, size: int) -> None:
    """Raise PoolError where a part, or one inside it, is to make more clusters than there are records."""
    for one in _inside(part):
        n_clusters = getattr(one, "n_clusters", None)
        if n_clusters is not None and n_clusters > size:
            raise PoolError(
                f"{type(one).__name__}(n_clusters={n_clusters}) of a pool of {size} records; allowed: up to {size}, "
                "or None for a number that goes by the pool's size."
            )


def goes_by_size(part: Any) -> bool:
    """Return whether a part, or one inside it, makes as many clusters as the pool's size says."""
    return any(getattr(one, "n_clusters", 0) is None for one in _inside(part))


def clusters_anew(part: Any) -> bool:
    """Return whether a part, or one inside it, makes more clusters from round to round, and foresees them by itself."""
    return any(hasattr(one, "max_clusters") for one in _inside(part))


def _inside(part: Any) -> Iterator[Any]:
    while part is not None:
        yield part
        part = getattr(part, "strategy", None) or getattr(part, "selector", None)


def reads_features(parts: Parts) -> bool:
    """Return whether any part reads the pool's features."""
    strategies = (parts.initial, parts.query)
    return (
        any("features" in strategy.requires for strategy in strategies)
        or parts.candidates.uses_features
        or "coverage" in needed_by(parts.stop)
    )


def _check_proxy(parts: Parts) -> None:
    final = getattr(parts.policy, "final", "initial")  # a policy of the user's own says so in its final_plan
    if final != "initial":
        raise BadPart(
            f"{type(parts.policy).__name__}(final={final!r}) with proxy=: the model that a proxy selects for is "
            'trained by the final fit alone, from its own weights; allowed: final="initial".'
        )
    if isinstance(parts.round_size, Planned):
        raise BadPart(
            "round_size=Planned(...) prices rounds of one model, and proxy= trains another at the end: use EvenRounds, "
            "Growing or another size."
        )


def _compares(parts: Parts) -> str | None:
    """A part that compares records by features, if there is one."""
    strategies = (parts.query, parts.initial)
    by_features: list[Any] = [part for part in strategies if "features" in part.requires]
    by_features += [parts.candidates] if parts.candidates.uses_features else []
    coverage = needed_by(parts.stop).get("coverage")
    return coverage or next((type(part).__name__ for part in by_features), None)


def check_pool(parts: Parts, pool: PoolDataModule, model: L.LightningModule) -> None:
    """Once the pool is known, and the model that is trained on it.

    Raises:
        FeaturesMissing: a part that compares records by features, of a pool without.
        OutputMismatch: a strategy that does not take the pool's task, agreement of a task without a class a record, or
            a model that cannot be shown records without their targets.
        PoolError: a policy that needs the pool's own loader, of a pool that has another.
        PoolExhausted: more records asked for than the pool holds.
    """
    check_task(parts.query, pool.task)
    if parts.query.needs_inference or parts.stop_set or isinstance(pool.features, Layer):
        check_shown(model if parts.proxy is None else parts.proxy, pool)
    if parts.candidates.uses_shards:
        _ = pool.view().shard_of  # a pool without is refused before anything is bought
    for part in (parts.candidates, parts.query, parts.initial):
        check_clusters(part, pool.size)
    compares = _compares(parts)
    if compares is not None and pool.features is None:
        raise FeaturesMissing(f"{compares} compares records by the pool's features. {NO_FEATURES}")
    if parts.stop_set and pool.task not in AGREEMENT:
        raise OutputMismatch(
            f"stop_set={parts.stop_set} measures agreement of classes, and task={pool.task!r} has none per record; "
            f"allowed: {', '.join(AGREEMENT)}. Leave stop_set out."
        )
    if getattr(parts.policy, "distill", None) is not None and pool.loads_its_own_way:
        raise PoolError(
            f"{type(parts.policy).__name__}(distill=...) puts new and old records in places of their own in a batch, "
            f"and {type(pool).__name__} has a train_dataloader() of its own: leave one of them out."
        )
    if parts.stop_set > pool.size:
        raise PoolExhausted(parts.stop_set, pool.size, "records for the stop set")
    limits = [rule.labels for rule in alternatives(parts.stop) if isinstance(rule, Budget) and rule.labels]
    wanted = [parts.round_size(History(pool_size=pool.size, unlabelled=pool.size)), *limits]
    if max(wanted) > pool.size - parts.stop_set:
        raise PoolExhausted(max(wanted), pool.size - parts.stop_set)
