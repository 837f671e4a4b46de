"""Budget: what may be spent."""

from __future__ import annotations

from dataclasses import dataclass

from al_lightning.history import History, Reason


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A stopping rule on what has been spent. Several limits: the first one reached stops the run.

    Labels are never exceeded: the last query is cut to fit. The other limits are looked at after every fit, so what a
    round costs may come on top.

    Args:
        labels: labels bought from the pool (validation labels are on the bill, not in this limit).
        flops: floating-point operations, all phases.
        hours: wall-clock hours of compute, all phases.
        money: labels and compute, in the currency of the prices.
        rho: all compute / one training on the labels there are.
    """

    labels: int | None = None
    flops: float | None = None
    hours: float | None = None
    money: float | None = None
    rho: float | None = None

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("labels", "flops", "hours", "money", "rho")}
        if all(limit is None for limit in limits.values()):
            raise ValueError(f"Budget() limits nothing: give at least one of {', '.join(limits)}.")
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"Budget({name}={limit}): a limit is a number above 0.")

    def labels_left(self, history: History) -> int:
        """Labels that may still be bought: all unlabelled records without a limit on labels."""
        return history.unlabelled if self.labels is None else max(0, self.labels - history.labelled)

    def __call__(self, history: History) -> Reason | None:
        """Decide from the history."""
        bill = history.bill
        spent = {
            "labels": (self.labels, history.labelled),
            "flops": (self.flops, bill.flops),
            "hours": (self.hours, bill.seconds / 3600),
            "money": (self.money, bill.money),
            "rho": (self.rho, bill.rho),
        }
        for name, (limit, value) in spent.items():
            if limit is not None and value is not None and value >= limit * (1 - 1e-9):  # 100 x 0.036 is 3.6
                return Reason("budget", f"{name}: {value:,.4g} of {limit:,.4g} spent", {name: value, "limit": limit})
        return None
