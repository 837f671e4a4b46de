"""The bill: the ledger, priced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from al_lightning.cost.ledger import PHASES, Entry
from al_lightning.cost.prices import Prices


@dataclass(frozen=True, kw_only=True)
class Line:
    """All work of one phase."""

    records: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    bytes: int = 0

    def __add__(self, other: Line | Entry) -> Line:
        return Line(
            records=self.records + other.records,
            flops=self.flops + other.flops,
            seconds=self.seconds + other.seconds,
            bytes=self.bytes + other.bytes,
        )


def _added(lines: Mapping[str, Line], entries: Iterable[Entry]) -> dict[str, Line]:
    added = dict(lines)
    for entry in entries:
        added[entry.phase] = added.get(entry.phase, Line()) + entry
    return added


@dataclass(frozen=True, kw_only=True)
class Bill:
    """Hold what a run cost, all-in.

    Args:
        lines: work by phase.
        labels: labels bought, those of the validation data included.
        label_units: what they cost together in multiples of ``Prices.label``; None: one each.
        reference: one training from fresh weights on the final labels with the declared recipe, the denominator of
            rho; None while it is unknown (nothing trained yet, or a Trainer without an epoch or step limit).
        prices: what the labels and the hours are priced at.
        kwh: energy by phase, where it was measured; what a fit validates is in its ``train``.
        flops_unknown: why FLOPs could not be counted, by kind of pass; they are NaN then, and rho is in seconds.

    Example:
        >>> bill = Bill(labels=100)
        >>> round(bill.label_money, 2)
        3.6
    """

    lines: dict[str, Line] = field(default_factory=dict)
    labels: int = 0
    label_units: float | None = None
    reference: Line | None = None
    prices: Prices = field(default_factory=Prices)
    kwh: Mapping[str, float] = field(default_factory=dict)
    flops_unknown: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        entries: Iterable[Entry],
        *,
        labels: int,
        prices: Prices,
        label_units: float | None = None,
        reference: Line | None = None,
        kwh: Mapping[str, float] | None = None,
        flops_unknown: Mapping[str, str] | None = None,
    ) -> Bill:
        """Add up ledger entries."""
        lines = _added({}, entries)
        ordered = {phase: lines[phase] for phase in PHASES if phase in lines}
        return cls(
            lines=ordered,
            labels=labels,
            label_units=label_units,
            reference=reference,
            prices=prices,
            kwh=dict(kwh or {}),
            flops_unknown=dict(flops_unknown or {}),
        )

    def plus(self, entries: Iterable[Entry], *, labels: int = 0, units: float = 1.0, reference: Line | None) -> Bill:
        """The bill after more work and more labels.

        Args:
            entries: the work.
            labels: how many more.
            units: what each of them costs, in multiples of ``Prices.label``.
            reference: of all labels then.
        """
        before = self.labels if self.label_units is None else self.label_units
        own = self.label_units is None and units == 1
        return replace(
            self,
            lines=_added(self.lines, entries),
            labels=self.labels + labels,
            label_units=None if own else before + units * labels,
            reference=reference,
        )

    def line(self, phase: str) -> Line:
        """All work of that phase; nothing where there was none."""
        return self.lines.get(phase, Line())

    @property
    def total(self) -> Line:
        """All phases together."""
        return sum(self.lines.values(), Line())

    @property
    def flops(self) -> float:
        """All floating-point operations; NaN where some could not be counted."""
        return self.total.flops

    @property
    def knows_flops(self) -> bool:
        """Return whether FLOPs, those of the reference included, could be counted."""
        return not math.isnan(self.flops + (self.reference.flops if self.reference else 0.0))

    @property
    def seconds(self) -> float:
        """All wall-clock seconds."""
        return self.total.seconds

    @property
    def bytes(self) -> int:
        """Bytes read of the records' files; 0 where the dataset does not count them."""
        return self.total.bytes

    @property
    def records_trained(self) -> int:
        """Forward-and-backward passes, those of aborted and interrupted fits included."""
        return sum(self.lines[p].records for p in ("train", "aborted", "lost") if p in self.lines)

    @property
    def records_inferred(self) -> int:
        """Forward passes for selection: scoring, embedding and the stop set."""
        return sum(self.lines[p].records for p in ("score", "embed", "agree") if p in self.lines)

    @property
    def undisturbed(self) -> Bill:
        """The bill of a run that was never interrupted: what is planned from it comes out the same after a kill."""
        return replace(self, lines={phase: line for phase, line in self.lines.items() if phase != "lost"})

    @property
    def label_money(self) -> float:
        """Price of the labels."""
        return (self.labels if self.label_units is None else self.label_units) * self.prices.label

    @property
    def compute_money(self) -> float:
        """Price of the hours."""
        return self.seconds / 3600 * self.prices.hour

    @property
    def money(self) -> float:
        """Labels and compute."""
        return self.label_money + self.compute_money

    @property
    def rho(self) -> float | None:
        """All FLOPs spent / FLOPs of one training on the final labels, in seconds where FLOPs could not be counted.

        None without a reference.
        """
        if not self.knows_flops:
            return self.rho_seconds
        return self.flops / self.reference.flops if self.reference and self.reference.flops else None

    @property
    def rho_seconds(self) -> float | None:
        """The same in wall-clock seconds."""
        return self.seconds / self.reference.seconds if self.reference and self.reference.seconds else None

    def to_json(self) -> dict[str, Any]:
        """The bill as JSON-able data, derived numbers included."""
        return {
            "labels": self.labels,
            "label_units": self.labels if self.label_units is None else self.label_units,
            "records_trained": self.records_trained,
            "records_inferred": self.records_inferred,
            "flops": _known(self.flops),
            "seconds": self.seconds,
            "label_money": self.label_money,
            "compute_money": self.compute_money,
            "money": self.money,
            "currency": self.prices.currency,
            "prices": {"label": self.prices.label, "hour": self.prices.hour},
            "rho": self.rho,
            "rho_seconds": self.rho_seconds,
            "flops_reference": _known(self.reference.flops) if self.reference else None,
            "seconds_reference": self.reference.seconds if self.reference else None,
            **({"kwh": sum(self.kwh.values())} if self.kwh else {}),
            **({"bytes": self.bytes} if self.bytes else {}),
            **({"flops_unknown": dict(self.flops_unknown)} if self.flops_unknown else {}),
            "phases": {
                phase: {
                    **{"records": line.records, "flops": _known(line.flops), "seconds": line.seconds},
                    **({"kwh": self.kwh[phase]} if phase in self.kwh else {}),
                    **({"bytes": line.bytes} if self.bytes else {}),
                }
                for phase, line in self.lines.items()
            },
        }

    def _bytes_column(self) -> list[str]:
        return ["bytes read", *(f"{line.bytes:,}" for line in self.lines.values()), f"{self.bytes:,}"]

    def __str__(self) -> str:
        rows = [f"{'phase':<10}{'records':>12}{'FLOPs':>12}{'seconds':>10}"]
        lines = {**self.lines, "all": self.total}
        rows += [f"{p:<10}{x.records:>12,}{_flops(x.flops):>12}{x.seconds:>10.2f}" for p, x in lines.items()]
        if self.bytes:
            rows = [f"{row}{size:>18}" for row, size in zip(rows, self._bytes_column(), strict=True)]
        if self.kwh:
            parts = ", ".join(f"{phase} {kwh:.3g}" for phase, kwh in self.kwh.items())
            rows += [f"{sum(self.kwh.values()):.3g} kWh measured ({parts})"]
        units = "" if self.label_units is None else f" at their own costs ({self.label_units:,.1f} in all)"
        rows += [
            f"{self.labels:,} labels{units} {self.label_money:.2f} + compute {self.compute_money:.4f} = "
            f"{self.money:.2f} {self.prices.currency} (at {self.prices})"
        ]
        unknown = "unknown: no recipe to refer to, pass fit(..., recipe_epochs=...)"
        if not any(phase in self.lines for phase in ("train", "aborted", "lost")):
            unknown = "unknown before the first fit"
        rho = unknown if self.rho is None else f"{self.rho:.2f}"
        in_seconds = "" if self.knows_flops or self.rho is None else ", in seconds"
        why = [f"FLOPs of {kind!r} are unknown: {reason}" for kind, reason in self.flops_unknown.items()]
        return "\n".join([*rows, *why, f"rho = {rho}{in_seconds}"])


def _flops(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
