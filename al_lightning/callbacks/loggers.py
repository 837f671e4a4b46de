"""Active-learning metrics in whatever logger the user's Trainer has."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import Any

from lightning.pytorch.loggers import Logger

from al_lightning.history import RoundRecord


def round_metrics(record: RoundRecord) -> dict[str, float]:
    """A round as flat metrics: ``al/labels`` is what the others are drawn against.

    ``al/forecast_money`` and its like are what the run is foreseen to have cost at its end.
    """
    metrics: dict[str, float] = {
        "al/labels": record.labelled,
        "al/round": record.round,
        "al/queried": record.queried,
        "al/candidates": record.candidates,
        "al/epochs": record.epochs,
        "al/attempts": record.attempts,
        **{f"al/{name}": value for name, value in record.cost.items() if not isnan(value)},
        **{f"al/forecast_{name}": value for name, value in record.forecast.items()},
        **{f"al/{name}": value for name, value in record.metrics.items()},
    }
    for name in ("agreement", "uncertainty", "coverage"):
        if (value := getattr(record, name)) is not None:
            metrics[f"al/{name}"] = value
    return metrics


def log_round(
    loggers: Iterable[Logger], record: RoundRecord, step: int, reports: Mapping[str, float] | None = None
) -> None:
    """Log a round, and what stopping rules report of it.

    The step is the one the Trainer's own metrics have reached, so that the axis never goes back. W&B gets ``al/labels``
    as the x-axis of every ``al/`` metric.
    """
    for logger in loggers:
        define = getattr(getattr(logger, "experiment", None), "define_metric", None)  # W&B, without importing it
        if callable(define):
            define("al/labels")
            define("al/*", step_metric="al/labels")
        reported = {f"al/{name}": value for name, value in (reports or {}).items()}
        logger.log_metrics(round_metrics(record) | reported, step=step)
        logger.save()


@contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close loggers that were made for one run when it ends, as failed where it raises.

    The next run of the same process then gets a log of its own: W&B would otherwise go on in the run that is there. A
    W&B run that was under way before is somebody else's, and stays open.

    Args:
        loggers: made for this run, and not used before.
    """
    before, status = _wandb_run(), "failed"
    try:
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
            finish = getattr(getattr(logger, "_experiment", None), "finish", None)
            if callable(finish) and _wandb_run() is not before:
                finish(exit_code=int(status == "failed"))


def _wandb_run() -> Any:
    """The W&B run of this process, without importing W&B."""
    return getattr(sys.modules.get("wandb"), "run", None)
