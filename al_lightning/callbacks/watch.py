"""What watches a run for false starts: its fits, its rounds, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.history import History, Reason
from al_lightning.stop.false_start import FalseStart, Remedy


@dataclass(frozen=True)
class Watch:
    """Hold what watches a run for false starts: its fits, its rounds, or both.

    Args:
        fits: watches each fit, epoch by epoch.
        rounds: watches the rounds, against a control.
    """

    fits: StallDetection | None = None
    rounds: FalseStart | None = None

    @property
    def any(self) -> StallDetection | FalseStart | None:
        """The one that decides on remedies."""
        return self.fits or self.rounds

    def across_rounds(self, history: History) -> Reason | None:
        """Decide from the rounds since the last restart whether the run has left its start."""
        return None if self.rounds is None else self.rounds(history)

    @property
    def max_restarts(self) -> int:
        """Restarts in a run before it gives up."""
        return min(rule.max_restarts for rule in (self.fits, self.rounds) if rule is not None)

    def remedy_for(self, reason: Reason, tried: Sequence[Remedy]) -> Remedy:
        """Return what to do about a false start."""
        assert self.any is not None
        return self.any.remedy_for(reason, tried)
