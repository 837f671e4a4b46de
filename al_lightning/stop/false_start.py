"""False starts: rounds that cannot succeed, told from the history alone, and what to do about each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from al_lightning.errors import UnknownMonitor
from al_lightning.history import Control, History, Reason
from al_lightning.stop.learning_curve import UNKNOWN_VAL_LABELS, gain_by_accuracy

Remedy = Literal["weights", "weights_and_rate", "weights_and_selection"]
_LADDER: tuple[Remedy, ...] = ("weights", "weights_and_rate", "weights_and_selection")

STANDARD_ERRORS = 2.5
"""Standard errors that an accuracy must be off before anything is decided on it."""
KEPT_LABELS = 0.85
"""Labels are in doubt where a control agrees with less than this share of what it is right about elsewhere."""


@dataclass(frozen=True)
class FalseStart:
    """Begin a run again that cannot succeed: a rule for ``stop=``, alone or beside StallDetection.

    A run is held against a *control*: once, after its first fit, new weights are trained on validation records drawn at
    random, which are paid for already, and judged on the others. A run that is worse than that, or whose labels the
    control contradicts, is a false start; later, one that drops out of its own forecast, or whose models agree with
    each other below the control. What is done about it is as for
    :class:`~al_lightning.callbacks.stall_detection.StallDetection`.

    Args:
        accuracy: accuracy that the module logs in validation, held against the control.
        min_gap: how far below what is expected it must be, at least; noise is allowed for beside it.
        control: validation records the control is trained on, as a share of them, up to a half.
        agreement: Cohen's kappa of two rounds from which their models have settled; read where there is a stop set.
        max_restarts: restarts in a run before it gives up; a StallDetection beside it has its own, and the fewer count.

    Raises:
        ValueError: a setting out of range.

    Example:
        >>> rule = FalseStart("val_acc", min_gap=0.05)
        >>> rule(History(pool_size=1000, unlabelled=1000)) is None
        True
    """

    accuracy: str
    min_gap: float = 0.03
    control: float = 0.5
    agreement: float = 0.9
    max_restarts: int = 3

    def __post_init__(self) -> None:
        for name in ("max_restarts", "min_gap"):
            if getattr(self, name) < 0:
                raise ValueError(f"FalseStart({name}={getattr(self, name)}): at least 0.")
        if not 0 < self.control <= 0.5:
            raise ValueError(f"FalseStart(control={self.control}): a share, allowed: 0 < control <= 0.5.")
        if not -1 <= self.agreement <= 1:
            raise ValueError(f"FalseStart(agreement={self.agreement}): Cohen's kappa, allowed: -1 to 1.")

    def __call__(self, history: History) -> Reason | None:
        """Decide from the rounds since the last restart whether the run has left its start.

        Raises:
            UnknownMonitor: the last round logged no such accuracy.
            ValueError: what it logged is no accuracy.
        """
        if history.rounds and self.accuracy not in history.rounds[-1].metrics:
            raise UnknownMonitor(self.accuracy, history.rounds[-1].metrics, "FalseStart")
        return false_start(history, self.accuracy, min_delta=self.min_gap, agreement=self.agreement)

    def remedy_for(self, reason: Reason, tried: Sequence[Remedy]) -> Remedy:
        """Return what to do about a false start, given the remedies of the run so far."""
        return remedy_for(reason.numbers.get("cause", "chance"), tried)


def standard_error(share: float, records: int) -> float:
    """Of a share of records that are right; near 0 and 1 it does not vanish (Agresti & Coull, 1998)."""
    middle = (share * records + 2) / (records + 4)
    return math.sqrt(middle * (1 - middle) / (records + 4))


def below_control(accuracy: float, control: Control, *, val_labels: int, min_delta: float) -> bool:
    """Return whether a run is worse than new weights on records drawn at random, of which there were no more.

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
    """Return whether a control trained on other records firmly contradicts the labels that the run has bought.

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
    """Return where the last round's accuracy should have been at least, if it is below that; else None.

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
    ladder: tuple[Remedy, ...] = _LADDER if cause == "chance" else ("weights", "weights_and_selection")
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
        raise ValueError(f"FalseStart({monitor!r}): {wrong[0]:g} is no accuracy, allowed: 0 to 1.")
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
