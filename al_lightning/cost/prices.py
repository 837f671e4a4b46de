"""What labels and compute cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Set the prices of a label and of an hour of the machine that trains and scores.

    Args:
        label: price of one label, or of one unit where ``PoolDataModule(label_costs=...)`` says that labels differ. The
            default, 0.036, is three annotators at 0.012 USD each, SageMaker Ground Truth's public price for image or
            text classification with Mechanical Turk (2026).
        hour: price of one hour of compute. The default, 0.526, is AWS's on-demand price of a g4dn.xlarge in USD.
        currency: what the two are in.

    Raises:
        ValueError: a negative or missing price.

    Example:
        >>> print(Prices(label=0.5, hour=2))
        0.5 USD a label, 2 USD a compute hour
    """

    label: float = 0.036
    hour: float = 0.526
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name, value in (("label", self.label), ("hour", self.hour)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"Prices({name}={value!r}): a price is a number of {self.currency}, 0 or more.")

    def __str__(self) -> str:
        return f"{self.label:g} {self.currency} a label, {self.hour:g} {self.currency} a compute hour"
