"""RoundPlateau: stop when more labels no longer move the metric."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import lightning.pytorch as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from al_lightning.callbacks.base import Memory, RoundCallback, stalled
from al_lightning.errors import UnknownMonitor
from al_lightning.history import History, Reason

Direction = Literal["max", "min"]


def check_mode(mode: str, who: str) -> None:
    """Raise ValueError unless mode is ``max`` or ``min``."""
    if mode not in ("max", "min"):
        raise ValueError(f"{who}(mode={mode!r}): allowed are 'max' and 'min'.")


_MORE = (
    "acc accuracy f1 auc auroc auprc ap map iou miou jaccard dice precision recall sensitivity specificity kappa mcc "
    "r2 bleu rouge psnr ssim"
)
_LESS = "loss losses err error errors mse rmse mae mape nll ppl perplexity wer cer brier ece fid"
_BETTER: dict[Direction, str] = {"max": _MORE, "min": _LESS}
"""Words in a metric's name that tell which way is better, without a doubt."""


def direction_of(monitor: str) -> Direction:
    """Tell from a metric's name which way is better.

    Example:
        >>> direction_of("val_acc"), direction_of("valLoss"), direction_of("test/error_rate")
        ('max', 'min', 'min')

    Args:
        monitor: its name, words apart by anything but letters and digits, or by a capital.

    Raises:
        ValueError: the name does not tell, or tells both.
    """
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", monitor).lower()))
    told: list[Direction] = [mode for mode, names in _BETTER.items() if words & set(names.split())]
    if len(told) != 1:
        raise ValueError(
            f"RoundPlateau({monitor!r}) needs mode=, since that name does not tell which way is better: mode='max' "
            "where more is better, as of an accuracy, mode='min' where less is, as of a loss or an error."
        )
    return told[0]


def rounds_without_progress(values: Sequence[float], *, mode: Direction, min_delta: float) -> int:
    """Return how many of the last values failed to beat the best before them by more than ``min_delta``.

    Args:
        values: one per round, oldest first; NaN never counts as progress.
        mode: whether higher or lower is better.
        min_delta: what an improvement must exceed.
    """
    sign = 1.0 if mode == "max" else -1.0
    best, since = -math.inf, 0
    for value in values:
        if sign * value > best + min_delta:
            best, since = sign * value, 0
        else:
            since += 1
    return since


def labels_for(share: float, min_delta: float) -> float:
    """Validation labels with which ``min_delta`` is two standard errors of a share of right answers."""
    return math.inf if min_delta == 0 else math.ceil(4 * share * (1 - share) / min_delta**2 - 1e-9)


@dataclass
class Values(Memory):
    """The metric after every round of an experiment, oldest first."""

    values: list[float] = field(default_factory=list)


