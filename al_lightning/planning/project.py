"""A project: what is to be learnt, and at which prices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from al_lightning.cost.ahead import Measured
from al_lightning.cost.prices import Prices
from al_lightning.errors import ActiveLearningError
from al_lightning.planning.architectures import BACKWARD

HOURS_A_MONTH = 730.0


class BadProject(ActiveLearningError, ValueError):
    """A number that a plan cannot be made from."""


class Assumption(NamedTuple):
    """A price nobody gave, with its source."""

    name: str
    value: float
    unit: str
    source: str


_DEFAULTS = {
    "prices.label": (
        "USD a label",
        "three answers of 0.012, SageMaker Ground Truth's price for classifying with MTurk",
    ),
    "prices.hour": ("USD an hour", "AWS on demand, g4dn.xlarge: one NVIDIA T4"),
    "flops_per_second": ("FLOP/s", "40 % of the 8.1 TFLOP/s of an NVIDIA T4 in single precision (data sheet); a guess"),
    "storage": ("USD a gigabyte and month", "AWS S3 Standard, us-east-1"),
    "egress": ("USD a gigabyte", "AWS, out to the internet, the first 10 TB a month"),
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """Everything a bill depends on, except how the rounds are run.

    Args:
        pool: records that could be labelled.
        labels: labels to buy; where ways are compared, what ordinary active learning in small rounds would buy, which
            says how good the model is to be.
        epochs: of one training, the declared recipe.
        forward: FLOPs of inferring a record, 2 per multiply-add.
        train: FLOPs of a record's forward and backward pass; default: three times ``forward``.
        forward_seconds: seconds of inferring a record, measured; default: by ``flops_per_second``.
        train_seconds: seconds of a record's forward and backward pass, likewise.
        passes: stochastic inferences per score.
        val_labels: validation records, whose labels are bought too.
        validated_per_epoch: records that are validated in every epoch.
        validated_per_fit: records that are validated in every fit besides.
        prices: of a label and of an hour of the machine.
        flops_per_second: what the machine of that hour achieves.
        inference_discount: share of the hour's price that inference saves (spare or preemptible machines), 0 to 1.
        annotators: answers bought per record, each at ``prices.label``.
        control: share of records that are answered once more for quality control, 0 to 1.
        round_money: fixed money per round: setting up a labelling job, a meeting.
        round_hours: fixed hours per round in which nothing is computed: waiting for people.
        record_gigabytes: size of a record.
        storage: price of a gigabyte kept for a month, for as long as the project takes.
        egress: price of a gigabyte read out of the store: every record inferred, and every record labelled once.

    Raises:
        BadProject: a number that is none of these.
    """

    pool: int
    labels: int
    epochs: int
    forward: float
    train: float | None = None
    forward_seconds: float | None = None
    train_seconds: float | None = None
    passes: int = 1
    val_labels: int = 0
    validated_per_epoch: int = 0
    validated_per_fit: int = 0
    prices: Prices = field(default_factory=Prices)
    flops_per_second: float = 3.2e12
    inference_discount: float = 0.0
    annotators: int = 1
    control: float = 0.0
    round_money: float = 0.0
    round_hours: float = 0.0
    record_gigabytes: float = 0.0
    storage: float = 0.023
    egress: float = 0.09

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise BadProject(problem)
        if self.train is None:
            object.__setattr__(self, "train", (1 + BACKWARD) * self.forward)
        if self.train < self.forward:  # type: ignore[operator]
            raise BadProject(
                f"train={self.train:g} FLOPs a record, forward={self.forward:g}: train is forward and backward "
                "together, allowed: forward or more; usually three times as much."
            )

    def _problems(self) -> Iterator[str]:
        whole = {"pool": 1, "labels": 1, "epochs": 1, "passes": 1, "annotators": 1, "val_labels": 0}
        whole |= {"validated_per_epoch": 0, "validated_per_fit": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                yield f"{name}={value!r}: a whole number, allowed: {least} or more."
        if self.labels > self.pool:
            yield f"labels={self.labels:,}, pool={self.pool:,}: no more can be labelled than there is."
        for name in ("forward", "train", "flops_per_second"):
            value = getattr(self, name)
            if value is None and name == "train":
                continue
            if not _number(value) or not 0 < value < math.inf:
                yield f"{name}={value!r}: a number above 0."
            if value < 100:
                yield (
                    f"{name}={value:g}: that is in plain FLOP{'/s' if 'second' in name else 's a record'}, "
                    f"not in GFLOP or TFLOP; 11.5 GFLOP are 11.5e9. Allowed: 100 or more."
                )
        for name in ("inference_discount", "control"):
            value = getattr(self, name)
            if not _number(value) or not 0 <= value <= 1:
                yield f"{name}={value!r}: a share, allowed: 0 to 1; 30 % is 0.3."
        for name in ("forward_seconds", "train_seconds"):
            value = getattr(self, name)
            if value is not None and (not _number(value) or not 0 <= value < math.inf):
                yield f"{name}={value!r}: seconds a record, allowed: 0 or more, or None to go by flops_per_second."
        for name in ("round_money", "round_hours", "record_gigabytes", "storage", "egress"):
            value = getattr(self, name)
            if not _number(value) or not 0 <= value < math.inf:
                yield f"{name}={value!r}: allowed: a number, 0 or more."

    @property
    def units(self) -> float:
        """Answers bought per label."""
        return self.annotators + self.control

    @property
    def measured(self) -> Measured:
        """Return what a record costs, as the ledger would have it."""
        assert self.train is not None

        def cost(flops: float, seconds: float | None) -> tuple[float, float]:
            return flops, flops / self.flops_per_second if seconds is None else seconds

        return Measured.assumed(
            epochs=self.epochs,
            validated_per_epoch=self.validated_per_epoch,
            validated_per_fit=self.validated_per_fit,
            train=cost(self.train, self.train_seconds),
            forward=cost(self.forward, self.forward_seconds),
        )

    @property
    def assumptions(self) -> list[Assumption]:
        """The defaults that this project's bills rest on, and where they are from."""
        used = {"prices.label": True, "prices.hour": True}
        used["flops_per_second"] = self.forward_seconds is None or self.train_seconds is None
        used["storage"] = used["egress"] = self.record_gigabytes > 0
        here = {
            "prices.label": (self.prices.label, Prices().label),
            "prices.hour": (self.prices.hour, Prices().hour),
            **{name: (getattr(self, name), getattr(type(self), name)) for name in list(_DEFAULTS)[2:]},
        }
        return [
            Assumption(name, here[name][0], *_DEFAULTS[name])
            for name in _DEFAULTS
            if used[name] and here[name][0] == here[name][1]
        ]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
