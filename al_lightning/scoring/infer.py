"""From a user's model and batch to Outputs: the default ``infer``, see docs/adr/0001."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from al_lightning.errors import OutputMismatch
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.place import Place
from al_lightning.pool.views import read
from al_lightning.scoring.outputs import Outputs


def infer(model: nn.Module, batch: Any, *, items: ItemFormat, task: str, place: Place | None = None) -> Outputs:
    """Run the model on a batch for selection.

    A model with a method ``infer(batch) -> Outputs`` decides itself. Otherwise the target is withheld, wherever the
    collate function has put it, and ``forward`` called: with the one input, with the inputs in order, or for dict
    batches with the keys it names (with the dict itself where it requires an argument that is none of the keys).
    Lightning's own ``predict_step`` would hand ``(x, y)`` to ``forward``.

    Args:
        model: the user's module, already in eval mode.
        batch: a collated batch on the model's device.
        items: where the target sits.
        task: what the logits mean.
        place: where the target stands in the batch; None: where it stands in an item.

    Returns:
        Outputs whose ``task`` is set.

    Raises:
        OutputMismatch: ``forward`` cannot be called without the target, or returned something that holds no logits.
    """
    if decides_itself(model):
        result: Any = model.infer(batch)  # type: ignore[operator]
    else:
        positional, named = arguments(model, batch, items, place)
        result = model(*positional, **named)
    if isinstance(result, Outputs):
        return replace(result, task=task)
    logits = result if isinstance(result, Tensor) else getattr(result, "logits", None)
    if not isinstance(logits, Tensor):
        raise OutputMismatch(
            f"the model returned {type(result).__name__}; scoring takes a tensor of logits, an object with .logits, or "
            "al_lightning.scoring.Outputs. Give the model an infer(batch) method that returns Outputs(logits=...)."
        )
    mask = batch.get("attention_mask") if task == "tokens" and isinstance(batch, Mapping) else None
    return Outputs(logits, task=task, mask=None if mask is None else mask.bool())


def decides_itself(model: nn.Module) -> bool:
    """Return whether the model has an ``infer`` of its own, which gets the batch as it is."""
    return callable(getattr(model, "infer", None))


def check_shown(model: nn.Module, pool: PoolDataModule) -> None:
    """Raise OutputMismatch if a model cannot be shown what a collate function makes of records without their targets.

    Args:
        model: the user's module; nothing of it is run.
        pool: of which two records are collated, unless PyTorch's own function does it.
    """
    place = None if decides_itself(model) else pool.place
    if place is None:
        return
    place.check()
    loader = pool.indexed_dataloader(np.arange(min(2, pool.size)), place)
    with isolate_rng():
        _, batch = loader.collate_fn(read(loader.dataset, list(loader.sampler)))
    arguments(model, batch, pool.items, place)


def arguments(
    model: nn.Module, batch: Any, items: ItemFormat, place: Place | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what ``forward`` is called with: the batch without its target.

    Args:
        model: the user's module.
        batch: as it was collated.
        items: where the target sits in an item.
        place: where it stands in the batch; None: where it stands in an item.

    Raises:
        OutputMismatch: it takes other arguments, or the target's place is not known.
    """
    inputs = items.without_target(batch) if place is None else place.withheld(batch)
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # compiled code without one
        return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
    for positional, named in _ways(signature, inputs):
        with suppress(TypeError):
            signature.bind(*positional, **named)
            return positional, named
    if place is not None and isinstance(batch, tuple | list) and isinstance(inputs, tuple):
        with suppress(TypeError):
            whole = place.withheld(batch, blank=True)
            signature.bind(whole)
            return (whole,), {}
    where = "" if place is None else f" ({place})"
    raise OutputMismatch(
        f"{type(model).__name__}.forward takes {_taken(signature)}, and without the target{where} the batch has "
        f"{_described(inputs)}. Give the model an infer(batch) method that returns "
        "al_lightning.scoring.Outputs(logits=...)."
    )


def _ways(signature: inspect.Signature, inputs: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    if isinstance(inputs, Mapping):
        parameters = signature.parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            yield (), dict(inputs)
        elif taken := {p.name: inputs[p.name] for p in parameters if p.name in inputs}:
            yield (), taken
        yield (inputs,), {}
    else:
        if not isinstance(inputs, tuple) or hasattr(inputs, "_fields"):  # one input, a PackedSequence for example
            yield (inputs,), {}
        if isinstance(inputs, tuple):
            yield inputs, {}


def _taken(signature: inspect.Signature) -> str:
    return ", ".join(map(str, signature.parameters.values())) or "nothing"


def _described(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return f"the keys {sorted(map(str, inputs))}"
    return f"{len(inputs)} parts" if isinstance(inputs, tuple) else f"one part, a {type(inputs).__name__}"
