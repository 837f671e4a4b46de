"""Who answers a query."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.oracles.file_oracle import FileOracle
    from al_lightning.oracles.label_studio import LabelStudioOracle
    from al_lightning.oracles.oracle import SKIP, DatasetOracle, FunctionOracle, Oracle

__all__ = ["SKIP", "DatasetOracle", "FileOracle", "FunctionOracle", "LabelStudioOracle", "Oracle"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "oracle": "SKIP DatasetOracle FunctionOracle Oracle",
        "file_oracle": "FileOracle",
        "label_studio": "LabelStudioOracle",
    },
)
