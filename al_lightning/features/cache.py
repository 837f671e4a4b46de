"""Files of features and clusters that say what they hold: a stale or damaged one is known, and made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from al_lightning.pool.fingerprint import digest
from al_lightning.run.durable import read_arrays

About = dict[str, Any]
"""What :func:`about` says of arrays, as JSON-able data; in their file and, as the run's word on it, in its database."""


class Stale(ValueError):
    """Arrays that are not those the run wrote last."""


def about(arrays: Mapping[str, np.ndarray], *, made_from: str, version: int) -> About:
    """Return what a file of these arrays says of itself.

    Args:
        arrays: the arrays.
        made_from: fingerprint of the weights that embedded them, or of the features that were clustered.
        version: how often everything had been made again.
    """
    shapes = {name: [list(value.shape), value.dtype.str] for name, value in arrays.items()}
    return {"arrays": shapes, "made_from": made_from, "version": version, "checksum": digest(arrays)}


def write(file: IO[bytes], arrays: Mapping[str, np.ndarray], says: About) -> None:
    """Write arrays and what is said of them."""
    np.savez(file, about=np.array(json.dumps(says)), **arrays)  # type: ignore[arg-type]


def read(path: Path, says: About | None) -> dict[str, np.ndarray]:
    """Read arrays.

    Args:
        path: their file.
        says: what they must be.

    Raises:
        Stale: they are not, or the file says otherwise.
    """
    arrays = read_arrays(path)
    found = json.loads(str(arrays.pop("about", "null")))
    if says is None or found != says:
        raise Stale(f"{found} instead of {says}")
    if about(arrays, made_from=says["made_from"], version=says["version"]) != says:
        raise Stale("other arrays than it says")
    return arrays
