"""Several answers of one model to the same records: members of an ensemble, or passes with dropout on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from al_lightning.errors import OutputMismatch
from al_lightning.scoring.outputs import Outputs
from al_lightning.seeds import number

_NAMES = ("Dropout", "DropPath", "StochasticDepth")


def dropping(model: nn.Module) -> list[nn.Module]:
    """Modules that drop something when training: dropout layers, and layers that hold a dropout rate of their own.

    Only these may be in training mode while a pool is scored: BatchNorm in training mode would normalise by the batch
    and write what it sees of unlabelled data into its running statistics.
    """
    # An encoder layer in eval mode takes a fast path that skips the dropout layers inside it.
    holds_a_rate = (nn.MultiheadAttention, nn.RNNBase)
    return [
        module
        for module in model.modules()
        if any(name in type(module).__name__ for name in _NAMES)
        or (isinstance(module, holds_a_rate) and module.dropout > 0)
        or isinstance(module, nn.TransformerEncoderLayer)
    ]


@contextmanager
def dropout_on(model: nn.Module) -> Iterator[None]:
    """Put the dropping modules, and nothing else, in training mode."""
    modules = [module for module in dropping(model) if not module.training]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False


@dataclass
class Samples:
    """Hold how answers are drawn.

    Args:
        passes: with dropout on, where the model is no ensemble.
        seed: of the dropout masks; the same batch gets the same ones on whatever process it is scored.
    """

    passes: int
    seed: int

    def __post_init__(self) -> None:
        self._ensemble: bool | None = None

    def of(self, model: nn.Module, answer: Callable[[], Outputs], first_id: int) -> Iterator[Outputs]:
        """Answers to a batch, one by one.

        Args:
            model: what ``answer`` asks, in eval mode.
            answer: asks it once.
            first_id: of the batch.

        Raises:
            OutputMismatch: the model is no ensemble and drops nothing, so that all answers would be the same.
        """
        if self._ensemble is not False:
            outputs = answer()
            self._ensemble = outputs.members is not None
            if outputs.members is not None:
                for logits in outputs.members:
                    yield replace(outputs, logits=logits, members=None)
                return
        if not dropping(model):
            raise OutputMismatch(
                f"{type(model).__name__} has no dropout layer, so it answers the same however often it is asked. Give "
                "it one, or an infer(batch) method that returns Outputs(members=...), the logits of an ensemble; or "
                "use a strategy that asks once."
            )
        torch.manual_seed(number(self.seed, first_id, "passes"))
        for _ in range(self.passes):
            with dropout_on(model):
                outputs = answer()
            yield outputs
