"""Features and clusters of a run: computed once, cached on disk, on the bill."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.errors import FeaturesMissing
from al_lightning.features.cluster import Clusters, kmeans
from al_lightning.features.neighbours import project
from al_lightning.features.source import Layer, RawInputs
from al_lightning.pool.view import NO_FEATURES
from al_lightning.run import Run


class Features:
    """Gives a view its features and clusters when somebody asks for them.

    Args:
        run: cached in its folder, billed to its ledger; its model runs the embedding pass of a Layer.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def get(self) -> np.ndarray:
        """``(N, d)``, one row per record."""
        run, source = self._run, self._run.pool.features
        if source is None:
            raise FeaturesMissing(NO_FEATURES)
        if not isinstance(source, RawInputs | Layer):
            return source
        cached = self._read("features")
        if cached is not None:
            return np.asarray(cached["features"])
        with Stopwatch.running() as watch:
            flops = 0.0
            if isinstance(source, RawInputs):
                features = source.compute(run.pool)
            else:
                features, flops = source.compute(
                    run.pool,
                    trainer=run.trainer,
                    model=run.model,
                    meter=run.flops,
                    fitted=bool(run.saved.rounds),
                )
        records = run.pool.size if flops else 0
        run.spend(Entry(phase="embed", round=run.round, records=records, flops=flops, seconds=watch.seconds))
        if isinstance(source, RawInputs):  # to write them would take longer than to read them from the dataset again
            run.cached["features"] = {"features": features}
        else:
            self._write("features", features=features)
        return features

    def clusters(self, n_clusters: int) -> Clusters:
        """K-means clusters of the features."""
        name = f"clusters-{n_clusters}"
        cached = self._read(name)
        if cached is not None:
            return Clusters(cached["assignments"], cached["centroids"], 0.0)
        features = self.get()
        with Stopwatch.running() as watch:
            clusters = kmeans(features, n_clusters, seed=self._run.saved.meta["config"]["seed"])
        run = self._run
        run.spend(Entry(phase="cluster", round=run.round, flops=clusters.flops, seconds=watch.seconds))
        self._write(name, assignments=clusters.assignments, centroids=clusters.centroids)
        return clusters

    def projected(self, dims: int) -> np.ndarray:
        """``(N, dims)``, a random projection of the features."""
        name, run = f"projected-{dims}", self._run
        if name not in run.cached:
            features = self.get()
            with Stopwatch.running() as watch:
                run.cached[name], flops = project(features, dims, seed=run.saved.meta["config"]["seed"])
            self.spend(flops, watch.seconds)
        return np.asarray(run.cached[name])

    def spend(self, flops: float, seconds: float) -> None:
        """Bill a neighbour search."""
        self._run.spend(Entry(phase="neighbours", round=self._run.round, flops=flops, seconds=seconds))

    def _path(self, name: str) -> str:
        return f"features/{name}-{self._run.pool.size}.npz"  # appended records make another file

    def _read(self, name: str) -> dict[str, Any] | None:
        # Only what a commit has named counts: a file without one may be from a step that never finished.
        path = self._path(name)
        if self._run.cached.get(name) is not None:
            return self._run.cached[name]
        if self._run.saved.files.get(name) != path:
            return None
        with np.load(self._run.folder / path, allow_pickle=False) as file:
            self._run.cached[name] = dict(file)
        return self._run.cached[name]

    def _write(self, name: str, **arrays: np.ndarray) -> None:
        self._run.cached[name] = arrays
        write = partial(np.savez, **arrays)  # type: ignore[arg-type]
        self._run.add_file(name, self._run.write(self._path(name), write))
