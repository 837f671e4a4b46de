"""False starts: rounds that cannot succeed, told from the history alone, and what to do about each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from al_lightning.history import Control, History, Reason
from al_lightning.stop.learning_curve import UNKNOWN_VAL_LABELS, gain_by_accuracy

Remedy = Literal["weights", "weights_and_rate", "weights_and_selection"]
REMEDIES: tuple[Remedy, ...] = ("weights", "weights_and_rate", "weights_and_selection")

STANDARD_ERRORS = 2.5
"""Standard errors that an accuracy must be off before anything is decided on it."""
KEPT_LABELS = 0.85
"""Labels are in doubt where a control agrees with less than this share of what it is right about elsewhere."""


def standard_error(share: float, records: int) -> float:
    """Of a share of records that are right; near 0 and 1 it does not vanish (Agresti & Coull, 1998)."""
    middle = (share * records + 2) / (records + 4)
    return math.sqrt(middle * (1 - middle) / (records + 4))


def below_control(accuracy: float, control: Control, *, val_labels: int, min_delta: float) -> bool:
    """Whether a run is worse than new weights on records drawn at random, of which there were no more.

    Args:
        accuracy: the run's best so far, 0 to 1.
        control: what random selection reached; one that has learnt nothing itself decides nothing.
        val_labels: validation records that ``accuracy`` is of.
        min_delta: how far below it must be, at least.
    """
    if not control.has_learnt or math.isnan(accuracy):
        return False
    noise = math.hypot(standard_error(control.accuracy, control.judged), standard_error(accuracy, val_labels))
    return accuracy < control.accuracy - max(min_delta, STANDARD_ERRORS * noise)


def contradicts_labels(control: Control) -> bool:
    """Whether a control trained on other records firmly contradicts the labels that the run has bought.

    It cannot be expected to agree with more of them than it is right about on validation records; where labels are
    wrong at random it agrees with fewer, in proportion.
    """
    if not control.has_learnt or control.agreed is None or not control.compared:
        return False
    noise = math.hypot(
        standard_error(control.accuracy, control.judged), standard_error(control.agreed, control.compared)
    )
    return control.agreed < control.accuracy - max((1 - KEPT_LABELS) * control.accuracy, STANDARD_ERRORS * noise)


def below_band(
    labels: Sequence[int],
    accuracy: Sequence[float],
    *,
    val_labels: int,
    min_delta: float,
) -> float | None:
    """Where the last round's accuracy should have been at least, if it is below that; else None.

    The rounds before it are carried on as a learning curve (see :mod:`al_lightning.stop.learning_curve`), and the lower
    end of its 80 % interval, less the noise of two accuracies, is what should have been reached. Three rounds are
    needed before the one that is judged.

    Args:
        labels: labelled records of each round, ``(t,)``.
        accuracy: validation accuracy of each, ``(t,)``.
        val_labels: validation records.
        min_delta: how far below it must be, at least.
    """
    before, last = list(accuracy[:-1]), accuracy[-1] if len(accuracy) else math.nan
    if len(before) < 3 or not all(map(math.isfinite, (*before, last))) or labels[-1] <= labels[-2]:
        return None
    forecast = gain_by_accuracy(labels[:-1], before, labels[-1:], val_labels=val_labels)
    noise = math.sqrt(2) * standard_error(before[-1], val_labels)
    least = before[-1] + float(forecast.low[0]) - max(min_delta, STANDARD_ERRORS * noise)
    return least if last < least else None


def remedy_for(cause: str, tried: Sequence[Remedy]) -> Remedy:
    """The first remedy for a cause that has not been tried in vain.

    Args:
        cause: ``diverged``, ``chance``, ``one_class``, ``labels``, ``previous``, ``control``, ``band``, ``agreement``.
        tried: remedies of the run so far, oldest first.
    """
    if cause == "diverged":
        return "weights_and_rate"
    if cause in ("one_class", "labels"):
        return "weights_and_selection"
    # The cheapest first; what one leaves in doubt is settled by the next fit.
    ladder: tuple[Remedy, ...] = REMEDIES if cause == "chance" else ("weights", "weights_and_selection")
    return next((remedy for remedy in ladder if remedy not in tried), "weights_and_selection")


def false_start(history: History, monitor: str, *, min_delta: float, agreement: float) -> Reason | None:
    """Decide from the rounds since the last restart whether the run cannot succeed.

    Args:
        history: with the control, once there is one.
        monitor: validation accuracy, 0 to 1, better high.
        min_delta: how far below what is expected an accuracy must be, at least.
        agreement: Cohen's kappa of two rounds from which their models have settled.

    Raises:
        ValueError: what is monitored is no accuracy.
    """
    rounds = [r for r in history.since_restart if monitor in r.metrics]
    values = [r.metrics[monitor] for r in rounds]
    known = [v for v in values if math.isfinite(v)]
    wrong = [v for v in known if not 0 <= v <= 1]
    if wrong:
        raise ValueError(f"StallDetection(accuracy={monitor!r}): {wrong[0]:g} is no accuracy, allowed: 0 to 1.")
    if not values:
        return None
    if not math.isfinite(values[-1]):
        return _reason("diverged", f"{monitor} is {values[-1]}", monitor, values)
    control, val_labels = history.control, history.val_labels or UNKNOWN_VAL_LABELS
    if control is not None:
        found = _by_control(
            control, max(known), rounds[-1].agreement, monitor, values, val_labels, min_delta, agreement
        )
        if found is not None:
            return found
    least = below_band([r.labelled for r in rounds], values, val_labels=val_labels, min_delta=min_delta)
    if least is None:
        return None
    sentence = f"{monitor} fell to {values[-1]:.4g}, and {least:.4g} was the least that the rounds before let expect"
    return _reason("band", sentence, monitor, values, expected=least)


def _by_control(
    control: Control,
    best: float,
    kappa: float | None,
    monitor: str,
    values: list[float],
    val_labels: int,
    min_delta: float,
    agreement: float,
) -> Reason | None:
    reached = f"{monitor} is {best:.4g}, and {control.accuracy:.4g} with new weights on {control.labels} random records"
    numbers = {"control": control.accuracy, "control_labels": control.labels}
    if contradicts_labels(control):
        sentence = (
            f"a model of {control.labels} random records is right about {control.accuracy:.4g} of the others and "
            f"agrees with {control.agreed:.4g} of the labels that were bought"
        )
        return _reason("labels", sentence, monitor, values, agreed=control.agreed, **numbers)
    if below_control(best, control, val_labels=val_labels, min_delta=min_delta):
        return _reason("control", reached, monitor, values, **numbers)
    settled = kappa is not None and kappa >= agreement
    if settled and control.has_learnt and best < control.accuracy:
        sentence = f"{reached}; the last two models agree all the same (kappa {kappa:.4g})"
        return _reason("agreement", sentence, monitor, values, agreement=kappa, **numbers)
    noise = standard_error(control.chance, val_labels)
    if not control.has_learnt and best <= control.chance + max(min_delta, STANDARD_ERRORS * noise):
        sentence = (
            f"{monitor} is {best:.4g}, the commonest class alone has {control.chance:.4g}, and new weights no more"
        )
        return _reason("chance", sentence, monitor, values, **numbers)
    return None


def _reason(cause: str, sentence: str, monitor: str, values: list[float], **numbers: object) -> Reason:
    return Reason("stall", sentence, {"cause": cause, "monitor": monitor, "values": values, **numbers})
