"""An error of the user's own code says which path it was that failed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from al_lightning.errors import ActiveLearningError, PreflightFailed

INFER = "Give the model a method infer(batch) that returns al_lightning.scoring.Outputs(logits=...)."
"""The way out where a model cannot be asked about a batch."""
_HOOKS = ("training_step", "validation_step", "configure_optimizers", "configure_model", "setup", "train_dataloader")


@contextmanager
def trying(path: str, way_out: str) -> Iterator[None]:
    """Raise PreflightFailed, which names the path, for whatever fails inside; errors of this library pass.

    Args:
        path: what is tried, a noun.
        way_out: a sentence.
    """
    try:
        yield
    except ActiveLearningError:
        raise
    except Exception as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        hook = next((name for name in _HOOKS if name in names), None)
        raise PreflightFailed(path if hook is None else f"{path}, {hook}", error, way_out) from error
