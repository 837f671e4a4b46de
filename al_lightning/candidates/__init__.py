"""Candidate selectors: features and past scores decide which records are worth inferring. None sees the model."""

from al_lightning.candidates.base import CandidateSelector, State
from al_lightning.candidates.every_k import EveryK
from al_lightning.candidates.random_share import RandomShare
from al_lightning.candidates.representatives import Representatives, cluster_worth, draw_from_clusters
from al_lightning.candidates.seals import Seals, neighbours_of
from al_lightning.candidates.shard_share import ShardShare, draw_from_shards
from al_lightning.candidates.staggered import Staggered
from al_lightning.candidates.whole import WholePool

__all__ = [
    "CandidateSelector",
    "EveryK",
    "RandomShare",
    "Representatives",
    "Seals",
    "ShardShare",
    "Staggered",
    "State",
    "WholePool",
    "cluster_worth",
    "draw_from_clusters",
    "draw_from_shards",
    "neighbours_of",
]
