"""Information density: a score, weighed by how much of the pool a record is like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import BadScores
from al_lightning.features.blocks import row_blocks
from al_lightning.pool.view import PoolView
from al_lightning.query.wrapper import Wrapper, check_not_negative


def mean_cosine(features: np.ndarray, ids: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean cosine similarity of records to others, exact: that to the mean of their unit vectors.

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
    """
    width = features.shape[1]
    total, bad = np.zeros(width), []
    for block in row_blocks(len(others), width):
        rows, lengths = _rows(features, others[block])
        bad.append(others[block][~np.isfinite(lengths)])
        total += (_inverse(lengths) @ rows).astype(np.float64)
    similarity, mean = np.empty(len(ids)), (total / len(others)).astype(np.float32)
    for block in row_blocks(len(ids), width):
        rows, lengths = _rows(features, ids[block])
        bad.append(ids[block][~np.isfinite(lengths)])
        # not a matrix product: that sums a row in another order where it stands at the edge, and duplicates must tie
        similarity[block] = np.einsum("ij,j->i", rows, mean) * _inverse(lengths)
    wrong = np.unique(np.concatenate(bad))
    if len(wrong):
        raise BadScores(wrong.tolist(), "features")
    return similarity, 4.0 * width * (len(ids) + len(others))


def _rows(features: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(features[ids], dtype=np.float32)
    return rows, np.sqrt(np.einsum("ij,ij->i", rows, rows))


def _inverse(lengths: np.ndarray) -> np.ndarray:
    return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)


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
    """

    beta: float = 1.0

    adds = frozenset({"features"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"InformationDensity(beta={self.beta}): allowed: a number above 0; 1 is the usual one.")

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
