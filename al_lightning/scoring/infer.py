"""From a user's model and batch to Outputs: the default ``infer``, see docs/adr/0001."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from al_lightning.errors import OutputMismatch
from al_lightning.pool.items import ItemFormat
from al_lightning.scoring.outputs import Outputs


def infer(model: nn.Module, batch: Any, *, items: ItemFormat, task: str) -> Outputs:
    """Run the model on a batch for selection.

    A model with a method ``infer(batch) -> Outputs`` decides itself. Otherwise the target is dropped and ``forward``
    called: with the one input, with the inputs in order, or for dict batches with the keys it names (with the dict
    itself where it requires an argument that is none of the keys). Lightning's own ``predict_step`` would hand
    ``(x, y)`` to ``forward``.

    Args:
        model: the user's module, already in eval mode.
        batch: a collated batch on the model's device.
        items: where the target sits.
        task: what the logits mean.

    Returns:
        Outputs whose ``task`` is set.

    Raises:
        OutputMismatch: the model returned something that holds no logits.
    """
    own = getattr(model, "infer", None)
    result = own(batch) if callable(own) else _forward(model, items.without_target(batch))
    if isinstance(result, Outputs):
        return replace(result, task=task)
    logits = result if isinstance(result, Tensor) else getattr(result, "logits", None)
    if not isinstance(logits, Tensor):
        raise OutputMismatch(
            f"the model returned {type(result).__name__}; scoring takes a tensor of logits, an object with .logits, or "
            "al_lightning.Outputs. Give the model an infer(batch) method that returns Outputs(logits=...)."
        )
    mask = batch.get("attention_mask") if task == "tokens" and isinstance(batch, Mapping) else None
    return Outputs(logits, task=task, mask=None if mask is None else mask.bool())


def _forward(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        parameters = inspect.signature(model.forward).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return model(**inputs)
        taken = {p.name: inputs[p.name] for p in parameters if p.name in inputs}
        missing = [p.name for p in parameters if p.default is p.empty and p.name not in inputs]
        return model(**taken) if taken and not missing else model(inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)
