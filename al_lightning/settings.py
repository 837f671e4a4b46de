"""A run's configuration as plain data, so that a run folder is never continued with another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from al_lightning.pool.fingerprint import digest


def describe(value: Any) -> Any:
    """JSON-able description of a part: class and settings of dataclasses, names of functions, shapes of arrays."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class": type(value).__qualname__, **fields}
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if hasattr(value, "shape"):
        return {"class": type(value).__qualname__, "width": list(value.shape[1:])}
    return getattr(value, "__qualname__", type(value).__qualname__)


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class and parameter shapes: weights of one run fit only a model of the same make."""
    source = getattr(model, "_orig_mod", model)
    shapes = {name: tuple(value.shape) for name, value in source.state_dict().items()}
    return {"class": type(source).__qualname__, "shapes": digest({k: list(v) for k, v in shapes.items()})}


def flatten(description: Any, prefix: str = "") -> dict[str, Any]:
    """``{"query": {"class": "Margin"}}`` as ``{"query.class": "Margin"}``."""
    if isinstance(description, Mapping):
        flat: dict[str, Any] = {}
        for key, part in description.items():
            flat |= flatten(part, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: description}


def differing(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``{key: (stored, now)}`` for every key of the two that is not the same."""
    a, b = flatten(stored), flatten(now)
    return {key: (a.get(key), b.get(key)) for key in sorted(a | b) if a.get(key) != b.get(key)}
