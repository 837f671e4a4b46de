"""What a strategy around another one has in common with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from al_lightning.errors import NegativeScores
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy, top
from al_lightning.query.work import PickSize
from al_lightning.scoring.outputs import Outputs


@dataclass(frozen=True)
class Around(Strategy):
    """Base of strategies around another one: they need what it needs, and remember what it says.

    Args:
        strategy: the inner one.
    """

    strategy: Strategy

    adds: ClassVar[frozenset[str]] = frozenset()
    """What is required beside what the inner strategy requires."""

    def __post_init__(self) -> None:
        for name in ("columns", "tasks"):
            object.__setattr__(self, name, getattr(self.strategy, name))  # frozen, yet not settings
        object.__setattr__(self, "requires", self.strategy.requires | self.adds)

    @property
    def passes(self) -> int:
        """Forward passes per candidate."""
        return self.strategy.passes

    def work(self, at: PickSize) -> float:
        """FLOPs of the inner strategy's pick."""
        return self.strategy.work(at)

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return what the inner strategy's says."""
        return self.strategy.payload(outputs)

    def payload_of(self, samples: Iterable[Outputs]) -> dict[str, Tensor]:
        """Return what the inner strategy's says."""
        return self.strategy.payload_of(samples)


@dataclass(frozen=True)
class Wrapper(Around):
    """Base of strategies that query by another one's score; they can stand around each other.

    The subclass writes ``worth`` from that of the inner strategy, and the highest are picked.

    Args:
        strategy: one that gives a score per record.

    Raises:
        ValueError: it gives none.
    """

    def __post_init__(self) -> None:
        if "score" not in self.strategy.columns:
            raise ValueError(
                f"{type(self).__name__}({type(self.strategy).__name__}()): it gives no score per record; use Margin(), "
                "Entropy(), LeastConfidence() or another strategy that does."
            )
        if self.strategy.beyond_candidates:
            name = type(self.strategy).__name__
            raise ValueError(
                f"{type(self).__name__}({name}(...)): part of that query is drawn whatever it scores; put {name} "
                f"outside: {name}({type(self).__name__}(...))."
            )
        super().__post_init__()

    def worth(
        self, *, view: PoolView, ids: np.ndarray, arrays: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """Return what the inner strategy's says."""
        return self.strategy.worth(view=view, ids=ids, arrays=arrays, rng=rng)

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        return ids[top(self.worth(view=view, ids=ids, arrays=arrays, rng=rng), size, rng)]


def check_not_negative(scores: np.ndarray, ids: np.ndarray, who: str) -> None:
    """Raise NegativeScores, which names the ids, unless all scores ``(n,)`` are 0 or more."""
    negative = scores < 0
    if negative.any():
        raise NegativeScores(ids[negative].tolist(), who)
