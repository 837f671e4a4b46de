"""What a run asks of the two objects that it holds and does not make: the last fit, and kept activations."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import lightning.pytorch as L
import numpy as np

from al_lightning.cost.flops import FlopMeter
from al_lightning.history import Reason
from al_lightning.scoring.samples import Samples


class LastFit(Protocol):
    """A fit that this process has run, see :class:`~al_lightning.fit.outcome.Outcome`."""

    @property
    def trainer(self) -> L.Trainer:
        """The copy of the user's that has trained."""

    @property
    def stalled(self) -> Reason | None:
        """Return why it was aborted; None: it was not."""

    @property
    def best_model_path(self) -> str:
        """Checkpoint of the best weights; empty where none was kept."""


class KeptActivations(Protocol):
    """Hold what a frozen part returns, kept, see :class:`~al_lightning.features.activations.Activations`."""

    def can_serve(self, samples: Samples | None = None) -> bool:
        """Say if the model can be run from activations."""

    def serving(self, ids: np.ndarray, *, steps: bool) -> AbstractContextManager[None]:
        """Have the pool serve activations."""

    def scoring(self, ids: np.ndarray) -> AbstractContextManager[FlopMeter]:
        """Serve them to a scoring pass."""
