"""What a strategy around another one has in common with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from al_lightning.query.base import Strategy
from al_lightning.scoring.outputs import Outputs


@dataclass(frozen=True)
class Wrapper(Strategy):
    """Base of strategies that query by another one's score: they need what it needs, and remember what it says.

    The subclass writes ``_pick`` from ``arrays["score"]``.

    Args:
        strategy: one that gives a score per record.

    Raises:
        ValueError: it gives none.
    """

    strategy: Strategy

    adds: ClassVar[frozenset[str]] = frozenset()
    """What is required beside what the inner strategy requires."""

    def __post_init__(self) -> None:
        if "score" not in self.strategy.columns:
            raise ValueError(
                f"{type(self).__name__}({type(self.strategy).__name__}()): it gives no score per record; use Margin(), "
                "Entropy(), LeastConfidence() or another strategy that does."
            )
        for name in ("columns", "tasks"):
            object.__setattr__(self, name, getattr(self.strategy, name))  # frozen, yet not settings
        object.__setattr__(self, "requires", self.strategy.requires | self.adds)

    @property
    def passes(self) -> int:
        """Forward passes per candidate."""
        return self.strategy.passes

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """What the inner strategy's says."""
        return self.strategy.payload(outputs)

    def payload_of(self, samples: Iterable[Outputs]) -> dict[str, Tensor]:
        """What the inner strategy's says."""
        return self.strategy.payload_of(samples)
