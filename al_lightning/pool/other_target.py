"""Another target of the same structure: what a collate function is tried with, see docs/adr/0016."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_lightning.pool.targets import as_like, is_array


def other_than(target: Any, *, text: bool = True) -> Any:
    """Another target of the same structure, shapes and dtypes; class numbers stay within the classes there are.

    Args:
        target: numbers, arrays, text, and nests of them; anything else stays.
        text: whether text becomes another one, which may have another length.
    """
    if isinstance(target, bool):
        return not target
    if isinstance(target, int | float):
        return target + 1 if isinstance(target, float) or target == 0 else target - (target > 0)
    if is_array(target):
        return _other_array(target)
    if isinstance(target, str):
        return f"{target}." if text else target
    if isinstance(target, Mapping):
        made = {key: other_than(part, text=text) for key, part in target.items()}
        return made if type(target) is dict else as_like(made, target)
    if isinstance(target, list | tuple):
        parts = [other_than(part, text=text) for part in target]
        return target._make(parts) if hasattr(target, "_make") else type(target)(parts)
    return target


def _other_array(target: Any) -> Any:
    if not isinstance(target, Tensor) and target.dtype.kind not in "biuf":
        return target
    native = target if isinstance(target, Tensor) else np.array(target, target.dtype.newbyteorder("="))
    numbers = torch.as_tensor(native)
    if numbers.dtype == torch.bool:
        made = ~numbers
    elif numbers.is_floating_point():
        made = numbers + 1
    else:
        made = torch.where(numbers > 0, numbers - 1, torch.where(numbers == 0, numbers + 1, numbers))
    return made if isinstance(target, Tensor) else np.asarray(made.numpy(), dtype=target.dtype)[()]
