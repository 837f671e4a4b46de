"""A few records as a pool of their own, which selectors and strategies are tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from al_lightning.cost.rehearsed import Rehearsed
from al_lightning.errors import BadScores, FeaturesMissing, PoolError
from al_lightning.features.cluster import Clusters, kmeans, kmeans_flops
from al_lightning.features.neighbours import project
from al_lightning.features.source import Layer, RawInputs
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.view import NO_FEATURES, PoolView

RECORDS = 32
"""Records of it, at most."""


def spread(size: int, count: int) -> np.ndarray:
    """``count`` ids, at most all, evenly spread over ``[0, size)``: data that is sorted by class shows several."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(np.int64))


@dataclass
class SmallPool:
    """Some of a pool's records, which a selector and a strategy may look at.

    Where they compare records by features, these are a pool of their own, whose ids are positions in ``ids``: others'
    features would have to be made. Else ids are the pool's.

    Args:
        pool: the records.
        ids: which of them, ``(n,)``.
        embed: makes their features by a Layer, ``(layer, ids) -> (n, d)``.
        apart: whether they are a pool of their own.
        usual: clusters that will be asked for where the pool's size decides.
        anew: whether clusters are made for each query, and are no part of what is made once.
        rehearsed: told of what will be made of all records once, and of distances.
    """

    pool: PoolDataModule
    ids: np.ndarray
    embed: Callable[[Layer, np.ndarray], np.ndarray] = field(repr=False)
    apart: bool = False
    usual: int = 0
    anew: bool = False
    rehearsed: Rehearsed = field(default_factory=Rehearsed, repr=False)

    @property
    def size(self) -> int:
        """Records of the view."""
        return len(self.ids) if self.apart else self.pool.size

    @property
    def named(self) -> np.ndarray:
        """The records under the ids of the view, ``(n,)``."""
        return np.arange(len(self.ids)) if self.apart else self.ids

    def real(self, named: np.ndarray) -> np.ndarray:
        """Ids of the pool, of ids of the view."""
        return self.ids[named] if self.apart else named

    @cached_property
    def features(self) -> np.ndarray:
        """``(n, d)``.

        Raises:
            FeaturesMissing: the pool has none, or they cannot be made.
            BadScores: they are NaN or infinite; the ids are named.
        """
        source = self.pool.features
        if source is None:
            raise FeaturesMissing(NO_FEATURES)
        if isinstance(source, Layer):
            features = self.embed(source, self.ids)
        else:
            features = source.compute(self.pool, self.ids) if isinstance(source, RawInputs) else source[self.ids]
        bad = ~np.isfinite(features).all(axis=1)
        if bad.any():
            raise BadScores(self.ids[bad], "features")
        self.rehearsed.features = features.shape[1]
        return np.asarray(features)

    def view(self, labelled: int, round: int) -> PoolView:
        """Return how it looks with so many of the records labelled, the first ones."""
        n, costs = self.size, self.pool.label_costs
        return PoolView(
            size=n,
            round=round,
            unlabelled=self.named[labelled:],
            labelled=self.named[:labelled],
            scores=np.full(n, np.nan, np.float32),
            score_rounds=np.full(n, -1, np.int32),
            label_costs=None if costs is None else costs[self.ids] if self.apart else costs,
            load_features=lambda: self._placed(self.features),
            load_clusters=self._clusters,
            load_projected=self._projected,
            load_shard_of=self._shard_of,
        )

    def _placed(self, rows: np.ndarray) -> np.ndarray:
        """Rows of these records among rows of zeros, which take no memory."""
        if self.apart:
            return rows
        placed = np.zeros((self.size, *rows.shape[1:]), rows.dtype)
        placed[self.ids] = rows
        return placed

    def project_once(self, dims: int) -> np.ndarray:
        """Features of these records in a random projection, which a run makes once of all of them."""
        rows, flops = project(self.features, dims, seed=0)
        self.rehearsed.note_once("neighbours", flops / len(rows) * self.pool.size)
        return rows

    def _projected(self, dims: int) -> np.ndarray:
        rows = self.project_once(dims)
        self.rehearsed.distance = 2.0 * rows.shape[1]
        return self._placed(rows)

    def _clusters(self, n_clusters: int) -> Clusters:
        if not 1 <= n_clusters <= self.pool.size:
            raise PoolError(
                f"{n_clusters} clusters of {self.pool.size} records; allowed: 1 to {self.pool.size}. Ask for fewer "
                "clusters."
            )
        clusters = max(n_clusters, self.usual)
        if not self.anew:
            self.rehearsed.note_once("cluster", kmeans_flops(self.pool.size, self.features.shape[1], clusters))
        found = kmeans(self.features, min(n_clusters, len(self.ids)), seed=0)
        # Clusters that so few records cannot fill stay empty.
        centroids = np.resize(found.centroids, (n_clusters, found.centroids.shape[1]))
        return Clusters(self._placed(found.assignments), centroids, 0.0)

    def _shard_of(self) -> np.ndarray | None:
        shards = getattr(self.pool.eval_data, "shard_of", None)
        return None if shards is None else np.asarray(shards)[self.real(np.arange(self.size))]
