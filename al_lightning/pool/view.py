"""The read-only view of the pool that every decision gets; it cannot spend what it was made to save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import FeaturesMissing, PoolError
from al_lightning.features.blocks import PROJECTED, check_finite
from al_lightning.features.neighbours import distance_to_nearest, project

if TYPE_CHECKING:
    from al_lightning.features.cluster import Clusters

NO_FEATURES = "the pool has no features. Pass PoolDataModule(features=...): an (N, d) array, RawInputs() or Layer()."
NO_SHARDS = (
    "the pool's dataset is not in shards. Open it by ParquetShards or TarShards, or give it an attribute shard_of: an "
    "(N,) array of the shard that each record lies in; or choose other candidates, RandomSubset or RotatingSubset."
)


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """Hold what a candidate selector or a strategy may know. There is no model in it, on purpose.

    Args:
        size: number of records in the pool, ``N``. Ids run from 0 to ``N - 1``.
        round: number of queries committed so far.
        unlabelled: ids that may be queried, ``(U,)`` int64, ascending. Refused records, records that wait for an
            answer and the stop set are not among them.
        labelled: ids with a label, ``(L,)`` int64, in the order they were labelled.
        scores: last score of every record, ``(N,)`` float32, NaN where there was none.
        score_rounds: round each score is from, ``(N,)`` int32, -1 where there was none.
        label_costs: price of every record's label in multiples of ``Prices.label``, ``(N,)`` float64; None where all
            cost the same.
        score_cost: compute of inferring a record, as a share of what the declared recipe spends on a label; None where
            it is not known, as in a hand-written loop.
        load_features: behind :attr:`features`.
        load_clusters: behind :meth:`clusters`.
        load_projected: ``dims -> (N, dims)``, behind :meth:`distance_to_labelled`.
        load_shard_of: behind :attr:`shard_of`; may find none.
        spend: told of floating-point operations and seconds that a method took.
    """

    size: int
    round: int
    unlabelled: np.ndarray
    labelled: np.ndarray
    scores: np.ndarray
    score_rounds: np.ndarray
    label_costs: np.ndarray | None = None
    score_cost: float | None = None
    load_features: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    load_clusters: Callable[[int], Clusters] | None = field(default=None, repr=False)
    load_projected: Callable[[int], np.ndarray] | None = field(default=None, repr=False)
    load_shard_of: Callable[[], np.ndarray | None] | None = field(default=None, repr=False)
    spend: Callable[[float, float], None] | None = field(default=None, repr=False)

    @property
    def features(self) -> np.ndarray:
        """One vector per record, ``(N, d)``; computed once per run, cached on disk, on the bill.

        Raises:
            FeaturesMissing: the pool was given no feature source.
        """
        if self.load_features is None:
            raise FeaturesMissing(NO_FEATURES)
        return self.load_features()

    def clusters(self, n_clusters: int) -> Clusters:
        """K-means clusters of the features; computed once per run and number of clusters, cached, on the bill."""
        if self.load_clusters is None:
            raise FeaturesMissing(NO_FEATURES)
        return self.load_clusters(n_clusters)

    @property
    def shard_of(self) -> np.ndarray:
        """Shard that each record lies in, ``(N,)`` int: what is read as one.

        Raises:
            PoolError: the pool is not in shards, or not one shard is named per record.
        """
        found = self.load_shard_of() if self.load_shard_of is not None else None
        if found is None:
            raise PoolError(NO_SHARDS)
        if len(found) != self.size:
            raise PoolError(
                f"shard_of has {len(found)} entries, the pool {self.size} records: one for each is expected."
            )
        return found

    def distance_to_labelled(self, ids: np.ndarray, dims: int) -> np.ndarray:
        """Distance of records to the nearest labelled one, in a random projection of the features; on the bill.

        Args:
            ids: ``(n,)``.
            dims: of the projection; narrower features are used as they are.

        Returns:
            ``(n,)`` float32; 0 where nothing is labelled yet.

        Raises:
            FeaturesMissing: the pool was given no feature source.
            BadScores: features are NaN or infinite; the ids are named.
        """
        if self.load_projected is not None:
            projected = self.load_projected(dims)
        else:
            check_finite(self.features, np.concatenate([ids, self.labelled]))
            projected, _ = project(self.features, dims, seed=0)
        if not len(self.labelled):
            return np.zeros(len(ids), np.float32)
        for part in (ids, self.labelled):
            check_finite(projected, part, limit=PROJECTED)
        import faiss  # noqa: F401  # before the clock starts: loading it is no search's, and forecasts go by the first one

        with Stopwatch.running() as watch:
            distance, flops = distance_to_nearest(projected[ids], projected[self.labelled])
        if self.spend is not None:
            self.spend(flops, watch.seconds)
        return distance
