"""What a model must offer to be scored: ``infer(model, batch) -> Outputs``, see docs/adr/0001."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from al_lightning.errors import OutputMismatch

TASKS = ("multiclass", "binary", "multilabel", "regression")
"""What logits may mean. Never guessed from a shape."""


@dataclass(frozen=True)
class Outputs:
    """A batch of model outputs.

    Args:
        logits: ``(n, C)`` for multiclass and multilabel, ``(n,)`` or ``(n, 1)`` for binary, ``(n,)`` or ``(n, d)``
            for regression.
        embedding: ``(n, e)``, the penultimate representation, or None.
        task: one of :data:`TASKS`.
    """

    logits: Tensor
    embedding: Tensor | None = None
    task: str = "multiclass"

    def check(self, n: int) -> Outputs:
        """Raise :class:`OutputMismatch` unless the logits are what the task says, for ``n`` records."""
        shape = tuple(self.logits.shape)
        wanted = {
            "multiclass": (f"({n}, C) with C >= 2", len(shape) == 2 and shape[0] == n and shape[-1] >= 2),
            "binary": (f"({n},) or ({n}, 1)", shape in {(n,), (n, 1)}),
            "multilabel": (f"({n}, C)", len(shape) == 2 and shape[0] == n),
            "regression": (f"({n},) or ({n}, d)", len(shape) in (1, 2) and shape[0] == n),
        }
        if self.task not in wanted:
            raise OutputMismatch(f"task is {self.task!r}; allowed: {', '.join(TASKS)}.")
        words, right = wanted[self.task]
        if not right:
            raise OutputMismatch(
                f"the model returned logits of shape {shape} for a batch of {n} records; task={self.task!r} means "
                f"{words}. Pass the right task to PoolDataModule, or give the model an infer(batch) method that "
                "returns al_lightning.Outputs(logits=...)."
            )
        return self

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities, ``(n, C)`` float32: softmax for multiclass, ``[1 - p, p]`` for binary.

        Raises:
            OutputMismatch: the task has no distribution over classes.
        """
        logits = self.logits.float()
        if self.task == "multiclass":
            return logits.softmax(dim=-1)
        if self.task == "binary":
            positive = logits.reshape(-1).sigmoid()
            return torch.stack([1 - positive, positive], dim=-1)
        raise OutputMismatch(
            f"task={self.task!r} has no distribution over classes; strategies on class probabilities take "
            "multiclass or binary."
        )

    @property
    def predictions(self) -> Tensor:
        """Predicted class per record, ``(n,)`` int64; for agreement between rounds."""
        return self.probabilities.argmax(dim=-1)
