"""OverallUncertainty: stop when the model is sure of what is left in the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from al_lightning.history import History, Reason


@dataclass(frozen=True)
class OverallUncertainty:
    """Stop when the mean score of the candidates, as fresh as the query, is below a threshold.

    It reads the scores that the query was made from and costs no pass of its own. So it is of the round before: the
    present model has scored nothing yet. A candidate selector that does not infer the whole pool shifts the mean.

    Source: J. Zhu, H. Wang and E. Hovy, "Multi-criteria-based strategy to stop active learning for data annotation",
    COLING 2008.

    Args:
        threshold: in the unit of the strategy's score: Margin gives 0 (sure) to 1, LeastConfidence 0 to ``1 - 1 / C``,
            Entropy 0 to ``log(C)``.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> OverallUncertainty(0.01)(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    threshold: float = 0.05

    needs: ClassVar[frozenset[str]] = frozenset({"uncertainty"})

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"OverallUncertainty(threshold={self.threshold}): a mean score, allowed: above 0.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the last round's uncertainty."""
        found = history.rounds[-1].uncertainty if history.rounds else None
        if found is None or not found < self.threshold:
            return None
        sentence = f"mean uncertainty of the pool is {found:.4g}, below {self.threshold:g}"
        return Reason("certain", sentence, {"uncertainty": found, "threshold": self.threshold})
