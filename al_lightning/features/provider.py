"""Features and clusters of a run: computed once, cached on disk, on the bill."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np

from al_lightning.cost.ledger import Entry, Stopwatch
from al_lightning.errors import DamagedFile, FeaturesMissing
from al_lightning.features import cache
from al_lightning.features.cluster import Clusters, kmeans, nearest_centroid
from al_lightning.features.inputs import check_numbers, in_memory
from al_lightning.features.neighbours import project
from al_lightning.features.source import Layer, RawInputs
from al_lightning.pool.fingerprint import digest
from al_lightning.pool.view import NO_FEATURES
from al_lightning.run.turn import Turn
from al_lightning.scoring.trainer import unwrapped
from al_lightning.seeds import generator

SAMPLE = 256
"""Records that are looked at again, to see whether features have changed."""


class Features:
    """Gives a view its features and clusters when somebody asks for them.

    Args:
        turn: cached in its folder, billed to its ledger; its model runs the embedding pass of a Layer.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._checked = False

    def get(self) -> np.ndarray:
        """``(N, d)``, one row per record."""
        found = self._found()
        self._turn.used_features = True
        return found

    def _found(self) -> np.ndarray:
        turn, source = self._turn, self._turn.pool.features
        if source is None:
            raise FeaturesMissing(NO_FEATURES)
        if isinstance(source, Layer):
            return self._layer(source)
        if not isinstance(source, RawInputs):
            return source
        if "features" not in turn.cached:  # to write them would take longer than to read them from the dataset again
            with Stopwatch.running() as watch:
                turn.cached["features"] = {"features": source.compute(turn.pool)}
            turn.accounts.spend(Entry(phase="embed", round=turn.round, seconds=watch.seconds))
        return np.asarray(turn.cached["features"]["features"])

    def verify(self) -> None:
        """Read what no fit has to make first, so that what cannot be used is refused before a label is bought.

        Raises:
            FeaturesMissing: there are none, or the model has no such layer.
            PoolError: numbers that cannot be compared; the ids are named.
            BadScores: NaN or infinite numbers; the ids are named.
        """
        source, known = self._turn.pool.features, self._turn.cached
        if isinstance(source, Layer):
            source.question(self._turn.model, fitted=True)
        elif "verified" not in known and not in_memory(features := self.get()):
            check_numbers(features)
        known["verified"] = {}

    def clusters(self, n_clusters: int) -> Clusters:
        """K-means clusters of the features. Records that were appended go to the nearest of the centroids there are."""
        turn, name, version = self._turn, f"clusters-{n_clusters}", self._current()
        cached = self._read(name)
        if cached is not None and (self._version(name) != version or self._others(name, len(cached["assignments"]))):
            cached = None
        known = 0 if cached is None else len(cached["assignments"])
        if cached is not None and known == turn.pool.size:
            return Clusters(cached["assignments"], cached["centroids"], 0.0)
        features = self.get()
        with Stopwatch.running() as watch:
            if cached is None:
                clusters = kmeans(features, n_clusters, seed=turn.saved.meta["config"]["seed"])
            else:
                added, flops = nearest_centroid(features, cached["centroids"], start=known)
                clusters = Clusters(np.concatenate([cached["assignments"], added]), cached["centroids"], flops)
        turn.accounts.spend(Entry(phase="cluster", round=turn.round, flops=clusters.flops, seconds=watch.seconds))
        arrays = {"assignments": clusters.assignments, "centroids": clusters.centroids}
        self._write(name, version, _sample(features, turn.pool.size), arrays)
        return clusters

    def _current(self) -> int:
        """Return how often everything has been embedded again; looks whether it must be now."""
        if not isinstance(self._turn.pool.features, Layer):
            return 0
        self.get()
        return self._version("features")

    def _others(self, name: str, known: int) -> bool:
        """Return whether the user's array has other features than those that were clustered."""
        source = self._turn.pool.features
        if not hasattr(source, "shape") or self._turn.about[name]["made_from"] == _sample(source, known):
            return False
        warnings.warn("the features have changed since they were clustered: they are clustered again.", stacklevel=2)
        return True

    def _layer(self, source: Layer) -> np.ndarray:
        cached, size, version = self._read("features"), self._turn.pool.size, self._version("features")
        features = None if cached is None else cached["features"]
        if features is None and "features" in self._turn.saved.files:
            version += 1
        if features is not None and source.refresh is not None and not self._checked:
            sample = np.sort(generator(self._turn.seed, 0, "refresh").permutation(len(features))[:SAMPLE])
            if source.moved(features[sample], self._embed(source, sample)):
                features, version = None, version + 1
                self._turn.cached.clear()
        self._checked = True
        known = 0 if features is None else len(features)
        if known < size:
            added = self._embed(source, np.arange(known, size))
            features = added if features is None else np.concatenate([features, added])
            check_numbers(features)
            self._write("features", version, digest(unwrapped(self._turn.model).state_dict()), {"features": features})
        return np.asarray(features)

    def _embed(self, source: Layer, ids: np.ndarray) -> np.ndarray:
        turn = self._turn
        found = turn.ask(ids, source.question(turn.model, fitted=bool(turn.saved.rounds)), phase="embed")
        return found.arrays["features"]

    def projected(self, dims: int) -> np.ndarray:
        """``(N, dims)``, a random projection of the features."""
        name, turn = f"projected-{dims}", self._turn
        if name not in turn.cached:
            features = self.get()
            with Stopwatch.running() as watch:
                turn.cached[name], flops = project(features, dims, seed=turn.saved.meta["config"]["seed"])
            self.spend(flops, watch.seconds)
        return np.asarray(turn.cached[name])

    def spend(self, flops: float, seconds: float) -> None:
        """Bill a neighbour search."""
        self._turn.accounts.spend(Entry(phase="neighbours", round=self._turn.round, flops=flops, seconds=seconds))

    def _version(self, name: str) -> int:
        return int(self._turn.about.get(name, {}).get("version", 0))

    def _read(self, name: str) -> dict[str, np.ndarray] | None:
        # Only what a commit has named counts: a file without one may be from a step that never finished.
        turn = self._turn
        if name not in turn.cached and name in turn.saved.files:
            try:
                turn.cached[name] = turn.read(name, partial(cache.read, says=turn.about.get(name)), checks=True)
            except DamagedFile as error:
                what = f"{error.path} is stale or damaged ({error.why}): it is made again, and that is on the bill."
                warnings.warn(what, stacklevel=2)
        found: dict[str, np.ndarray] | None = turn.cached.get(name)
        return found

    def _write(self, name: str, version: int, made_from: str, arrays: dict[str, np.ndarray]) -> None:
        # No file that a commit has named is written over: appended records and new embeddings make another one.
        path = f"features/{name}-{self._turn.pool.size}{f'-{version}' if version else ''}.npz"
        says = cache.about(arrays, made_from=made_from, version=version)
        self._turn.cached[name] = arrays
        self._turn.add_file(name, self._turn.write(path, partial(cache.write, arrays=arrays, says=says)), says)


def _sample(features: np.ndarray, known: int) -> str:
    """Fingerprint of the first features there are."""
    return digest(features[np.sort(np.random.default_rng(0).permutation(known)[:SAMPLE])])
