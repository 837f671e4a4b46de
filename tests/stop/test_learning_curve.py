"""Forecasts against curves whose future is known."""

from __future__ import annotations

import numpy as np
import pytest

from al_lightning.stop.learning_curve import PRIOR, Prior, gain_by_accuracy, gain_by_agreement

LABELS = np.arange(1, 11) * 100.0
AHEAD = np.arange(11, 21) * 100.0


def power_law(n: np.ndarray, exponent: float) -> np.ndarray:
    return 0.95 - 0.5 * (n / 100) ** -exponent


def kappas(n: np.ndarray, exponent: float, prior: Prior = PRIOR) -> np.ndarray:
    """Agreement that belongs to that curve, by the relation the forecast is made from."""
    return 1 - (np.diff(power_law(n, exponent)) / prior.scale) ** (1 / prior.power)


@pytest.mark.parametrize("exponent", [0.4, 0.7, 1.2])
def test_without_noise_both_find_the_curve(exponent: float) -> None:
    truth = power_law(AHEAD, exponent) - power_law(LABELS[-1:], exponent)
    a = gain_by_agreement(LABELS, power_law(LABELS, exponent), kappas(LABELS, exponent), AHEAD, val_labels=10_000)
    b = gain_by_accuracy(LABELS, power_law(LABELS, exponent), AHEAD, val_labels=10_000)
    for found in (a, b):
        np.testing.assert_allclose(found.gain, truth, rtol=0.25)
        assert (found.low < found.gain).all()
        assert (found.gain < found.high).all()


def test_agreement_beats_accuracy_alone_when_validation_is_noisy() -> None:
    rng = np.random.default_rng(0)
    truth = power_law(AHEAD, 0.7)[-1] - power_law(LABELS, 0.7)[-1]
    errors: list[tuple[float, float]] = []
    for _ in range(100):
        seen = rng.binomial(200, power_law(LABELS, 0.7)) / 200
        a = gain_by_agreement(LABELS, seen, kappas(LABELS, 0.7), AHEAD, val_labels=200)
        b = gain_by_accuracy(LABELS, seen, AHEAD, val_labels=200)
        errors.append((abs(a.gain[-1] - truth), abs(b.gain[-1] - truth)))
    by_agreement, by_accuracy = np.mean(errors, axis=0)
    assert by_agreement < 0.8 * by_accuracy


def test_validation_corrects_the_prior_scale() -> None:
    """Twice the gain for the same agreement is found, the more surely the more labels there are."""
    seen = 0.1 + 2 * (power_law(LABELS, 0.7) - power_law(LABELS[:1], 0.7))
    base = gain_by_agreement(LABELS, power_law(LABELS, 0.7), kappas(LABELS, 0.7), AHEAD).gain[0]
    few, many = (
        gain_by_agreement(LABELS, seen, kappas(LABELS, 0.7), AHEAD, val_labels=n).gain[0] / base for n in (20, 20_000)
    )
    assert 1 < few < many
    assert many == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("rounds", [2, 3, 6])
def test_few_rounds_are_enough_and_nan_is_skipped(rounds: int) -> None:
    seen = power_law(LABELS[:rounds], 0.7)
    seen[0] = np.nan
    found = gain_by_agreement(LABELS[:rounds], seen, kappas(LABELS[:rounds], 0.7), AHEAD)
    assert np.isfinite(found.gain).all()
    assert (found.low <= found.gain).all()
    assert (found.gain <= found.high).all()
    assert (np.diff(found.gain) > 0).all()


def test_rounds_may_grow() -> None:
    n = 100 * 1.5 ** np.arange(8)
    ahead = n[-1] * 1.5 ** np.arange(1, 4)
    truth = power_law(ahead, 0.7) - power_law(n[-1:], 0.7)
    found = gain_by_agreement(n, power_law(n, 0.7), kappas(n, 0.7), ahead, val_labels=10_000)
    np.testing.assert_allclose(found.gain, truth, rtol=0.35)


def test_perfect_agreement_and_perfect_accuracy_promise_next_to_nothing() -> None:
    flat = np.full(10, 1.0)
    assert gain_by_agreement(LABELS, flat, np.ones(9), AHEAD).gain[-1] < 0.005
    assert gain_by_accuracy(LABELS, flat, AHEAD).gain[-1] < 0.005