@dataclass(eq=False)
class RoundPlateau(RoundCallback):
    """Stop the run when a metric, or the loss, has not improved for some rounds.

    As a stopping rule it goes into ``ActiveLearner(stop=[...])`` or ``Trainer(callbacks=[...])``. In a hand-written
    loop it leaves a ``reason``, and asks a pool to stop (``pool.stop_reason``); a loop over plain loaders, which nobody
    else can end, looks at it. A fit that StallDetection aborted is no round.

    Example:
        >>> from torch.utils.data import DataLoader, Subset
        >>> from al_lightning.cli.problems import Classifier, digits
        >>> train, val, _ = digits(seed=0)
        >>> model, plateau = Classifier(in_features=64, classes=10), RoundPlateau("val_acc", mode="max", patience=1)
        >>> off = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"]
        >>> for labels in (50, 100, 200, 400):
        ...     trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[plateau], **dict.fromkeys(off, False))
        ...     trainer.fit(model, DataLoader(Subset(train, range(labels)), 16), DataLoader(val, 120))
        ...     if plateau.reason:
        ...         break

    Args:
        monitor: name the module logs, for example ``"val_acc"``.
        mode: ``"max"`` where more is better, ``"min"`` where less is; default: what the name tells (``acc``, ``f1``,
            ``auroc``, ...; ``loss``, ``error``, ``mse``, ...).
        min_delta: an improvement must exceed this, in the metric's own unit.
        patience: rounds without improvement before the run stops.

    Warns:
        UserWarning: ``min_delta`` is below two standard errors of the metric, if that is a share of right answers
            (better high, and between 0 and 1): the rule would stop, or go on, by chance. Said at the first round
            without progress, with the number of validation labels that would support it.
    """

    monitor: str
    mode: Direction | None = None
    min_delta: float = 0.0
    patience: int = 2

    memory_type: ClassVar[type[Memory]] = Values
    _direction: Direction = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.min_delta < 0:
            raise ValueError(f"RoundPlateau(min_delta={self.min_delta}): 0 or more.")
        if self.patience < 1:
            raise ValueError(f"RoundPlateau(patience={self.patience}): rounds, at least 1.")
        if self.mode is not None:
            check_mode(self.mode, "RoundPlateau")
        self._direction = self.mode or direction_of(self.monitor)

    def __call__(self, history: History) -> Reason | None:
        """Decide from the history; raises UnknownMonitor if no round logged the metric."""
        if history.rounds and self.monitor not in history.rounds[-1].metrics:
            raise UnknownMonitor(self.monitor, history.rounds[-1].metrics, "RoundPlateau")
        return self._decide(history.values(self.monitor), history.val_labels)

    def _decide(self, values: Sequence[float], val_labels: int) -> Reason | None:
        self._warn(values, val_labels)
        since = rounds_without_progress(values, mode=self._direction, min_delta=self.min_delta)
        if since < self.patience:
            return None
        sentence = (
            f"{self.monitor} has not improved by more than {self.min_delta:g} for {since} rounds (now {values[-1]:.4g})"
        )
        return Reason("plateau", sentence, {"monitor": self.monitor, "values": list(values), "rounds": since})

    def _warn(self, values: Sequence[float], val_labels: int) -> None:
        def missed(values: Sequence[float]) -> bool:
            return rounds_without_progress(values, mode=self._direction, min_delta=self.min_delta) > 0

        known = [value for value in values if math.isfinite(value)]
        if self._direction == "min" or not val_labels or not known or not all(0 <= value <= 1 for value in known):
            return  # of a loss, its mean alone does not tell the standard error
        if not missed(values) or any(missed(values[:end]) for end in range(1, len(values))):
            return
        share = (known[-1] * val_labels + 1) / (val_labels + 2)  # with few labels, an accuracy of 1 is no certainty
        two, needed = 2 * math.sqrt(share * (1 - share) / val_labels), labels_for(share, self.min_delta)
        if self.min_delta < two and needed > val_labels:
            supported = f"{needed:,.0f} would support it" if math.isfinite(needed) else "no number would support it"
            rank_zero_warn(
                f"RoundPlateau(min_delta={self.min_delta:g}): two standard errors of {self.monitor}={known[-1]:.3g} "
                f"are {two:.2g} with {val_labels:,} validation labels, and {supported}. Rounds may look flat by "
                f"chance: raise min_delta to {two:.2g}, or validate on more.",
                stacklevel=3,
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """In a hand-written loop: look at this round's metric, leave a reason, and ask the pool to stop."""
        if stalled(trainer):
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.monitor not in metrics:
            raise UnknownMonitor(self.monitor, metrics, "RoundPlateau")
        values, pool = self._memory.values, trainer.datamodule  # type: ignore[attr-defined]
        values.append(trainer.strategy.broadcast(metrics[self.monitor]))  # so that all ranks decide alike
        self.reason = None
        reason = self._decide(values, getattr(pool, "val_labels", 0))
        if reason is None:
            return
        self._decided(reason)
        if hasattr(pool, "request_stop"):
            pool.request_stop(reason)
