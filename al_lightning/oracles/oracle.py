"""Who answers a query. Answers may be partial, late or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from al_lightning.cost.prices import Prices
from al_lightning.errors import PoolError
from al_lightning.pool.label_codec import READABLE, encode, is_array, is_number, is_tensor, shortened

if TYPE_CHECKING:
    from al_lightning.history import Reason
    from al_lightning.oracles.statements import Decisions, Statement


class _Skip:
    """The annotator refused; the record is never queried again and no label is paid."""

    def __repr__(self) -> str:
        return "SKIP"

    def __reduce__(self) -> str:
        return "SKIP"  # one object in every process, so that `is SKIP` holds


SKIP = _Skip()


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """One query, as the oracle gets it.

    Args:
        round: round the query opens.
        ids: ids to label, ``(n,)``, best first.
        keys: the user's stable key of each id, or the id itself.
        target: id -> the label the dataset itself holds (simulations); raises PoolError where it holds none.
        key: id -> key, of any record.
        task: of the pool.
        size: records in the pool.
        queried: every id that was ever queried.
        folder: where a run keeps the files of its queries; None outside of a run.
        prices: of a label.
        predictions: id -> what the model answers, as a label, and its confidence in ``[0, 1]`` (for regression None);
            only of the ids, and only for oracles that ask for them.
    """

    round: int
    ids: np.ndarray
    keys: tuple[Any, ...]
    target: Callable[[int], Any]
    key: Callable[[int], Any] = lambda id: id
    task: str = "multiclass"
    size: int = 0
    queried: Collection[int] = ()
    folder: Path | None = None
    prices: Prices = field(default_factory=Prices)
    predictions: Mapping[int, tuple[Any, float | None]] = field(default_factory=dict)


@runtime_checkable
class Oracle(Protocol):
    """Answer queries: ``ask`` sends one out (again for one round must be harmless), ``collect`` brings answers in."""

    def ask(self, request: LabelRequest) -> None:
        """Send the query out."""

    def collect(self) -> Mapping[int, Any]:
        """All answers there are by now: ``{id: label or SKIP}``. Ids that are missing are still waited for."""


@runtime_checkable
class People(Oracle, Protocol):
    """An oracle behind which people answer in their own time, and may say something else later.

    The run keeps every statement, and makes labels of them by :func:`~al_lightning.oracles.votes.decide`.
    """

    annotators: int
    adjudicator: str | None

    def said(self, request: LabelRequest) -> list[Statement]:
        """Everything people have said by now, about every query, not only about this one."""

    def rules(self) -> dict[str, Any]:
        """JSON-able settings that ``al-lightning label`` and ``status`` need to read answers without the program."""

    def waits(self, request: LabelRequest, decisions: Decisions) -> Reason:
        """Return what people have to do before the run goes on."""


@dataclass
class DatasetOracle:
    """Answer with the labels that the pool's own dataset holds: a simulation.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from al_lightning import PoolDataModule
        >>> pool = PoolDataModule(TensorDataset(torch.randn(9, 4), torch.arange(9) % 3), task="multiclass")
        >>> pool.label([2, 5], DatasetOracle())
        2
    """

    _request: LabelRequest | None = field(default=None, init=False, repr=False)

    def ask(self, request: LabelRequest) -> None:
        """Remember the query."""
        self._request = request

    def collect(self) -> Mapping[int, Any]:
        """Read the labels from the dataset."""
        assert self._request is not None, "ask() comes before collect()"
        return {int(i): self._request.target(int(i)) for i in self._request.ids}


@dataclass
class FunctionOracle:
    """Answer by calling ``label(id)``.

    Args:
        label: id -> label, :data:`SKIP` to refuse, or None when there is no answer yet.

    Example:
        >>> oracle = FunctionOracle({2: "cat", 5: "dog"}.__getitem__)
        >>> oracle.label(2)
        'cat'
    """

    label: Callable[[int], Any]
    _ids: tuple[int, ...] = field(default=(), init=False, repr=False)

    def ask(self, request: LabelRequest) -> None:
        """Remember the query."""
        self._ids = tuple(int(i) for i in request.ids)

    def collect(self) -> Mapping[int, Any]:
        """Call the function for every id."""
        answers = ((i, self.label(i)) for i in self._ids)
        return {i: answer for i, answer in answers if answer is not None}


def plain(answers: Mapping[int, Any], task: str = "", *, exact: bool = False) -> dict[int, Any]:
    """Answers as they are stored; SKIP stays SKIP.

    Class numbers become numbers of Python, and so do short arrays and lists of numbers, which take on the dtype of the
    dataset's own targets when they are trained on. Everything else stays what it is.

    Args:
        answers: id -> label or SKIP.
        task: of the pool.
        exact: whether arrays stay what they are, as where the dataset has no targets to take a dtype from.
    """
    classes = task in ("multiclass", "binary")
    return {int(i): value if exact and not classes else _plain(value, classes) for i, value in dict(answers).items()}


def _plain(value: Any, classes: bool) -> Any:
    if is_array(value):
        few = classes or 0 < math.prod(value.shape) <= READABLE
        return value.tolist() if few else value
    if isinstance(value, list | tuple) and (classes or isinstance(value, list)) and all(map(is_number, value)):
        return [part.item() if is_array(part) else part for part in value]
    return value


def _trainable(label: Any) -> bool:
    """Return whether nothing in a label is missing, NaN or infinite."""
    if is_array(label):
        return not _has_gaps(label)
    if isinstance(label, Mapping):
        return all(map(_trainable, label.values()))
    if isinstance(label, list | tuple):
        return all(type(part) is int or _trainable(part) for part in label)
    return label is not None and not (isinstance(label, float) and not math.isfinite(label))


def _has_gaps(label: Any) -> bool:
    """Return whether an array holds NaN or infinity."""
    if is_tensor(label):
        return (label.is_floating_point() or label.is_complex()) and not bool(label.isfinite().all())
    return label.dtype.kind in "fc" and not bool(np.isfinite(label).all())


def check_labels(
    answers: Mapping[int, Any], task: str, *, classes: int = 0, unlike: Callable[[Any], str | None] | None = None
) -> None:
    """Raise PoolError for an answer that is no label of this task, or of these records.

    Args:
        answers: id -> label or SKIP.
        task: of the pool.
        classes: how many there are; 0 where that is not known.
        unlike: says of a label what other form than the labels of other records it has; None where it has none.
    """
    for i, value in answers.items():
        if value is SKIP:
            continue
        allowed = _instead(value, task, classes)
        if allowed is not None:
            raise PoolError(
                f"the label of id {i} is {shortened(value)}; task={task!r} takes {allowed} or SKIP."
                f"{_way_out(value, task)}"
            )
        other = None if unlike is None else unlike(value)
        if other is not None:
            encode(value, f"the label of id {i}")  # what no folder holds is told first
            raise PoolError(f"the label of id {i} is {shortened(value)}: {other}.")


def _instead(value: Any, task: str, classes: int) -> str | None:
    """Return what a task takes instead of such a label; None where it takes it."""
    if task in ("multiclass", "binary"):
        most = 2 if task == "binary" else classes
        return None if _is_class(value, task, most) else _numbers(task, classes)
    if not _trainable(value):
        return "finite numbers, lists and dicts of them"
    alone = is_number(value)
    if task == "multilabel" and (alone or isinstance(value, str)):
        return f"0 or 1 for each {'class' if not classes else f'of {classes} classes'}, a list, and no class number"
    if task in ("tokens", "segmentation") and alone:
        return f"a class number for every {'token' if task == 'tokens' else 'pixel'}"
    if task == "regression" and isinstance(value, str):
        return "numbers, and lists and dicts of them"
    return None


def _way_out(value: Any, task: str) -> str:
    """Return what helps where a label is no number at all."""
    if task not in ("multiclass", "binary") or not isinstance(value, str | list | tuple | Mapping):
        return ""
    if isinstance(value, str):
        return " Give classes numbers where items are made, or in the oracle."
    return (
        " Give the record one class number, or keep labels such as shares of classes and lists as they are by "
        "PoolDataModule(task='structured') and an infer(batch) that returns al_lightning.scoring.Outputs(logits=...)."
    )


def _is_class(value: Any, task: str, classes: int) -> bool:
    # One-element lists are the (n, 1) targets of a binary loss; True and False are classes of their own there.
    one = value[0] if task == "binary" and isinstance(value, list) and len(value) == 1 else value
    flag = isinstance(one, bool) and task != "binary"
    number = isinstance(one, int | float) and not flag and float(one).is_integer()
    return number and one >= 0 and (not classes or one < classes)


def _numbers(task: str, classes: int) -> str:
    if task == "binary":
        return "0, 1"
    return f"class numbers 0 to {classes - 1}" if classes else "class numbers 0, 1, ..."
