"""How a label enters and leaves a dataset item."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from al_lightning.errors import PoolError
from al_lightning.pool.label_codec import same, shortened
from al_lightning.pool.targets import (
    CLASS_NUMBERS,
    all_marks,
    as_first,
    as_like,
    form,
    is_array,
    is_blank,
    is_missing,
    is_number,
)

Attach = Callable[[Any, Any], Any]
_NEUTRAL = {"multiclass": 0, "binary": 0, "regression": 0.0}
"""Labels for collate functions while nothing has been bought yet."""
_READS = 4
_ANOTHER = "Pass another oracle, for example FunctionOracle(lambda id: ...)."


@dataclass(frozen=True)
class ItemFormat:
    """Hold where the target sits in a dataset item.

    Args:
        target_key: key of the target in a dict item; None for tuples, whose last element it is.
        attach: the user's own ``attach(item, label) -> item``; then nothing is assumed about the item.
        task: of the pool; it says what numbers are no targets.
        like: a real target of the dataset, whose types labels take where a record has a placeholder.
        blank: whether placeholders are all that the dataset holds.
        stacked: whether PyTorch's own ``default_collate`` makes the batches.
    """

    target_key: str | None = None
    attach: Attach | None = None
    task: str = ""
    like: Any = None
    blank: bool = False
    stacked: bool = True

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
        elif self.task in CLASS_NUMBERS and _is_float(item[-1]) and any(map(_is_whole, item[1:-1])):
            raise PoolError(
                f"the last of the {len(item)} elements of an item is taken for its target, and is {item[-1]!r}, which "
                f"is no class number of task={self.task!r}, while another element is a whole number. Let items end "
                "with the target, or pass PoolDataModule(attach=...), a function (item, label) -> item that knows its "
                "place, and an oracle that knows the labels, such as FunctionOracle(lambda id: ...)."
            )

    def elements(self, item: Any) -> int:
        """Of how many elements the last is taken for the target; 0 where the user has said what is."""
        return len(item) if self.attach is None and isinstance(item, tuple | list) else 0

    def target(self, item: Any) -> Any:
        """The label that the dataset itself holds: a number for one number, everything else as it is.

        Raises:
            PoolError: the dataset holds none, or a placeholder.
        """
        if isinstance(item, Mapping) and self.target_key in item:
            value = item[self.target_key]
        elif self.attach is None and isinstance(item, tuple | list) and len(item) >= 2:
            value = item[-1]
        else:
            raise PoolError(f"the dataset holds no labels to answer queries with. {_ANOTHER}")
        if self.blank or is_missing(value):
            raise PoolError(
                f"the dataset holds no label of this record, but {shortened(value)} in its place. {_ANOTHER}"
            )
        return value.item() if is_array(value) and is_number(value) else value

    def without_target(self, item: Any) -> Any:
        """The item (or batch) without its target: what a model gets to see.

        Raises:
            PoolError: with a custom ``attach`` and a tuple, where nothing says which element is the target.
        """
        if isinstance(item, Mapping):
            made = _copied(item)
            made.pop(self.target_key, None)
            return made
        if isinstance(item, tuple | list) and len(item) >= 2:
            if self.attach is not None:
                raise PoolError(
                    f"the batch is a {type(item).__name__} of {len(item)} and attach= is custom, so which elements "
                    "forward takes is unknown. Give the model an infer(batch) method that returns "
                    "al_lightning.scoring.Outputs(logits=...)."
                )
            return item[0] if len(item) == 2 else tuple(item[:-1])
        if isinstance(item, tuple | list) and len(item) == 1:
            return item[0]
        return item

    def input_of(self, item: Any) -> Any:
        """The item without its target; the whole item where nothing says what the target is."""
        return item if self.attach is not None else self.without_target(item)

    def place_of_target(self, item: Any) -> Any:
        """Return what stands in the target's place now; None where nothing does."""
        if self.attach is not None:
            return None
        return item.get(self.target_key) if isinstance(item, Mapping) else item[-1]

    def seen_in(self, data: Any, first: Any, *, stacked: bool) -> ItemFormat:
        """The same format, having looked at the targets the dataset holds.

        Args:
            data: the dataset; up to 16 of its records are read if the first one has a placeholder.
            first: its first item.
            stacked: whether PyTorch's own ``default_collate`` makes the batches.

        Raises:
            PoolError: targets differ from one read to the next.
        """
        if self.attach is not None:
            return replace(self, stacked=stacked)
        target = self.place_of_target(first)
        self._check_steady(data, target)
        if not (is_blank(target, self.task) or all_marks([target])):
            return replace(self, like=target, stacked=stacked)
        ids = np.unique(np.linspace(0, len(data) - 1, 16).astype(int)).tolist()
        with isolate_rng():
            found = [self.place_of_target(data[i]) for i in ids]
        real = [] if all_marks(found) else [t for t in found if not is_blank(t, self.task)]
        return replace(self, like=real[0] if real else None, blank=not real, stacked=stacked)

    def _check_steady(self, data: Any, target: Any) -> None:
        if is_number(target) or not (isinstance(target, Mapping | tuple | list) or is_array(target)):
            return  # what is flipped or cropped with an image has parts
        with isolate_rng():
            again = [self.place_of_target(data[0]) for _ in range(_READS)]
        if any(not _alike(target, other) for other in again):
            raise PoolError(
                "the dataset's targets differ from one read to the next, as where inputs and targets are flipped or "
                "cropped together; a label is bought once, and would not fit the inputs it is trained with. Change "
                "both where a batch has its label: in the collate function, or in on_after_batch_transfer."
            )

    def attached(self, item: Any, label: Any) -> Any:
        """The item with this label, in the type of the target it replaces."""
        if self.attach is not None:
            return self.attach(item, label)
        return self.replaced(item, self.fitted(label, self.place_of_target(item)))

    def fitted(self, label: Any, own: Any) -> Any:
        """A label in the types of the dataset's targets, which no placeholder is.

        Args:
            label: of a record.
            own: what stands in its place.

        Raises:
            PoolError: it does not fit.
        """
        real = self.like if type(own) is Tensor and self.like is not None else self._real(own)
        if real is None:
            return as_first(label, own, self.task, stacked=self.stacked)
        return as_like(label, real)

    def unlike(self, label: Any, other: Any) -> str | None:
        """Say what keeps a label from being stacked with those of other records; None where nothing does.

        Args:
            label: of a record.
            other: of another record, for where the dataset has no targets of its own.
        """
        try:
            real, whose = (other, "other labels") if self.like is None else (self.like, "the dataset's own targets")
            found, expected = form(self.fitted(label, None)), form(self.fitted(real, None))
        except PoolError as error:
            return str(error).rstrip(".")
        if found == expected:
            return None
        return (
            f"it has the form {found}, and {whose} have {expected}; PyTorch's default_collate stacks what has one form"
        )

    def _real(self, own: Any) -> Any:
        """A real target for a label to be like; None where there is none."""
        if self.blank:
            return None
        differs = isinstance(own, Mapping | tuple | list) or (isinstance(own, Tensor) and type(own) is not Tensor)
        if self.like is None or differs:
            return self.like if is_blank(own, self.task) else own
        return self.like  # arrays and numbers are alike in every record, and need no look

    def shown(self, item: Any, known: Any = None, label: Any = None) -> Any:
        """The item as collate functions can take it, where no model sees its target.

        Args:
            item: of a record to be inferred.
            known: a label that was bought for another record; it stands where nobody knows the target.
            label: what ``attach`` gets, so that items are put together as they are for training; None leaves them.
        """
        if self.attach is not None:
            return item if label is None else self.attach(item, label)
        own = self.place_of_target(item)
        if (self.stacked and is_array(own) and 0 not in own.shape) or not is_blank(own, self.task):
            return item
        stand_in = _NEUTRAL.get(self.task) if known is None else known
        return item if stand_in is None else self.attached(item, stand_in)

    def showing(self, known: Any, label: Any = None) -> Callable[[Any], Any]:
        """:meth:`shown` of these labels, to be sent to where items are read."""
        return partial(self.shown, known=known, label=label)

    def replaced(self, item: Any, label: Any) -> Any:
        """The item (or batch) with ``label`` in the target's place."""
        if isinstance(item, Mapping):
            made = _copied(item)
            made[self.target_key] = label
            return made
        if hasattr(item, "_make"):  # a namedtuple
            return item._make((*item[:-1], label))
        return [*item[:-1], label] if isinstance(item, list) else (*item[:-1], label)


def _is_float(value: Any) -> bool:
    if is_array(value):
        return is_number(value) and isinstance(value.item(), float)
    return isinstance(value, float)


def _is_whole(value: Any) -> bool:
    return is_number(value) and type(value.item() if is_array(value) else value) is int


def _copied(item: Mapping[Any, Any]) -> Any:
    """A copy that can be changed, of the same type where that can be."""
    return copy.copy(item) if isinstance(item, MutableMapping) and type(item) is not dict else dict(item)


def _alike(a: Any, b: Any) -> bool:
    try:
        return same(a, b)
    except PoolError:  # of a kind that is refused as a label, not here
        return True
