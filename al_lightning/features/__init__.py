"""Features: one vector per record, and the clusters they form."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.features.source import Layer, RawInputs

__all__ = ["Layer", "RawInputs"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "source": "Layer RawInputs",
    },
)
