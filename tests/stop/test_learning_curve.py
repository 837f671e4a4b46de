"""Forecasts against curves whose future is known."""

from __future__ import annotations

import numpy as np
import pytest

from al_lightning.stop.learning_curve import gain_by_accuracy

LABELS = np.arange(1, 11) * 100.0
AHEAD = np.arange(11, 21) * 100.0


def power_law(n: np.ndarray, exponent: float) -> np.ndarray:
    return 0.95 - 0.5 * (n / 100) ** -exponent


@pytest.mark.parametrize("exponent", [0.4, 0.7, 1.2])
def test_without_noise_it_finds_the_curve(exponent: float) -> None:
    truth = power_law(AHEAD, exponent) - power_law(LABELS[-1:], exponent)
    found = gain_by_accuracy(LABELS, power_law(LABELS, exponent), AHEAD, val_labels=10_000)
    np.testing.assert_allclose(found.gain, truth, rtol=0.25)
    assert (found.low < found.gain).all()
    assert (found.gain < found.high).all()


def test_nine_in_ten_curves_gain_less_than_the_upper_end() -> None:
    """Curves drawn from the prior, measured with the noise that it expects."""
    rng = np.random.default_rng(0)
    below = []
    for _ in range(400):
        exponent = np.exp(np.log(0.45) + 0.7 * rng.normal()).clip(0.1, 2.5)
        floor, height = 0.3 * rng.random(), 0.5
        error, later = floor + height * (LABELS / 100) ** -exponent, floor + height * (AHEAD / 100) ** -exponent
        seen = 1 - error - np.sqrt(0.43 * error * (1 - error) / 500) * rng.normal(size=len(LABELS))
        found = gain_by_accuracy(LABELS, seen, AHEAD, val_labels=500, confidence=0.9)
        below.append(error[-1] - later[-1] <= found.high[-1])
    assert np.mean(below) == pytest.approx(0.9, abs=0.05)


def test_more_confidence_takes_a_higher_upper_end() -> None:
    seen = power_law(LABELS, 0.7)
    ends = [gain_by_accuracy(LABELS, seen, AHEAD, confidence=c).high[-1] for c in (0.6, 0.8, 0.95)]
    assert ends == sorted(set(ends))


def test_more_validation_labels_narrow_the_interval() -> None:
    few, many = (gain_by_accuracy(LABELS, power_law(LABELS, 0.7), AHEAD, val_labels=n) for n in (50, 5000))
    assert (many.high - many.low < few.high - few.low).all()


@pytest.mark.parametrize("rounds", [3, 4, 6])
def test_few_rounds_are_enough_and_nan_is_skipped(rounds: int) -> None:
    seen = power_law(LABELS[:rounds], 0.7)
    seen[0] = np.nan
    found = gain_by_accuracy(LABELS[:rounds], seen, AHEAD)
    assert np.isfinite(found.gain).all()
    assert (found.low <= found.gain).all()
    assert (found.gain <= found.high).all()
    assert (np.diff(found.gain) > 0).all()


def test_rounds_may_grow() -> None:
    n = 100 * 1.5 ** np.arange(8)
    ahead = n[-1] * 1.5 ** np.arange(1, 4)
    truth = power_law(ahead, 0.7) - power_law(n[-1:], 0.7)
    found = gain_by_accuracy(n, power_law(n, 0.7), ahead, val_labels=10_000)
    np.testing.assert_allclose(found.gain, truth, rtol=0.35)


def test_perfect_accuracy_promises_next_to_nothing() -> None:
    assert gain_by_accuracy(LABELS, np.full(10, 1.0), AHEAD).gain[-1] < 0.005
