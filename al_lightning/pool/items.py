"""How a label enters and leaves a dataset item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_lightning.errors import PoolError

Attach = Callable[[Any, Any], Any]


def _as_like(label: Any, like: Any) -> Any:
    """The label in the type the dataset uses for its own targets, so that collation sees no difference."""
    if isinstance(like, Tensor | np.ndarray | np.generic) and _is_cut(label, like.dtype):
        raise PoolError(
            f"the label {label!r} does not fit the dataset's own targets, which are {like.dtype}. Make the targets "
            "floating point, or pass PoolDataModule(attach=...)."
        )
    if isinstance(like, Tensor):
        return torch.as_tensor(label, dtype=like.dtype)
    if isinstance(like, np.ndarray | np.generic):
        return np.asarray(label, dtype=like.dtype)[()]
    return label


def _is_cut(label: Any, dtype: Any) -> bool:
    """Whether a number, or one in a list, would lose its fraction in this dtype of torch or NumPy."""
    floating = dtype.is_floating_point if isinstance(dtype, torch.dtype) else np.issubdtype(dtype, np.floating)
    if floating:
        return False
    if isinstance(label, list):
        return any(type(part) is not int and _is_cut(part, dtype) for part in label)
    return isinstance(label, float) and label != int(label)


@dataclass(frozen=True)
class ItemFormat:
    """Where the target sits in a dataset item.

    Args:
        target_key: key of the target in a dict item; None for tuples, whose last element it is.
        attach: the user's own ``attach(item, label) -> item``; then nothing is assumed about the item.
    """

    target_key: str | None = None
    attach: Attach | None = None

    def check(self, item: Any) -> None:
        """Raise :class:`PoolError` if labels could not be attached to such an item."""
        if self.attach is not None:
            return
        if isinstance(item, Mapping):
            if self.target_key is None:
                raise PoolError(
                    f"items are dicts with keys {sorted(map(str, item))}: say which key holds the label with "
                    "PoolDataModule(target_key=...)."
                )
        elif not (isinstance(item, tuple | list) and len(item) >= 2):
            raise PoolError(
                f"items are {type(item).__name__}, in which no label has a place. Pass PoolDataModule(attach=...), a "
                "function (item, label) -> item. Without it items are tuples (..., target) or dicts with target_key."
            )

    def target(self, item: Any) -> Any:
        """The label that the dataset itself holds, as plain JSON-able data.

        Raises:
            PoolError: the dataset holds none.
        """
        if isinstance(item, Mapping) and self.target_key in item:
            value = item[self.target_key]
        elif self.attach is None and isinstance(item, tuple | list) and len(item) >= 2:
            value = item[-1]
        else:
            raise PoolError(
                "the dataset holds no labels to answer queries with. Pass another oracle, for example "
                "FunctionOracle(lambda id: ...)."
            )
        return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value

    def without_target(self, item: Any) -> Any:
        """The item (or batch) without its target: what a model gets to see.

        Raises:
            PoolError: with a custom ``attach`` and a tuple, where nothing says which element is the target.
        """
        if isinstance(item, Mapping):
            return {key: value for key, value in item.items() if key != self.target_key}
        if isinstance(item, tuple | list) and len(item) >= 2:
            if self.attach is not None:
                raise PoolError(
                    f"the batch is a {type(item).__name__} of {len(item)} and attach= is custom, so which elements "
                    "forward takes is unknown. Give the model an infer(batch) method that returns "
                    "al_lightning.Outputs(logits=...)."
                )
            return item[0] if len(item) == 2 else tuple(item[:-1])
        if isinstance(item, tuple | list) and len(item) == 1:
            return item[0]
        return item

    def input_of(self, item: Any) -> Any:
        """The item without its target; the whole item where nothing says what the target is."""
        return item if self.attach is not None else self.without_target(item)

    def place_of_target(self, item: Any) -> Any:
        """What stands in the target's place now; None where nothing does."""
        if self.attach is not None:
            return None
        return item.get(self.target_key) if isinstance(item, Mapping) else item[-1]

    def attached(self, item: Any, label: Any) -> Any:
        """The item with this label, in the type of the target it replaces."""
        if self.attach is not None:
            return self.attach(item, label)
        return self.replaced(item, _as_like(label, self.place_of_target(item)))

    def replaced(self, item: Any, label: Any) -> Any:
        """The item (or batch) with ``label`` in the target's place."""
        if isinstance(item, Mapping):
            return {**item, self.target_key: label}
        if hasattr(item, "_make"):  # a namedtuple
            return item._make((*item[:-1], label))
        return [*item[:-1], label] if isinstance(item, list) else (*item[:-1], label)
