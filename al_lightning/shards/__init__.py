"""Records in files on shared storage."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.shards.parquet import ParquetShards
    from al_lightning.shards.tar import TarShards

__all__ = ["ParquetShards", "TarShards"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "parquet": "ParquetShards",
        "tar": "TarShards",
    },
)
