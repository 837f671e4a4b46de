"""Strategies: how what the model said becomes a query. One file per method: a function, then a thin class."""

from al_lightning.query.badge import Badge, badge_picks
from al_lightning.query.base import ScoreStrategy, Strategy
from al_lightning.query.entropy import Entropy, entropy_score
from al_lightning.query.kcenter import KCenterGreedy, k_center_greedy
from al_lightning.query.least_confidence import LeastConfidence, least_confidence_score
from al_lightning.query.margin import Margin, margin_score
from al_lightning.query.novel import Novel
from al_lightning.query.random import Random, random_ids

__all__ = [
    "Badge",
    "Entropy",
    "KCenterGreedy",
    "LeastConfidence",
    "Margin",
    "Novel",
    "Random",
    "ScoreStrategy",
    "Strategy",
    "badge_picks",
    "entropy_score",
    "k_center_greedy",
    "least_confidence_score",
    "margin_score",
    "random_ids",
]
