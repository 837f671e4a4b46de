"""Whether the labels bought so far say anything about the features: what selecting by a model rests on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from al_lightning.errors import ActiveLearningError, BadScores

NOTHING_BEFORE = 0.2
"""Projects whose labels say nothing about their features, as a share, before any label is seen: an assumption. A
warning is given where that is likelier than not once labels are seen: a wrong one counts as much as a missing one."""
SHUFFLED = 0.6
"""Share of the labels that may be wrong without a warning. Active learning was still worth it with as many shuffled."""
MOST_RECORDS = 500
"""Of more, so many are looked at."""
PERMUTATIONS = 999
SIGNIFICANT = 0.05
"""p-value from which labels do say something, however little."""


class Reference(NamedTuple):
    """Hold what pairs of records with the same label look like on a data set whose labels do say something.

    Args:
        effect: mean of their scores, see :func:`label_signal`; 0 under labels that say nothing.
        same: pairs with the same label / all pairs.
    """

    effect: float
    same: float


REFERENCES = {
    "letter": Reference(1.03, 0.039),
    "banking77": Reference(1.28, 0.014),
    "fashion-mnist": Reference(0.97, 0.100),
    "digits": Reference(1.43, 0.100),
    "adult": Reference(0.029, 0.639),
    "goemotions": Reference(0.023, 0.144),
}
"""Measured on 500 records of each source at a time (``reference`` in benchmarks/results/planner.json)."""


@dataclass(frozen=True, kw_only=True)
class LabelSignal:
    """Hold what labels say about features.

    Args:
        records: that were looked at.
        pairs: of them with the same label.
        p_value: share of shuffled labels whose pairs are as near or nearer; 1 where nothing can be compared.
        odds: how much likelier these pairs are if labels say nothing than if they are those of a middling data set,
            :data:`SHUFFLED` of them shuffled; 1 where nothing can be compared.
    """

    records: int
    pairs: int
    p_value: float
    odds: float

    @property
    def finding(self) -> Literal["nothing", "something", "unclear"]:
        """``nothing``: warn; ``unclear``: so few pairs look the same either way."""
        if self.p_value <= SIGNIFICANT:
            return "something"
        return "nothing" if self.odds > (1 - NOTHING_BEFORE) / NOTHING_BEFORE else "unclear"

    @property
    def sentence(self) -> str:
        """The finding in words."""
        measured = f"p = {self.p_value:.2g}, {self.pairs:,} pairs with the same label among {self.records:,} records"
        if self.finding == "something":
            return f"The labels bought so far say something about these features ({measured})."
        if self.finding == "unclear":
            return (
                f"The labels bought so far are too few to tell whether they say anything about these features "
                f"({measured})."
            )
        return (
            f"The labels bought so far look as if they said nothing about these features ({measured}; "
            f"{_times(self.odds)} likelier of labels that say nothing than of ones of which {SHUFFLED:.0%} are wrong). "
            "If that is so, no way of choosing records will help. Before you buy more, ask whether labels and records "
            "belong together, whether people agree on labels, and whether the features hold what the labels are about."
        )

    def to_json(self) -> dict[str, Any]:
        """The signal as JSON-able data."""
        return {**vars(self), "finding": self.finding, "sentence": self.sentence}


def label_signal(
    features: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    *,
    ids: Sequence[int] | np.ndarray | None = None,
    references: Sequence[Reference] | None = None,
) -> LabelSignal:
    """Compare how near records with the same label are with how near they would be had the labels been shuffled.

    It has more power than training on so few: of 30 labels of 26 classes nothing can be learnt yet, and 17 pairs can be
    compared. Columns are standardised. A pair scores -log(rank of its Euclidean distance among all pairs), so that
    the nearest count most; every record's mean score is taken off (U-centring), so that records far from all others
    say nothing. The statistic is the sum over pairs with the same label, as in the Mantel test; its mean and variance
    under shuffled labels are exact, and its p-value is of 999 shuffles. Records may have been chosen by their
    features, not by a model of the labels: buy the first round at random, and judge by that one.

    The odds are those beside a data set whose labels do say something. The statistic is taken as normal there, with a
    mean by the reference's effect and a deviation larger by the effect, as scores are about exponential.
    ``SHUFFLED`` of its labels shuffled leave (1 - SHUFFLED)^2 of the effect, and where a class here is larger than its
    classes, what classes merged at random leave: two classes are harder to tell than twenty. The middling one of the
    references counts.

    Source: N. Mantel, "The detection of disease clustering and a generalized regression approach", 1967; the centring
    is that of G. Szekely and M. Rizzo, "Partial distance correlation with methods for dissimilarities", 2014,
    arXiv:1310.2926.

    Args:
        features: ``(n, d)`` of the labelled records, as they come or embedded. Of more than 500, 500 are looked at.
        labels: ``(n,)`` classes: whole numbers, strings or booleans.
        ids: ``(n,)`` to name records by in errors; default: positions.
        references: what labels look like that say something; default: :data:`REFERENCES`.

    Raises:
        ActiveLearningError: shapes that do not match, or labels that are no classes.
        BadScores: features that are NaN or infinite.
    """
    x, classes = _checked(features, labels, ids)
    if len(x) > MOST_RECORDS:
        kept = np.random.default_rng(0).permutation(len(x))[:MOST_RECORDS]
        x, classes = x[kept], classes[kept]
    first, second = np.nonzero(np.triu(classes[:, None] == classes[None, :], 1))
    n, pairs = len(x), len(first)
    deviation = 0.0
    if n > 3 and pairs:
        scores = _pair_scores(x)
        deviation = _deviation(scores, classes)
    if not deviation > 0:
        return LabelSignal(records=n, pairs=pairs, p_value=1.0, odds=1.0)
    total = float(scores[first, second].sum())
    rng, as_near = np.random.default_rng(0), 0
    for _ in range(PERMUTATIONS):
        order = rng.permutation(n)
        as_near += float(scores[order[first], order[second]].sum()) >= total - 1e-9 * deviation
    known = REFERENCES.values() if references is None else references
    return LabelSignal(
        records=n,
        pairs=pairs,
        p_value=(as_near + 1) / (PERMUTATIONS + 1),
        odds=_odds(total, deviation, np.bincount(classes), list(known)),
    )


def effect_of(features: np.ndarray, labels: np.ndarray) -> Reference:
    """Return what a data set's labels look like, as a :class:`Reference`; at most 500 of its records are looked at.

    Args:
        features: ``(n, d)``.
        labels: ``(n,)`` classes.
    """
    x, classes = _checked(features[:MOST_RECORDS], labels[:MOST_RECORDS], None)
    same = np.triu(classes[:, None] == classes[None, :], 1)
    return Reference(float(_pair_scores(x)[same].mean()), float(same.sum() / (len(x) * (len(x) - 1) / 2)))


def _checked(features: Any, labels: Any, ids: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ActiveLearningError(
            f"features have shape {x.shape} and labels {y.shape}; allowed are (n, d) and (n,): one class a record."
        )
    if len(y) and y.dtype.kind not in "iubUS":
        raise ActiveLearningError(
            f"labels are {y.dtype}; allowed are classes: whole numbers, strings or booleans. For labels that are "
            "numbers or sets of classes there is no such test here."
        )
    names = np.arange(len(x)) if ids is None else np.asarray(ids)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise BadScores(names[bad].tolist(), "a feature")
    return x, np.unique(y, return_inverse=True)[1].reshape(-1)


def _pair_scores(x: np.ndarray) -> np.ndarray:
    """``(n, n)``, U-centred: rows sum to 0, and the diagonal is 0."""
    n, spread = len(x), x.std(axis=0)
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(x).max(axis=0, initial=0.0))
    scaled = (x[:, varies] - x[:, varies].mean(axis=0)) / spread[varies]
    # Of differences, not of a Gram matrix: duplicates are at exactly 0.
    distances = torch.pdist(torch.from_numpy(scaled)).numpy()
    _, which, counts = np.unique(distances, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which.reshape(-1)]  # ties share their mean rank
    scores, upper = np.zeros((n, n)), np.triu_indices(n, 1)
    scores[upper] = -np.log(ranks / len(ranks))
    return _centred(scores + scores.T)


def _centred(matrix: np.ndarray) -> np.ndarray:
    n, rows = len(matrix), matrix.sum(axis=1)
    found = matrix - (rows[:, None] + rows[None, :]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(found, 0.0)
    return found


def _deviation(scores: np.ndarray, classes: np.ndarray) -> float:
    """Standard deviation, over all orders of the labels, of the sum over pairs with the same label; its mean is 0."""
    n = len(classes)
    same = (classes[:, None] == classes[None, :]).astype(float)
    np.fill_diagonal(same, 0.0)
    squares = float((scores**2).sum()) * float((_centred(same) ** 2).sum())
    # Rows of both sum to 0, so of the products only those of a pair with itself, with one that shares a record, and
    # with one that shares none are left, and each is a multiple of the first.
    return math.sqrt(squares / (2 * n * (n - 3))) if squares > 1e-12 * n else 0.0


def _odds(total: float, deviation: float, counts: np.ndarray, references: Sequence[Reference]) -> float:
    """Density of the statistic under labels that say nothing / under those of the middling reference."""
    if not references:
        return 1.0
    mean = (1 - SHUFFLED) ** 2 * statistics.median(_expected(counts, reference) for reference in references)
    wide = 1 + mean / float((counts * (counts - 1) / 2).sum())
    log_odds = ((total - mean) / deviation / wide) ** 2 / 2 + math.log(wide) - (total / deviation) ** 2 / 2
    return math.exp(min(max(log_odds, -600.0), 600.0))


def _expected(counts: np.ndarray, reference: Reference) -> float:
    """The statistic, on average, if these classes were a reference's, merged at random where they are larger."""
    shares, pairs = counts / counts.sum(), counts * (counts - 1) / 2
    alike = np.minimum(1.0, reference.same / shares)  # pairs of a class that were of one class before it was merged
    everywhere = float((shares**2 * alike).sum())
    centred = alike - 2 * shares * alike + everywhere  # as the scores are: less what its two records have on average
    return max(reference.effect, 0.0) / (1 - reference.same) * float((pairs * centred).sum())


def _times(odds: float) -> str:
    return "over 1,000 times" if odds > 1000 else f"{odds:.0f} times"
