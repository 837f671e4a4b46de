"""Labels to rehearse with, as nothing is bought yet: the dataset's own, or any that the task allows."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from al_lightning.errors import PoolError
from al_lightning.oracles.oracle import DatasetOracle, Oracle, check_labels
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.run.lines import from_text, to_text


def labels_of(pool: PoolDataModule, ids: np.ndarray, oracle: Oracle) -> dict[int, Any] | None:
    """A valid label for each record, as a run folder gives it back, or None where none can be made up.

    Args:
        pool: the records.
        ids: ``(n,)``.
        oracle: who will answer; of a DatasetOracle the dataset's own labels have to be valid.

    Raises:
        PoolError: the dataset answers, and holds no labels of this task, or none that a run folder can hold.
    """
    labels: dict[int, Any] = {}
    for position, i in enumerate(ids.tolist()):
        item = pool.eval_data[i]
        try:
            label = pool.plain({i: pool.items.target(item)})
            check_labels(label, pool.task)
        except PoolError:
            if isinstance(oracle, DatasetOracle):
                raise
            made = _made(pool.task, pool.items.place_of_target(item), position)
            if made is None:
                return None
            label = {i: made}
        labels[i] = from_text(to_text(label[i], f"the label of id {i}"))
    return labels


def _made(task: str, like: Any, position: int) -> Any:
    """A label of a task in the shape of what stands in its place; None where that tells no shape."""
    if task in ("multiclass", "binary"):
        return position % 2
    if isinstance(like, Tensor | np.ndarray) and np.size(like):
        return np.zeros(tuple(like.shape), dtype=float if task == "regression" else int).tolist()
    return 0.0 if task == "regression" and (like is None or isinstance(like, int | float)) else None
