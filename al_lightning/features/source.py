"""Where one vector per record comes from when the user does not bring an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning.errors import FeaturesMissing
from al_lightning.features.inputs import as_array, as_features, check_numbers
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.views import read
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Payload, Question


@dataclass(frozen=True)
class RawInputs:
    """Take the inputs themselves, flattened: good for tabular data and small images, free of FLOPs.

    Example:
        >>> import torch
        >>> pool = PoolDataModule(TensorDataset(torch.randn(9, 2, 2), torch.arange(9) % 3), task="multiclass")
        >>> RawInputs().compute(pool).shape
        (9, 4)
    """

    def compute(self, pool: PoolDataModule, ids: np.ndarray | None = None) -> np.ndarray:
        """``(N, d)`` float32.

        Args:
            pool: whose records.
            ids: ``(n,)`` of which records; None: of all.

        Raises:
            FeaturesMissing: inputs that are not numbers of one common shape.
            PoolError: numbers that cannot be compared; the ids are named.
            BadScores: NaN or infinite numbers; the ids are named.
        """
        data = pool.eval_data
        if type(data) is TensorDataset and len(data.tensors) == 2 and pool.items.attach is None:
            # Item by item takes a second for 60,000.
            inputs = data.tensors[0] if ids is None else data.tensors[0][torch.from_numpy(ids)]
            found = as_features(inputs.reshape(len(inputs), -1), name="the inputs")
        else:
            found = self.rows(data, pool.items, range(pool.size) if ids is None else ids.tolist())
        if ids is None:
            check_numbers(found)
        return np.asarray(found, dtype=np.float32)

    def rows(self, data: Any, items: ItemFormat, ids: Sequence[int]) -> np.ndarray:
        """Read records one by one, ``(n, d)`` in the type they have."""
        rows: list[np.ndarray] = []
        for start in range(0, len(ids), 1024):
            for item in read(data, ids[start : start + 1024]):
                value = items.without_target(item)
                value = next(iter(value.values())) if isinstance(value, Mapping) and len(value) == 1 else value
                if not (isinstance(value, Tensor | Number | list) or hasattr(value, "__array_interface__")):
                    raise FeaturesMissing(
                        f"RawInputs() needs inputs that are tensors or arrays, got {type(value).__name__}. Pass "
                        "PoolDataModule(features=...) an (N, d) array, or Layer(...)."
                    )
                value = np.asarray(value) if isinstance(value, Number) else value
                rows.append(as_array(value, "the inputs").reshape(-1))
        if len({row.shape for row in rows}) > 1:
            raise FeaturesMissing("RawInputs() needs inputs of one shape; pass an (N, d) array, or Layer(...).")
        return np.asarray(as_features(np.stack(rows), name="the inputs"))


@dataclass(frozen=True)
class Layer:
    """Take the output of a named layer of the model, flattened.

    Every record is embedded once a run, by the model of that round; records appended later by the model of theirs. A
    layer that is trained moves away meanwhile. With ``refresh``, a fixed sample of records is embedded again before
    every query, and when it has moved too far everything is embedded and clustered again (docs/adr/0009).

    Args:
        name: as in ``model.named_modules()``.
        pretrained: whether the layer knows something before the first fit. A layer of an untrained network is noise,
            and is refused until a round has been fitted.
        refresh: squared distance the sample may move on average, as a share of its variance; None never looks.

    Example:
        >>> Layer("trunk", pretrained=True).name
        'trunk'
    """

    name: str
    pretrained: bool = False
    refresh: float | None = None

    def __post_init__(self) -> None:
        if self.refresh is not None and not self.refresh > 0:
            raise ValueError(
                f"Layer(refresh={self.refresh}): allowed: a positive share of the features' variance, for example 0.5, "
                "or None to embed every record once."
            )

    def question(self, model: nn.Module, *, fitted: bool) -> Question:
        """Return what to ask a model: ``(n, d)`` float32 ``features`` of n records, one forward pass each.

        Raises:
            FeaturesMissing: no such layer, or nothing has been fitted yet and the layer is not pretrained.
        """
        if not (fitted or self.pretrained):
            raise FeaturesMissing(
                f"Layer({self.name!r}) of a model that has not been fitted is noise. Features are there from the "
                "second query on; if these weights are pretrained, say so: Layer(..., pretrained=True)."
            )
        modules = dict(getattr(model, "_orig_mod", model).named_modules())
        if self.name not in modules:
            raise FeaturesMissing(f"the model has no layer {self.name!r}; it has {', '.join(n for n in modules if n)}.")
        return Question(partial(_captured, self.name), f"layer {self.name}")

    def moved(self, before: np.ndarray, now: np.ndarray) -> bool:
        """Return whether the same records have moved so far that their features no longer hold.

        Args:
            before: ``(n, d)``.
            now: ``(n, d)``.
        """
        before, now = before.astype(np.float64), now.astype(np.float64)
        spread = np.square(before - before.mean(axis=0)).sum()
        return self.refresh is not None and bool(np.square(now - before).sum() > self.refresh * spread)


class _captured(AbstractContextManager[Payload]):
    """Payload that returns what a layer put out during the last forward pass."""

    def __init__(self, layer: str, model: nn.Module) -> None:
        self._module = model.get_submodule(layer)
        self._layer, self._last = layer, None

    def __enter__(self) -> Payload:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._last = output[0] if isinstance(output, tuple | list) and output else output

        self._handle = self._module.register_forward_hook(keep)
        return self._payload

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _payload(self, outputs: Outputs) -> dict[str, Tensor]:
        found: Any = self._last
        if not isinstance(found, Tensor) or found.is_complex() or not found.ndim or len(found) != len(outputs.logits):
            what = f"{type(found).__name__}" if not isinstance(found, Tensor) else f"{found.dtype} {tuple(found.shape)}"
            raise FeaturesMissing(
                f"Layer({self._layer!r}) gave {what} for a batch of {len(outputs.logits)} records; allowed is a layer "
                "that runs in the forward pass and returns a tensor of real numbers, a row a record, or a tuple that "
                "begins with one."
            )
        return {"features": found.reshape(len(found), -1)}
