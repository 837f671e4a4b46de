"""The parts of a run that are held against each other before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import lightning.pytorch as L

from al_lightning.callbacks.watch import Watch
from al_lightning.candidates.base import CandidateSelector
from al_lightning.fit.plan import FitPolicy
from al_lightning.history import RoundSize
from al_lightning.oracles.oracle import Oracle
from al_lightning.query.base import Strategy
from al_lightning.stop.base import StoppingRule


class Parts(Protocol):
    """Hold what an :class:`~al_lightning.learner.ActiveLearner` was given, or took in its place."""

    @property
    def query(self) -> Strategy:
        """Picks records."""

    @property
    def initial(self) -> Strategy:
        """Picks the first ones, before there is a model."""

    @property
    def candidates(self) -> CandidateSelector:
        """Chooses which records are inferred."""

    @property
    def round_size(self) -> RoundSize:
        """Says how many labels a round buys."""

    @property
    def policy(self) -> FitPolicy:
        """Plans fits."""

    @property
    def stop(self) -> Sequence[StoppingRule]:
        """End the run."""

    @property
    def watch(self) -> Watch:
        """Finds false starts."""

    @property
    def stop_set(self) -> int:
        """Records whose predictions are compared between rounds."""

    @property
    def oracle(self) -> Oracle:
        """Answers."""

    @property
    def proxy(self) -> L.LightningModule | None:
        """Selects for the model that is delivered."""
