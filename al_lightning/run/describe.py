"""A run's configuration as plain data, so that a run folder is never continued with another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from al_lightning.errors import UnsupportedModel
from al_lightning.fit.plan import plain
from al_lightning.pool.fingerprint import digest


def describe(value: Any, depth: int = 0) -> Any:
    """JSON-able description of a part: its class and public settings, names of functions, widths of arrays."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = (f for f in dataclasses.fields(value) if f.init and f.metadata.get("described", True))
        fields = {f.name: describe(getattr(value, f.name)) for f in own}
        return {"class": type(value).__qualname__, **fields}
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if getattr(value, "shape", None) == ():
        return value.item()
    if hasattr(value, "shape"):
        return {"class": type(value).__qualname__, "width": list(value.shape[1:])}
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    heavy = isinstance(value, nn.Module) or hasattr(value, "__getitem__")  # models and datasets have their own checks
    settings = {} if heavy or depth > 3 else {k: v for k, v in vars(value).items() if not k.startswith("_")}
    return {"class": type(value).__qualname__, **{k: describe(v, depth + 1) for k, v in settings.items()}}


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class and parameter shapes: weights of one run fit only a model of the same make."""
    source = getattr(model, "_orig_mod", model)
    lazy = [name for name, p in source.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise UnsupportedModel(
            f"{type(source).__name__}.{lazy[0]} is lazy and has no weights to start from: run one batch through the "
            "module first."
        )
    weights = source.state_dict()
    other = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise UnsupportedModel(
            f"{type(source).__name__}.state_dict()[{other!r}] is {type(weights[other]).__name__}, and a run folder "
            "keeps tensors, without pickle: return a tensor from get_extra_state(), or leave it out of the state_dict."
        )
    shapes = {plain(name): tuple(value.shape) for name, value in weights.items()}
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
    a, b = _as_now(flatten(stored)), _as_now(flatten(now))
    return {key: (a.get(key), b.get(key)) for key in sorted(a | b) if a.get(key) != b.get(key)}


_RENAMED = {
    "Badge": "BADGE",
    "Novel": "DistanceWeighted",
    "PoolCovered": "Coverage",
    "RandomShare": "RandomSubset",
    "Seals": "SEALS",
    "Spread": "EvenRounds",
    "Staggered": "RotatingSubset",
}
_GONE = {"distill": None, "gate": None, "max_new": None, "perturb": 0.1, "replay": 1.0, "shrink": 0.4, "thaw": None}
"""Settings that a WarmStart had before 0.2, as it had them unless told."""


def _as_now(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as it is described today, where a folder was begun by an earlier release."""
    found = dict(flat)
    for key, name in flat.items():
        part, _, last = key.rpartition(".")
        if last != "class":
            continue
        found[key] = _RENAMED.get(name, name)
        if name == "RandomShare" and f"{part}.share" in found:
            found[f"{part}.fraction"] = found.pop(f"{part}.share")
        if name == "WarmStart":
            for setting, default in _GONE.items():
                if found.get(f"{part}.{setting}", default) == default:
                    found.pop(f"{part}.{setting}", None)
    return found
