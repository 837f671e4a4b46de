"""Information density: a score, weighed by how much of the pool a record is like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.features.blocks import check_finite, rows_of
from al_lightning.pool.view import PoolView
from al_lightning.query.work import PickSize
from al_lightning.query.wrapper import Wrapper, check_not_negative

_BLOCK = 1 << 16
"""Numbers in a block: 256 KiB of float32, which is read twice and stays in the cache meanwhile."""


def mean_cosine(features: np.ndarray, ids: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean cosine similarity of records to others, exact: that to the mean of their unit vectors.

    So it takes ``4 d (n + m)`` floating-point operations, not ``n m d``, and ``O(n)`` memory beside the features, which
    are read block by block: a memory map or float16 is fine. A vector of length 0 is similar to nothing.

    Args:
        features: ``(N, d)``, row i belongs to id i.
        ids: ``(n,)``.
        others: ``(m,)`` ids, at least one.

    Returns:
        ``(n,)`` float64 in ``[-1, 1]``, and the floating-point operations.

    Raises:
        BadScores: features are NaN or infinite; the ids are named.
        PoolError: features are too large; the ids are named.
    """
    width, similarity = features.shape[1], np.empty(len(ids))
    total = np.zeros(width)
    for _, rows, inverse in _blocks(features, others):
        total += inverse @ rows
    mean = (total / len(others)).astype(np.float32)
    for block, rows, inverse in _blocks(features, ids):
        # Not a matrix product: that sums a row in another order where it stands at the edge, and duplicates must tie.
        similarity[block] = np.einsum("ij,j->i", rows, mean) * inverse
    return similarity, 4.0 * width * (len(ids) + len(others))


def _blocks(features: np.ndarray, ids: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Rows and one over their lengths, 0 where the length is; raises at the end what check_finite finds in the rest."""
    bad = []
    step = max(1, _BLOCK // features.shape[1])
    for block in (slice(start, start + step) for start in range(0, len(ids), step)):
        with np.errstate(over="ignore", invalid="ignore"):  # check_finite says of what is wrong what it is
            rows = rows_of(features, ids[block])
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        bad += ids[block][~np.isfinite(lengths)].tolist()
        if not bad:
            yield block, rows, np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    if bad:
        check_finite(features, np.array(bad))


@dataclass(frozen=True)
class InformationDensity(Wrapper):
    """Query what scores well and is like much of the pool: score times mean cosine similarity to it, ``** beta``.

    What a model is least sure of is often an outlier, of which nothing else can be learnt. The similarity is to the
    records that are unlabelled now, the record itself among them.

    Meant for features that are nearly all similar to each other more than not, such as counts of words or embeddings
    of a network. A mean similarity below 0 counts as 0: such a record is like nothing, and comes last. Of features that
    are centred on zero that is half of the pool.

    Source: B. Settles and M. Craven, "An analysis of active learning strategies for sequence labeling tasks",
    EMNLP 2008.

    Args:
        strategy: one that gives a score of 0 or more per record.
        beta: above 0; how much the density counts.

    Raises:
        ValueError: a strategy without a score, or ``beta`` out of range.
        NegativeScores: when picking, scores below 0; the ids are named.

    Example:
        >>> from al_lightning.query import Margin
        >>> sorted(InformationDensity(Margin()).requires)
        ['features', 'logits']
    """

    beta: float = 1.0

    adds = frozenset({"features"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"InformationDensity(beta={self.beta}): allowed: a number above 0; 1 is the usual one.")

    def work(self, at: PickSize) -> float:
        """FLOPs of the similarities, and of the inner strategy's pick."""
        return 4.0 * at.features * (at.candidates + at.records - at.labelled) + super().work(at)

    def worth(
        self, *, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """The score times the density."""
        scores = super().worth(view=view, ids=ids, arrays=arrays, rng=rng)
        check_not_negative(scores, ids, "InformationDensity")
        features = view.features
        with Stopwatch.running() as watch:
            similarity, flops = mean_cosine(features, ids, view.unlabelled)
        if view.spend is not None:
            view.spend(flops, watch.seconds)
        return scores * np.maximum(similarity, 0) ** self.beta
