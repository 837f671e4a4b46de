"""What a model must offer to be scored: ``infer(model, batch) -> Outputs``, see docs/adr/0001."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from al_lightning.errors import OutputMismatch

_SHAPES: dict[str, tuple[str, Callable[[tuple[int, ...]], bool]]] = {
    "multiclass": ("(n, C) with C >= 2", lambda s: len(s) == 2 and s[1] >= 2),
    "binary": ("(n,) or (n, 1)", lambda s: len(s) == 1 or s[1:] == (1,)),
    "multilabel": ("(n, C)", lambda s: len(s) == 2),
    "regression": ("(n,) or (n, d)", lambda s: len(s) in (1, 2)),
    "segmentation": (
        "(n, C, height, width) or (n, C, depth, height, width) with C >= 2",
        lambda s: len(s) in (4, 5) and s[1] >= 2,
    ),
    "tokens": ("(n, T, C) with C >= 2", lambda s: len(s) == 3 and s[2] >= 2),
    "structured": (
        "(n, C) or (n, parts, C) with C >= 2, unless Outputs(scores=...) says how uncertain each record is",
        lambda s: len(s) in (2, 3) and s[-1] >= 2,
    ),
}
TASKS = tuple(_SHAPES)
"""What logits may mean. Never guessed from a shape.

Labels of ``structured`` records may be anything: boxes, key points, sequences, several targets at once. How uncertain
the model is about such a record, its ``infer`` says.
"""
CLASSES = tuple(task for task in TASKS if task != "regression")
"""Tasks whose outputs are distributions over classes."""
AGREEMENT = ("multiclass", "binary", "multilabel")
"""Tasks for which predictions of two rounds can be compared record by record."""


@dataclass(frozen=True)
class Outputs:
    """Hold a batch of model outputs.

    Args:
        logits: ``(n, C)`` for multiclass and multilabel, ``(n,)`` or ``(n, 1)`` for binary, ``(n,)`` or ``(n, d)``
            for regression, ``(n, C, height, width)`` for segmentation (a third dimension may come before the height),
            ``(n, T, C)`` for tokens, ``(n, C)`` or ``(n, parts, C)`` for structured; not needed beside ``scores``.
        embedding: ``(n, e)``, the penultimate representation, or None.
        task: one of :data:`TASKS`.
        mask: ``(n, T)`` for tokens, ``(n, parts)`` for structured, ``(n, height, width)`` for segmentation, true where
            a token, part or pixel counts; None where all do. From a batch that is a dict, ``attention_mask`` is taken.
        members: ``(M, *logits.shape)`` with ``M >= 2``, logits of every member of an ensemble, or None. What asks a
            model M times then asks it once.
        scores: ``(n,)``, how uncertain the module itself is about each record, higher is more worth labelling. What
            queries by a score (``Margin``, ``Entropy``, ``LeastConfidence`` and what stands around them) takes it for
            its own, and needs no logits.

    Raises:
        OutputMismatch: neither logits nor scores.

    Example:
        >>> import torch
        >>> Outputs(torch.zeros(2, 3), task="multiclass").logits.shape
        torch.Size([2, 3])
    """

    logits: Tensor = None  # type: ignore[assignment]  # (n, 0) where there are scores alone
    embedding: Tensor | None = None
    task: str = "multiclass"
    mask: Tensor | None = None
    members: Tensor | None = None
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        given: Tensor | None = self.logits
        if given is None:
            if self.scores is None:
                raise OutputMismatch("Outputs() holds nothing: give it logits=..., or scores=..., one per record.")
            object.__setattr__(self, "logits", self.scores.new_zeros(len(self.scores), 0))

    def check(self, n: int) -> Outputs:
        """Raise :class:`OutputMismatch` unless the logits are what the task says, for ``n`` records."""
        shape = tuple(self.logits.shape)
        if self.task not in _SHAPES:
            raise OutputMismatch(f"task is {self.task!r}; allowed: {', '.join(TASKS)}.")
        if self.scores is not None and tuple(self.scores.shape) != (n,):
            raise OutputMismatch(
                f"infer returned scores of shape {tuple(self.scores.shape)} for a batch of {n} records; allowed: "
                f"({n},), one number per record."
            )
        if self._only_scores:
            return self
        words, right = _SHAPES[self.task]
        if not (shape and shape[0] == n and right(shape)):
            raise OutputMismatch(
                f"the model returned logits of shape {shape} for a batch of {n} records; task={self.task!r} means "
                f"{words.replace('(n', f'({n}')}. Pass the right task to PoolDataModule, or give the model an "
                "infer(batch) method that returns al_lightning.scoring.Outputs(logits=...)."
            )
        if self.members is not None and (tuple(self.members.shape[1:]) != shape or len(self.members) < 2):
            raise OutputMismatch(
                f"members have shape {tuple(self.members.shape)}; allowed: (M, *{shape}) with M >= 2, the logits of M "
                "models."
            )
        parts = shape[:1] + shape[2:] if self.task == "segmentation" else shape[:2]
        if self.mask is not None and tuple(self.mask.shape) != parts:
            raise OutputMismatch(f"the mask has shape {tuple(self.mask.shape)}; allowed for these logits: {parts}.")
        return self

    @property
    def _only_scores(self) -> bool:
        return self.scores is not None and self.logits.shape == (len(self.scores), 0)

    @property
    def distributions(self) -> Tensor:
        """Distributions over classes, float32, one per record or per part of it that is classified.

        ``(n, C)`` for multiclass, ``(n, 2)`` for binary, ``(n, labels, 2)`` for multilabel, ``(n, height, width, C)``
        for segmentation, ``(n, T, C)`` for tokens, that of the logits for structured.

        Raises:
            OutputMismatch: the task has no classes, or there are scores alone.
        """
        if self._only_scores:
            raise OutputMismatch(
                "infer returned Outputs(scores=...) without logits. Margin, Entropy and LeastConfidence query by those "
                "scores; what is asked here needs Outputs(logits=...)."
            )
        logits = self.logits.float()
        if self.task in ("multiclass", "tokens", "structured"):
            return logits.softmax(dim=-1)
        if self.task == "segmentation":
            return logits.softmax(dim=1).movedim(1, -1)
        if self.task in ("binary", "multilabel"):
            positive = (logits.reshape(-1) if self.task == "binary" else logits).sigmoid()
            return torch.stack([1 - positive, positive], dim=-1)
        raise OutputMismatch(
            f"task={self.task!r} has no distribution over classes; strategies on class probabilities take "
            f"{', '.join(CLASSES)}. For regression there are Variance, KCenterGreedy and Random."
        )

    @property
    def predictions(self) -> Tensor:
        """Predicted class, int64, ``(n,)`` or one per part of a record; for agreement between rounds."""
        return self.distributions.argmax(dim=-1)
