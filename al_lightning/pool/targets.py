"""A label in the types of the dataset's own targets, so that collation sees no difference between the two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_lightning.errors import PoolError
from al_lightning.pool.label_codec import is_array, is_number, is_numeric, shortened

CLASS_NUMBERS = ("multiclass", "segmentation", "tokens")
"""Tasks whose labels are class numbers, int64 whatever stands in the place of a target that nobody knows."""
_WITH_CLASSES = (*CLASS_NUMBERS, "binary")


def is_blank(target: Any, task: str = "") -> bool:
    """Return whether a dataset has put a placeholder where a target should be.

    None, NaN, an empty text or array, and for tasks with classes a negative number; or a nest of nothing else.

    Args:
        target: what stands in the target's place.
        task: of the pool.
    """
    if type(target) is Tensor and target.ndim == 0:  # the most common one, and asked of every record
        return _is_no_number(target.item(), task)
    if isinstance(target, Tensor | np.ndarray) and target.ndim == 1 and len(target) == 0:
        return True  # within a dict it may well be the truth: an image without objects
    return (isinstance(target, Mapping | tuple | list) and not target) or is_missing(target, task)


def is_missing(target: Any, task: str = "") -> bool:
    """Return whether it is None, NaN, an empty text, a negative number among classes, or a nest of them."""
    if target is None or (isinstance(target, str) and not target):
        return True
    if isinstance(target, Mapping | tuple | list):
        parts = target.values() if isinstance(target, Mapping) else target
        return len(target) > 0 and all(is_missing(part, task) for part in parts)
    classes = task in _WITH_CLASSES
    if is_array(target):
        if 0 in target.shape or not is_numeric(target):
            return False
        return bool((target != target).all() or (classes and (target < 0).all()))
    return isinstance(target, int | float) and _is_no_number(target, task)


def _is_no_number(number: Any, task: str) -> bool:
    return bool(number != number or (task in _WITH_CLASSES and number < 0))  # NaN is unlike itself


def all_marks(targets: Sequence[Any]) -> bool:
    """Return whether all of several targets are the same number that is no likely target: -1 or -100."""
    return all(map(is_number, targets)) and {float(target) for target in targets} in ({-1.0}, {-100.0})


def as_like(label: Any, like: Any) -> Any:
    """Give a label the types and dtypes of a real target, part by part; parts the target does not have stay.

    Raises:
        PoolError: a number that the target's dtype would cut, or something that is no number.
    """
    if type(label) is int and type(like) is Tensor and like.ndim == 0:
        return torch.as_tensor(label, dtype=like.dtype)
    if is_array(like):
        return _as_array(label, like)
    if isinstance(like, Mapping) and isinstance(label, Mapping):
        made = {key: as_like(part, like[key]) if key in like else part for key, part in label.items()}
        return made if type(like) is dict else _in_type(like, made)
    if isinstance(like, tuple | list) and isinstance(label, tuple | list):
        if isinstance(like, list):
            parts = [*like, *([like[-1]] if like else [None]) * (len(label) - len(like))]
            return [as_like(part, other) for part, other in zip(label, parts, strict=False)]
        if len(like) == len(label):
            made_of = [as_like(part, other) for part, other in zip(label, like, strict=True)]
            return type(like)._make(made_of) if hasattr(like, "_make") else tuple(made_of)
    if isinstance(like, int | float) and (is_array(label) and is_number(label)):
        return label.item()
    return label


def _in_type(like: Mapping[Any, Any], made: dict[Any, Any]) -> Any:
    try:
        return type(like)(made)  # type: ignore[call-arg]
    except TypeError:
        return made


def _as_array(label: Any, like: Any) -> Any:
    if is_array(label) and type(label) is type(like) and label.dtype == like.dtype:
        return label
    if _is_cut(label, like.dtype):
        raise PoolError(
            f"the label {shortened(label)} does not fit the dataset's own targets, which are {like.dtype}. Make the "
            "targets floating point, or pass PoolDataModule(attach=...)."
        )
    try:
        if isinstance(like, Tensor):
            made = torch.as_tensor(label, dtype=like.dtype)
            made = made.reshape(_meant(made.shape, like.shape))
            return made if type(like) is Tensor else _of_class(made, like)
        array = np.asarray(label, dtype=like.dtype)
        array = array.reshape(_meant(array.shape, like.shape))
        return array[()] if isinstance(like, np.generic) else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise PoolError(
            f"the label {shortened(label)} cannot take the form of the dataset's own targets, {_described(like)}: "
            f"{error}. Answer in that form, or pass PoolDataModule(attach=...)."
        ) from error


def _meant(shape: Sequence[int], like: Sequence[int]) -> Sequence[int]:
    """The shape that is meant where lists cannot say it: no rows of some length, or one number in a vector of one."""
    if tuple(shape) == (0,) and len(like) > 1:
        return (0, *like[1:])
    return like if len(shape) == 0 and math.prod(like) == 1 else shape


def _described(like: Any) -> str:
    return f"{type(like).__name__} of {like.dtype} and shape {tuple(like.shape)}"


def _of_class(made: Tensor, like: Tensor) -> Tensor:
    """As a subclass of Tensor that keeps attributes beside its numbers, for example a size of the image."""
    found = made.as_subclass(type(like))
    vars(found).update(vars(like))
    return found


def _is_cut(label: Any, dtype: Any) -> bool:
    """Return whether a number, or one in a list or array, would lose its fraction in this dtype of torch or NumPy."""
    floating = dtype.is_floating_point or dtype.is_complex if isinstance(dtype, torch.dtype) else dtype.kind not in "iu"
    if floating:
        return False
    if isinstance(label, list):
        return any(type(part) is not int and _is_cut(part, dtype) for part in label)
    if is_array(label):
        kind = label.is_floating_point() if isinstance(label, Tensor) else label.dtype.kind == "f"
        return bool(kind and (label != label.round()).any())
    return isinstance(label, float) and label != int(label)


def as_first(label: Any, blank: Any, task: str, *, stacked: bool = True) -> Any:
    """Give a label types where the dataset has placeholders only: those say what a target is made of, not its dtype.

    Class numbers become int64. Other numbers become floating point where the placeholder is, and keep whether they have
    fractions where it is not. Where nothing tells what targets are made of, numbers of a regression and lists of
    numbers become the tensors that losses take, if PyTorch collates them.

    Args:
        label: of a record.
        blank: what stands in its place.
        task: of the pool.
        stacked: whether PyTorch's own ``default_collate`` makes the batches.
    """
    if isinstance(label, Tensor | Mapping | tuple | str):
        return label
    if isinstance(blank, Tensor):
        made = torch.as_tensor(label)
        return made.long() if task in CLASS_NUMBERS else made.to(blank.dtype) if blank.is_floating_point() else made
    if isinstance(blank, np.ndarray | np.generic) and is_numeric(blank):
        return _as_first_array(np.asarray(label), blank, task)
    if task in CLASS_NUMBERS and isinstance(label, float):
        return int(label)
    lonely = is_number(label) and (task != "regression" or is_number(blank))
    if not stacked or lonely or _shape(label) is None:
        return label
    return torch.as_tensor(label, dtype=torch.get_default_dtype() if task in ("regression", "multilabel") else None)


def _as_first_array(label: np.ndarray, blank: np.ndarray | np.generic, task: str) -> Any:
    if task in CLASS_NUMBERS and label.dtype.kind in "iuf":
        label = label.astype(np.int64)
    elif label.dtype.kind in "iuf" and blank.dtype.kind == "f":
        label = label.astype(blank.dtype)
    elif label.dtype == np.float64:
        label = label.astype(np.float32)
    return label[()] if isinstance(blank, np.generic) else label


def _shape(label: Any) -> tuple[int, ...] | None:
    """The shape of an array, a number, or a regular nest of lists of them; None where there is none."""
    if is_array(label):
        return tuple(label.shape) if is_numeric(label) else None
    if isinstance(label, list):
        shapes = set(map(_shape, label))
        inner = next(iter(shapes)) if len(shapes) == 1 else None
        return None if inner is None else (len(label), *inner)
    return () if isinstance(label, int | float) else None


def form(label: Any) -> Any:
    """Describe a label's structure as plain data: shapes of numbers, ``"text"``, keys and parts of nests.

    Two labels that ``default_collate`` can stack have the same form.
    """
    shape = _shape(label)
    if shape is not None:
        return list(shape)
    if isinstance(label, Mapping):
        return {key: form(part) for key, part in label.items()}
    if isinstance(label, tuple | list):
        return [[form(part) for part in label]]
    return "text" if isinstance(label, str) else type(label).__name__
