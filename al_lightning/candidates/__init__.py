"""Candidate selectors: features and past scores decide which records are worth inferring. None sees the model."""

from al_lightning.candidates.base import CandidateSelector, State
from al_lightning.candidates.every_k import EveryK
from al_lightning.candidates.random_share import RandomSubset
from al_lightning.candidates.representatives import Representatives, cluster_worth, draw_from_clusters
from al_lightning.candidates.seals import SEALS, neighbours_of
from al_lightning.candidates.shard_share import ShardShare, draw_from_shards
from al_lightning.candidates.staggered import RotatingSubset
from al_lightning.candidates.whole import WholePool
from al_lightning.lazy import renamed

__all__ = [
    "SEALS",
    "CandidateSelector",
    "EveryK",
    "RandomSubset",
    "Representatives",
    "RotatingSubset",
    "ShardShare",
    "State",
    "WholePool",
    "cluster_worth",
    "draw_from_clusters",
    "draw_from_shards",
    "neighbours_of",
]

__getattr__ = renamed(__name__, {"RandomShare": "RandomSubset", "Seals": "SEALS", "Staggered": "RotatingSubset"})
