"""What a run costs, and what it may cost."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.cost.bill import Bill
    from al_lightning.cost.budget import Budget
    from al_lightning.cost.energy import CodeCarbonEnergy, NvmlEnergy
    from al_lightning.cost.prices import Prices

__all__ = ["Bill", "Budget", "CodeCarbonEnergy", "NvmlEnergy", "Prices"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "bill": "Bill",
        "budget": "Budget",
        "prices": "Prices",
        "energy": "CodeCarbonEnergy NvmlEnergy",
    },
)
