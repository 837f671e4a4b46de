"""How one fit is made, from plan to outcome."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.fit.plan import FitPlan, FitPolicy
    from al_lightning.fit.trainer import fresh_trainer

__all__ = ["FitPlan", "FitPolicy", "fresh_trainer"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "plan": "FitPlan FitPolicy",
        "trainer": "fresh_trainer",
    },
)
