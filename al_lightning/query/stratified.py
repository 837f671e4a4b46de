"""Stratified: every cluster of the pool has its share of the query, members are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from al_lightning.candidates.representatives import draw_from_clusters
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.query.clusters import check_clusters, usual_clusters


@dataclass(frozen=True)
class Stratified(Strategy):
    """Query at random, with every cluster's share of the query that of its share of the candidates.

    The estimate of anything that differs from cluster to cluster has less variance than from a plain random draw, and
    no large region is missed by bad luck. Nothing is inferred.

    Source: proportional allocation of stratified sampling, J. Neyman 1934; allocated by
    :func:`~al_lightning.candidates.representatives.draw_from_clusters`.

    Args:
        n_clusters: of the pool; by default the power of two nearest to the square root of its size.

    Raises:
        ValueError: fewer than one cluster.

    Example:
        >>> Stratified().needs_inference
        False
    """

    n_clusters: int | None = None

    requires = frozenset({"features"})

    def __post_init__(self) -> None:
        check_clusters(self.n_clusters, "Stratified", "the power of two nearest to the square root of the pool")

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        n_clusters = self.n_clusters or usual_clusters(view.size)
        clusters = view.clusters(n_clusters).assignments[ids]
        return draw_from_clusters(ids, clusters, np.zeros(len(ids)), np.ones(n_clusters), size, rng)
