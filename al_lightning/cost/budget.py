"""Budget: what may be spent."""

from __future__ import annotations

from dataclasses import dataclass

from al_lightning.cost.bill import Bill
from al_lightning.errors import UnknownFlops
from al_lightning.history import History, Reason


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Stop where a limit on what is spent is reached. Several limits: the first one reached stops the run.

    A limit is kept, not looked at afterwards. Labels: the last query is cut to fit. The others: what a round will cost
    is known from the rounds before (FLOPs per record, the plan, its labels and candidates; for seconds, the last
    round's pace and a fifth more), and no round begins that would end above the limit, the final fit included; a final
    fit that is longer than what is left is shortened, or left out. Only the first round is not foreseen: nothing has
    been measured before it. In a hand-written loop only labels are known.

    Args:
        labels: labels bought from the pool (validation labels are on the bill, not in this limit).
        flops: floating-point operations, all phases; refused where they cannot be counted.
        hours: wall-clock hours of compute, all phases.
        money: labels and compute, in the currency of the prices.
        rho: all compute / one training on the labels there are; in seconds where FLOPs cannot be counted.

    Example:
        >>> Budget(labels=400).labels_left(History(pool_size=1000, unlabelled=900, labelled=100))
        300
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

    @property
    def foresees(self) -> bool:
        """Return whether it has a limit that takes a forecast to keep."""
        return any(limit is not None for limit in (self.flops, self.hours, self.money, self.rho))

    def __call__(self, history: History) -> Reason | None:
        """Decide from the history: is a limit reached, or would the next round exceed one?"""
        spent = {"labels": (self.labels, float(history.labelled)), **self._limits(history.bill)}
        for name, (limit, value) in spent.items():
            if limit is not None and value is not None and value >= limit * (1 - 1e-9):  # 100 x 0.036 is 3.6
                return Reason("budget", f"{name}: {value:,.4g} of {limit:,.4g} spent", {name: value, "limit": limit})
        return None if history.ahead is None else self.exceeded(history.bill, history.ahead, "another round")

    def exceeded(self, bill: Bill, ahead: Bill, what: str) -> Reason | None:
        """The limit that what lies ahead would exceed.

        Args:
            bill: as it is.
            ahead: as it would be.
            what: would make it so.
        """
        now = self._limits(bill)
        for name, (limit, value) in self._limits(ahead).items():
            if limit is not None and value is not None and value > limit * (1 + 1e-9):
                spent = now[name][1]
                so_far = "" if spent is None else f" ({spent:,.4g} spent)"
                sentence = f"{name}: {what} would come to {value:,.4g} of {limit:,.4g}{so_far}"
                return Reason("budget", sentence, {name: spent, "ahead": value, "limit": limit})
        return None

    def _limits(self, bill: Bill) -> dict[str, tuple[float | None, float | None]]:
        if self.flops is not None and not bill.knows_flops:
            raise UnknownFlops(f"Budget(flops={self.flops:g})", bill.flops_unknown)
        return {
            "flops": (self.flops, bill.flops),
            "hours": (self.hours, bill.seconds / 3600),
            "money": (self.money, bill.money),
            "rho": (self.rho, bill.rho),
        }
