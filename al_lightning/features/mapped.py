"""Features in several files, memory-mapped, as one array: what a pool's embedding ends in that no memory would hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry
from al_lightning.errors import PoolError
from al_lightning.features.blocks import OnDemand
from al_lightning.features.cluster import nearest_centroid
from al_lightning.features.source import Layer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.fingerprint import digest
from al_lightning.run.durable import write_aside
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Payload, Question, Request, Scorer
from al_lightning.scoring.trainer import TrainerScorer, unwrapped

ROWS = 1 << 20
"""Records of a file."""
_ABOUT = "about.json"


class Mapped(OnDemand):
    """Rows of several ``.npy`` files as one ``(N, d)`` array. Nothing is read before it is asked for.

    It is taken wherever features are: ``PoolDataModule(features=Mapped("features"))``, ``kmeans(features, ...)``.

    Args:
        folder: where :func:`embed` wrote them.

    Raises:
        PoolError: there are none, or a file is missing or of another shape.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / _ABOUT).exists():
            raise PoolError(f"{folder} holds no features: it has no {_ABOUT}. embed(..., folder=...) writes them.")
        about = json.loads((self.folder / _ABOUT).read_text())
        self.shape: tuple[int, int] = (about["rows"], about["width"])
        self.ndim, self.dtype, self._rows = 2, np.dtype(np.float32), int(about["rows_per_file"])
        self._parts = [self._mapped(i) for i in range(-(-self.shape[0] // self._rows))]

    def _mapped(self, number: int) -> np.ndarray:
        path = _file(self.folder, number)
        expected = (min(self._rows, self.shape[0] - number * self._rows), self.shape[1])
        try:
            part = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PoolError(f"{path} cannot be read: {error}. embed() makes again what is missing.") from error
        if part.shape != expected:
            raise PoolError(f"{path} has shape {part.shape}, expected {expected}: it is of other features.")
        return np.asarray(part)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> np.ndarray:
        """Rows of a slice or of an array of ids, ``(n, d)``, or one row."""
        if isinstance(at, int | np.integer):
            return np.asarray(self[np.array([at])][0])
        ids = np.arange(*at.indices(len(self))) if isinstance(at, slice) else np.asarray(at)
        if ids.dtype == bool:
            ids = np.flatnonzero(ids)
        ids = np.where(ids < 0, ids + len(self), ids)
        found, part = np.empty((len(ids), self.shape[1]), np.float32), ids // self._rows
        for number in np.unique(part):
            here = part == number
            found[here] = self._parts[number][ids[here] - number * self._rows]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


def embed(
    model: Any,
    pool: PoolDataModule,
    layer: Layer,
    *,
    folder: str | Path,
    trainer: Any,
    scoring: Scorer | None = None,
    rows_per_file: int = ROWS,
) -> tuple[Mapped, list[Entry]]:
    """Embed the whole pool into memory-mapped files, one at a time: what is there already is not embedded again.

    Args:
        model: the user's module; its layer is taken as it is, pretrained or fitted.
        pool: the pool.
        layer: which layer.
        folder: where to; files of other weights there are replaced.
        trainer: whose settings (device, precision) count.
        scoring: who infers, for example a ``RayScorer``; default: the Trainer.
        rows_per_file: records of a file, all of which are in memory at once.

    Returns:
        The features, ``(N, d)`` float32, and what they cost, for a ledger.

    Raises:
        FeaturesMissing: no such layer.
    """
    scorer, target, meter = scoring or TrainerScorer(), Path(folder), FlopMeter()
    question = layer.question(model, fitted=True)
    key = digest([unwrapped(model).state_dict(), layer.name, rows_per_file])
    before = json.loads((target / _ABOUT).read_text()) if (target / _ABOUT).exists() else {}
    known = before.get("rows", 0) if before.get("made_from") == key else 0
    width, entries = before.get("width", 0), []
    for number, start in enumerate(range(0, pool.size, rows_per_file)):
        ids = np.arange(start, min(start + rows_per_file, pool.size))
        if known > ids[-1] and _file(target, number).exists():
            continue
        request = Request(trainer=trainer, model=model, pool=pool, ids=ids, question=question, meter=meter)
        arrays, entry = _ask(scorer, replace(request, scratch=target / "scratch"))
        rows = arrays["features"]
        width = rows.shape[1]
        write_aside(_file(target, number), partial(np.save, arr=rows, allow_pickle=False))
        shutil.rmtree(target / "scratch", ignore_errors=True)
        known = max(known, int(ids[-1]) + 1)
        about = {"rows": known, "width": width, "rows_per_file": rows_per_file, "made_from": key}
        write_aside(target / _ABOUT, lambda file, says=about: file.write(json.dumps(says).encode()))  # type: ignore[misc]
        entries.append(entry)
    return Mapped(target), entries


def assign(
    model: Any,
    pool: PoolDataModule,
    layer: Layer,
    centroids: np.ndarray,
    *,
    trainer: Any,
    ids: Sequence[int] | np.ndarray | None = None,
    scoring: Scorer | None = None,
) -> tuple[np.ndarray, list[Entry]]:
    """The nearest centroid of every record, found next to the model: features neither travel nor are kept.

    Args:
        model: the user's module.
        pool: the pool.
        layer: whose output was clustered.
        centroids: ``(k, d)`` float32, for example of k-means on a sample.
        trainer: whose settings (device, precision) count.
        ids: ``(n,)`` records; None: all.
        scoring: who infers, for example a ``RayScorer``; default: the Trainer.

    Returns:
        ``(n,)`` int32, and what it cost, for a ledger: a pass each, and ``2 n k d``.

    Raises:
        PoolError: more clusters than float32 has names for.
    """
    if len(centroids) > 1 << 24:
        raise PoolError(f"{len(centroids)} centroids: allowed: up to {1 << 24}.")
    at = np.arange(pool.size) if ids is None else np.asarray(ids)
    inner = layer.question(model, fitted=True)
    question = Question(partial(_Assigning, inner, centroids), f"{inner.says} {digest(centroids)}")
    request = Request(trainer=trainer, model=model, pool=pool, ids=at, question=question)
    arrays, entry = _ask(scoring or TrainerScorer(), request)
    comparing = Entry(phase="cluster", round=0, flops=2.0 * entry.records * centroids.size)
    return arrays["cluster"].astype(np.int32), [entry, comparing]


def _ask(scorer: Scorer, request: Request) -> tuple[dict[str, np.ndarray], Entry]:
    """Return what came back, and what it took."""
    before = request.pool.bytes_read or 0
    found = scorer.run(request)
    entry = found.entry("embed", 0)
    return found.arrays, replace(entry, bytes=entry.bytes + (request.pool.bytes_read or 0) - before)


class _Assigning(AbstractContextManager[Payload]):
    """A context in which the payload of a layer becomes the nearest centroid."""

    def __init__(self, inner: Question, centroids: np.ndarray, model: Any) -> None:
        self._context, self._centroids = inner.on(model), centroids

    def __enter__(self) -> Payload:
        self._features = self._context.__enter__()
        return self._payload

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def _payload(self, outputs: Outputs) -> dict[str, Any]:
        features = self._features(outputs)["features"].float().cpu().numpy()
        return {"cluster": torch.from_numpy(nearest_centroid(features, self._centroids)[0])}


def _file(folder: Path, number: int) -> Path:
    return folder / f"features-{number:05d}.npy"
