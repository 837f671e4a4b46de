"""CostStopping: stop when more accuracy would cost more than it is worth, before the curve is flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from al_lightning.errors import UnknownMonitor
from al_lightning.history import History, Reason
from al_lightning.stop.learning_curve import PRIOR, UNKNOWN_VAL_LABELS, Forecast, Prior, gain_by_accuracy

_MOST_ROUNDS = 200
"""Rounds that are looked ahead."""


def further_labels(labels: Sequence[int], most: int) -> np.ndarray:
    """Labelled records after each further round, if rounds stay as large as the last one, ``(m,)``; none if at most."""
    size = max(1, labels[-1] - labels[-2] if len(labels) > 1 else labels[-1])
    ahead = labels[-1] + size * np.arange(1, _MOST_ROUNDS + 1)
    return np.unique(np.minimum(ahead, most)[: math.ceil(max(0, most - labels[-1]) / size)])


def cost_of_rounds(ahead: np.ndarray, *, now: int, price: float, compute: float) -> np.ndarray:
    """Return what it costs from now until each of the further rounds is over, ``(m,)``.

    Args:
        ahead: labelled records after each.
        now: labelled records now.
        price: of a label.
        compute: of the last round, training and scoring; it grows with the labels, as training from scratch does.
    """
    return price * (ahead - now) + compute * np.cumsum(ahead / max(1, now))


def best_stop(gain: np.ndarray, cost: np.ndarray, *, value: float) -> tuple[int, float]:
    """Return which further round it would be best to stop after, and what that is worth: ``max(value * gain - cost)``.

    Going on pays if this is above 0 for any number of rounds, also where the next one alone would not pay.
    """
    net = value * gain - cost
    best = int(np.argmax(net))
    return best, float(net[best])


@dataclass(frozen=True, kw_only=True)
class CostStopping:
    """Stop when the accuracy that further rounds will gain no longer covers what they cost.

    After every round the learning curve is forecast (see :func:`~al_lightning.stop.learning_curve.gain_by_accuracy`),
    the labels, training and scoring of the rounds that may follow are priced at the run's prices and measured seconds,
    and the run ends if no number of further rounds pays, not even with the gain at the upper end of its interval: a
    stop is for good, and one more round is not. The forecast is logged after every fit; the reason has it.

    Args:
        monitor: accuracy, or another share of validation records that are right, that the module logs.
        price_per_point: what a point of it (0.01) is worth, in the currency of the prices.
        target: accuracy to reach, in place of a price: the run ends when it is reached, or when it is above the
            forecast's interval with all of the pool labelled.
        confidence: probability that the gain is at most the upper end of its interval, 0.5 to 1.
        agreement: Cohen's kappa with the round before, below which the run does not stop, where there is a stop set.
        labels: labels the run may have at most, where something else limits them; default: the whole pool.
        prior: what other learning curves have taught.

    Raises:
        ValueError: a value out of range, or not exactly one of ``price_per_point`` and ``target``.

    Example:
        >>> CostStopping(price_per_point=5.0)(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    monitor: str = "val_acc"
    price_per_point: float | None = None
    target: float | None = None
    confidence: float = 0.9
    agreement: float = 0.6
    labels: int | None = None
    prior: Prior = field(default=PRIOR, repr=False)

    def __post_init__(self) -> None:
        if (self.price_per_point is None) == (self.target is None):
            raise ValueError(
                "CostStopping needs to know what accuracy is worth: price_per_point=, or target=, and not both "
                f"(got {self.price_per_point} and {self.target})."
            )
        if self.price_per_point is not None and not 0 < self.price_per_point < math.inf:
            raise ValueError(f"CostStopping(price_per_point={self.price_per_point}): money, allowed: above 0.")
        if self.target is not None and not 0 < self.target <= 1:
            raise ValueError(f"CostStopping(target={self.target}): an accuracy, allowed: 0 < target <= 1.")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"CostStopping(confidence={self.confidence}): a probability, allowed: between 0.5 and 1.")
        if not -1 <= self.agreement <= 1:
            raise ValueError(f"CostStopping(agreement={self.agreement}): Cohen's kappa, allowed: -1 to 1.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the history.

        Raises:
            UnknownMonitor: the last round did not log the metric.
            ValueError: it is no accuracy.
        """
        if history.rounds and self.monitor not in history.rounds[-1].metrics:
            raise UnknownMonitor(self.monitor, history.rounds[-1].metrics, "CostStopping")
        forecast = self.forecast(history)
        if forecast is None:
            return None
        last = history.rounds[-1].agreement
        if last is not None and last < self.agreement:
            return None
        return self._reached(history, forecast) if self.target is not None else self._covered(history, forecast)

    def forecast(self, history: History) -> Forecast | None:
        """The accuracy still to be gained; None with too few rounds, or with nothing left to label."""
        rounds = history.rounds
        values = [r.metrics.get(self.monitor, math.nan) for r in rounds]
        wrong = [v for v in values if math.isfinite(v) and not 0 <= v <= 1]
        if wrong:
            raise ValueError(
                f"CostStopping(monitor={self.monitor!r}): {wrong[0]:g} is no accuracy, allowed: 0 to 1. Monitor the "
                "share of validation records that are right."
            )
        if sum(map(math.isfinite, values)) < 3:
            return None
        labels = [r.labelled for r in rounds]
        most = labels[-1] + history.unlabelled
        ahead = further_labels(labels, most if self.labels is None else min(most, self.labels))
        if not len(ahead):
            return None
        return gain_by_accuracy(
            labels,
            values,
            ahead.tolist(),
            val_labels=history.val_labels or UNKNOWN_VAL_LABELS,
            confidence=self.confidence,
            prior=self.prior,
        )

    def costs(self, history: History, forecast: Forecast) -> np.ndarray:
        """Return what further rounds cost, ``(m,)``."""
        rounds, prices = history.rounds, history.bill.prices
        # What a kill has cost says nothing of the rounds to come.
        seconds = [r.cost.get("seconds", 0.0) - r.cost.get("seconds_lost", 0.0) for r in rounds]
        compute = (seconds[-1] - (seconds[-2] if len(rounds) > 1 else 0.0)) / 3600 * prices.hour
        now = rounds[-1].labelled
        return cost_of_rounds(forecast.labels, now=now, price=prices.label, compute=max(0.0, compute))

    def report(self, history: History) -> dict[str, float]:
        """The forecast of the next round, and what the best number of further ones may be worth; to be logged."""
        forecast = self.forecast(history)
        if forecast is None:
            return {}
        numbers = {"gain": forecast.gain[0], "gain_low": forecast.low[0], "gain_high": forecast.high[0]}
        cost = self.costs(history, forecast)
        numbers["cost"] = cost[0]
        if self.price_per_point is not None:
            numbers["net"] = best_stop(forecast.high, cost, value=100 * self.price_per_point)[1]
        return {name: float(value) for name, value in numbers.items()}

    def _covered(self, history: History, forecast: Forecast) -> Reason | None:
        assert self.price_per_point is not None
        value, cost = 100 * self.price_per_point, self.costs(history, forecast)
        best, net = best_stop(forecast.high, cost, value=value)
        if net > 0:
            return None
        gain, labels, money = forecast.gain[best], forecast.labels[best] - history.rounds[-1].labelled, cost[best]
        sentence = (
            f"{labels:.0f} more labels are expected to gain {100 * gain:.2f} points ({100 * forecast.low[best]:.2f} to "
            f"{100 * forecast.high[best]:.2f}), worth at most {value * forecast.high[best]:.4g} "
            f"{history.bill.prices.currency}, and cost {money:.4g}; no number of rounds pays"
        )
        return Reason("cost", sentence, {**_numbers(forecast), "cost": cost.tolist(), "value": value, "net": net})

    def _reached(self, history: History, forecast: Forecast) -> Reason | None:
        assert self.target is not None
        known = [v for r in history.rounds if math.isfinite(v := r.metrics.get(self.monitor, math.nan))]
        now, numbers = known[-1] if known else math.nan, {**_numbers(forecast), "target": self.target}
        if now >= self.target:
            sentence = f"{self.monitor} is {now:.4g}, and the target was {self.target:g}"
            return Reason("target", sentence, {"now": now, **numbers})
        if now + forecast.high[-1] < self.target:
            sentence = (
                f"{self.monitor} is {now:.4g} and is expected to reach {now + forecast.gain[-1]:.4g} at best, "
                f"{now + forecast.high[-1]:.4g} with luck: the target of {self.target:g} is out of reach"
            )
            return Reason("out_of_reach", sentence, {"now": now, **numbers})
        return None


def _numbers(forecast: Forecast) -> dict[str, list[float]]:
    names = ("labels", "gain", "low", "high")
    return {name: np.round(getattr(forecast, name), 6).tolist() for name in names}
