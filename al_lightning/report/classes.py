"""Class balance of what was picked, against what is known of the pool's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from al_lightning.errors import PoolError
from al_lightning.report.panels import INK, SERIES, Panel
from al_lightning.report.runs import ReportedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from al_lightning.pool.datamodule import PoolDataModule

_SHOWN = 25
_SAMPLE = 2000
_Z = 1.96


@dataclass(frozen=True, kw_only=True)
class Share:
    """Hold how often a class was picked.

    Args:
        name: of the class.
        picked: labelled records of that class.
        share: of all labelled records.
        pool: the same share of the reference sample; None without one.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    name: str
    picked: int
    share: float
    pool: float | None = None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Class balance of the labelled records.

    Args:
        shares: of the classes, the most frequent first.
        others: classes that are not shown.
        reference: what the pool's shares are taken from, a sentence.
    """

    shares: tuple[Share, ...]
    others: int
    reference: str


def sampled_labels(pool: PoolDataModule) -> list[Any]:
    """The dataset's own labels of up to 2,000 records drawn at random; none where nobody has labelled it."""
    ids = np.random.default_rng(0).choice(pool.size, size=min(pool.size, _SAMPLE), replace=False)
    try:
        return [pool.items.target(pool.eval_data[int(i)]) for i in ids]
    except PoolError:
        return []


def balance(run: ReportedRun, known: Sequence[Any] = ()) -> Balance | None:
    """Shares of classes among the labelled records, and in the pool; None where labels are no classes.

    A run folder does not hold the pool's labels. They are estimated from labels of a random sample, or from a first
    query that was drawn at random.

    Args:
        run: the run.
        known: of :func:`sampled_labels`.
    """
    if run.language is None or run.task == "regression" or not run.labels:
        return None
    picked = [_classes(value) for value in run.labels.values()]
    sample, reference = _reference(run, known)
    counts, pool_counts = _count(picked), _count(sample)
    order = sorted(counts | pool_counts, key=lambda c: (-counts.get(c, 0), c))
    if not order:
        return None  # no class is on in any record
    shares = []
    for c in order[:_SHOWN]:
        name = run.language.names[c] if run.language.names and 0 <= c < len(run.language.names) else str(c)
        n, k = len(sample), pool_counts.get(c, 0)
        low, high = _wilson(k, n) if n else (0.0, 0.0)
        there = {"pool": k / n, "low": low, "high": high} if n else {}
        shares.append(Share(name=name, picked=counts.get(c, 0), share=counts.get(c, 0) / len(picked), **there))
    return Balance(shares=tuple(shares), others=max(0, len(order) - _SHOWN), reference=reference)


def _classes(value: Any) -> list[int]:
    """The classes of a record: one, or for multilabel those that are on."""
    if isinstance(value, list) and len(value) == 1:  # the (n, 1) target of a binary loss
        return [int(value[0])]
    return [i for i, on in enumerate(value) if on] if isinstance(value, list) else [int(value)]


def _count(records: Iterable[list[int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for classes in records:
        for c in classes:
            counts[c] = counts.get(c, 0) + 1
    return counts


def _reference(run: ReportedRun, known: Sequence[Any]) -> tuple[list[list[int]], str]:
    if known:
        labels = [_classes(value) for value in known]
        return labels, f"the dataset's own labels of {len(labels):,} records drawn at random"
    first = [i for i in run.saved.queries[0] if i in run.labels] if run.saved.queries else []
    if run.config["initial"].get("class") == "Random" and not run.brought and first:
        return [_classes(run.labels[i]) for i in first], f"the first query: {len(first):,} records drawn at random"
    why = "its first labels were brought along" if run.brought else "its first query was not drawn at random"
    return [], f"nothing: the run folder does not hold the pool's labels, and {why}"


def _wilson(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of ``k`` in ``n`` (Wilson, 1927)."""
    centre, spread = k + _Z**2 / 2, _Z * math.sqrt(k * (n - k) / n + _Z**2 / 4)
    return max(0.0, (centre - spread) / (n + _Z**2)), min(1.0, (centre + spread) / (n + _Z**2))


def panel(found: Balance) -> Panel:
    """Bars of what was picked; points with intervals of the pool."""
    shares = found.shares

    def draw(axes: Axes) -> None:
        at = np.arange(len(shares))
        axes.barh(at, [100 * s.share for s in shares], color=SERIES[0], height=0.7)
        known = [(i, s) for i, s in enumerate(shares) if s.pool is not None]
        if known:
            pool = [100 * (s.pool or 0.0) for _, s in known]
            ends = [[p - 100 * s.low, 100 * s.high - p] for p, (_, s) in zip(pool, known, strict=True)]
            axes.errorbar(
                pool, [i for i, _ in known], xerr=np.abs(ends).T, color=INK, marker="o", markersize=4, linestyle="",
                capsize=2, linewidth=1,
            )  # fmt: skip
        axes.set_yticks(at, [s.name if len(s.name) <= 22 else f"{s.name[:21]}…" for s in shares])
        axes.tick_params(axis="y", labelsize=10 if len(shares) <= 12 else 7)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% of the labelled records")

    alt = f"Shares of {len(shares)} classes; the most frequent is {shares[0].name} with {shares[0].share:.1%}."
    return Panel(name="classes", title="Classes of what was picked", alt=alt, draw=draw)
