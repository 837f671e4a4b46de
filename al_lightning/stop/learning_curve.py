"""What accuracy the next labels will bring: a power law with an offset, from the rounds there have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

UNKNOWN_VAL_LABELS = 300
"""Validation labels assumed where their number is not known."""
_LEAST_CHANGE = 1e-3
_EXPONENTS = np.geomspace(0.1, 2.5, 25)
_FLOORS = np.linspace(0, 1, 25)
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 15) for i in range(15)])


@dataclass(frozen=True)
class Prior:
    """What is known of learning curves before this one is seen.

    The defaults are round numbers near what ``python -m benchmarks.stopping evaluate`` fits to recorded curves, and
    wider.

    Args:
        power: a round that leaves agreement kappa with the round before gains accuracy in proportion to
            ``(1 - kappa) ** power``: where little changes, more of it is noise that goes to and fro.
        scale: factor of that proportion.
        scale_sd: its standard deviation between data sets and models.
        slope: exponent with which the gain per label falls with the labels.
        weight: of that exponent, in squared units of log(labels).
        exponent: of the power law itself, where there is no agreement to read it from.
        exponent_sd: standard deviation of its logarithm.
        noise: variance of validation accuracies around the curve / that of a binomial. All rounds are measured on the
            same records, and what is peculiar to these is in the offset.
    """

    power: float = 1.2
    scale: float = 0.5
    scale_sd: float = 0.3
    slope: float = -1.5
    weight: float = 0.3
    exponent: float = 0.7
    exponent_sd: float = 0.6
    noise: float = 0.4


PRIOR = Prior()


@dataclass(frozen=True)
class Forecast:
    """Accuracy still to be gained.

    Args:
        labels: labelled records after a further round, after two, and so on, ``(m,)``.
        gain: expected accuracy then, minus that of now, ``(m,)``.
        low: lower end of its 80 % interval, ``(m,)``.
        high: upper end, ``(m,)``.
    """

    labels: np.ndarray
    gain: np.ndarray
    low: np.ndarray
    high: np.ndarray


def gain_by_agreement(
    labels: Sequence[float],
    accuracy: Sequence[float],
    agreement: Sequence[float],
    ahead: Sequence[float],
    *,
    val_labels: int = UNKNOWN_VAL_LABELS,
    prior: Prior = PRIOR,
) -> Forecast:
    """Forecast with the curve's shape from agreement, its height from validation.

    Validation accuracies of a few hundred labels are too noisy to see a curve flatten in. How many predictions a round
    changes on the stop set is not, it bounds what the round can have gained, and needs no labels. A round's gain is
    ``scale * (1 - kappa) ** power``; ``scale`` is regressed on the accuracies' differences, whose variance is that of
    the changed records, ``(1 - kappa) / val_labels``. Gains per label are carried on as a power of the labels, which
    makes accuracy a power law with an offset. Milliseconds, no matter how many rounds.

    Args:
        labels: labelled records of each round, ``(t,)``, ascending, two rounds or more.
        accuracy: validation accuracy of each, 0 to 1, ``(t,)``; NaN is skipped.
        agreement: Cohen's kappa of each round from the second on with the round before, ``(t - 1,)``.
        ahead: numbers of labels to forecast, ascending, more than there are now.
        val_labels: validation records.
        prior: what other curves have taught.
    """
    n, value, to = np.asarray(labels, float), np.asarray(accuracy, float), np.asarray(ahead, float)
    change = np.maximum(1 - np.asarray(agreement, float), _LEAST_CHANGE)
    shape = change**prior.power
    known = np.flatnonzero(np.isfinite(value))
    reached, noise = (np.concatenate([[0.0], np.cumsum(x)])[known] for x in (shape, change / val_labels))
    rise, by, variance = np.diff(value[known]), np.diff(reached), np.diff(noise)
    precision = prior.scale_sd**-2 + np.sum(by**2 / variance)
    scale = (prior.scale * prior.scale_sd**-2 + np.sum(rise * by / variance)) / precision
    middle, density = np.log((n[1:] + n[:-1]) / 2)[-6:], np.log(shape / np.diff(n))[-6:]
    weights = np.arange(1.0, len(middle) + 1)  # the last rounds say most about the next
    centre, height = np.average(middle, weights=weights), np.average(density, weights=weights)
    spread = np.sum(weights * (middle - centre) ** 2) + prior.weight
    slope = (np.sum(weights * (middle - centre) * (density - height)) + prior.weight * prior.slope) / spread
    residual = np.average((density - height - slope * (middle - centre)) ** 2, weights=weights)
    slope_sd, scale_sd = np.sqrt((residual + 0.01) / spread), precision**-0.5
    before = np.concatenate([n[-1:], to[:-1]])
    position, width = np.log((to + before) / 2) - centre, to - before

    slopes = np.concatenate([[slope], slope + slope_sd * _QUANTILES])
    curves = np.cumsum(np.exp(height + slopes[:, None] * position) * width, axis=1)  # (16, m), before the scale
    cases = np.maximum(scale + scale_sd * _QUANTILES, 0)[:, None, None] * curves[1:]
    low, high = np.quantile(cases.reshape(-1, len(to)), [0.1, 0.9], axis=0)
    return Forecast(to, max(scale, 0.0) * curves[0], low, high)


def gain_by_accuracy(
    labels: Sequence[float],
    accuracy: Sequence[float],
    ahead: Sequence[float],
    *,
    val_labels: int = UNKNOWN_VAL_LABELS,
    prior: Prior = PRIOR,
) -> Forecast:
    """Forecast from validation accuracies alone: ``error = floor + b * labels ** -c``.

    A grid of exponents ``c`` and floors, ``b`` by least squares for each, weighted by prior and likelihood: what a
    bootstrap of such fits (Mahmood et al., 2022, arXiv:2210.01234) approaches, without its draws. Less sharp than
    :func:`gain_by_agreement`.

    Args:
        labels: labelled records of each round, ``(t,)``, ascending.
        accuracy: validation accuracy of each, 0 to 1, ``(t,)``; NaN is skipped.
        ahead: numbers of labels to forecast, ascending, more than there are now.
        val_labels: validation records.
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
    low, high = (_weighted_quantile(gains, weight, q) for q in (0.1, 0.9))
    return Forecast(to, weight @ gains, low, high)


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    order = np.argsort(values, axis=0)
    reached = np.cumsum(weights[order], axis=0)
    rows = np.argmax(reached >= q, axis=0)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), rows[None], axis=0)[0]
