"""What accuracy the next labels will bring: a power law with an offset, from the rounds there have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNKNOWN_VAL_LABELS = 300
"""Validation labels assumed where their number is not known."""
_EXPONENTS = np.geomspace(0.1, 2.5, 25)
_FLOORS = np.linspace(0, 1, 25)


@dataclass(frozen=True)
class Prior:
    """Hold what is known of learning curves before this one is seen.

    The defaults are what ``python -m benchmarks.stopping evaluate`` fits to recorded curves of six data sets with two
    models each, rounded.

    Args:
        exponent: of the power law, the median.
        exponent_sd: standard deviation of its logarithm between data sets and models.
        noise: variance of validation accuracies around the curve / that of a binomial. All rounds are measured on the
            same records, and what is peculiar to these is in the offset.
    """

    exponent: float = 0.45
    exponent_sd: float = 0.7
    noise: float = 0.43


PRIOR = Prior()


@dataclass(frozen=True)
class Forecast:
    """Accuracy still to be gained.

    Args:
        labels: labelled records after a further round, after two, and so on, ``(m,)``.
        gain: expected accuracy then, minus that of now, ``(m,)``.
        low: lower end of its interval, ``(m,)``.
        high: upper end, ``(m,)``.
    """

    labels: np.ndarray
    gain: np.ndarray
    low: np.ndarray
    high: np.ndarray


def gain_by_accuracy(
    labels: Sequence[float],
    accuracy: Sequence[float],
    ahead: Sequence[float],
    *,
    val_labels: int = UNKNOWN_VAL_LABELS,
    confidence: float = 0.9,
    prior: Prior = PRIOR,
) -> Forecast:
    """Forecast from validation accuracies: ``error = floor + b * labels ** -c``.

    A grid of exponents ``c`` and floors, ``b`` by least squares for each, weighted by prior and likelihood: what a
    bootstrap of such fits (Mahmood et al., 2022, arXiv:2210.01234) approaches, without its draws. Milliseconds.

    Args:
        labels: labelled records of each round, ``(t,)``, ascending.
        accuracy: validation accuracy of each, 0 to 1, ``(t,)``; NaN is skipped.
        ahead: numbers of labels to forecast, ascending, more than there are now.
        val_labels: validation records.
        confidence: probability that the gain is at most ``high``; and that it is at least ``low``.
        prior: what other curves have taught.
    """
    known = np.isfinite(np.asarray(accuracy, float))
    n, error = np.asarray(labels, float)[known], 1 - np.asarray(accuracy, float)[known]
    to, now = np.asarray(ahead, float), float(labels[-1])
    smooth = np.clip((error * val_labels + 1) / (val_labels + 2), 1e-3, 1 - 1e-3)
    variance = prior.noise * smooth * (1 - smooth) / val_labels + 1e-6
    floors = (_FLOORS * error.min())[:, None]
    powers = (n[None] / now) ** -_EXPONENTS[:, None]
    above = (error[None] - floors) / variance
    b = np.maximum(above @ powers.T / (powers**2 @ (1 / variance))[None], 0.0)  # (floors, exponents)
    misfit = error - floors[..., None] - b[..., None] * powers[None]
    weight = -0.5 * np.sum(misfit**2 / variance, axis=-1)
    weight -= 0.5 * ((np.log(_EXPONENTS) - np.log(prior.exponent)) / prior.exponent_sd) ** 2
    weight = np.exp(weight - weight.max()).ravel()
    gains = (b[..., None] * (1 - (to[None] / now) ** -_EXPONENTS[:, None])).reshape(len(weight), len(to))
    weight /= weight.sum()
    low, high = (_weighted_quantile(gains, weight, q) for q in (1 - confidence, confidence))
    return Forecast(to, weight @ gains, low, high)


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    order = np.argsort(values, axis=0)
    reached = np.cumsum(weights[order], axis=0)
    rows = np.argmax(reached >= q, axis=0)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), rows[None], axis=0)[0]
