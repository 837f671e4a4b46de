"""What a rehearsal says of a run's costs, before anything is bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Rehearsed:
    """FLOPs that were met in a rehearsal; empty where there was none, or they could not be counted.

    Args:
        flops: of a record by kind of pass, of the model that selects.
        target: of training the model that is delivered on a record; None: it selects by itself.
        once: of what a run makes once, by phase.
        distance: of comparing a candidate with a labelled record.
        features: width of the pool's features; 0: none were asked for.
        answers: numbers that the model says of a candidate.
    """

    flops: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    once: dict[str, float] = field(default_factory=dict)
    distance: float = 0.0
    features: int = 0
    answers: int = 0

    def note_once(self, phase: str, flops: float) -> None:
        """Note what a run makes once; of the same phase, the dearest."""
        self.once[phase] = max(flops, self.once.get(phase, 0.0))
