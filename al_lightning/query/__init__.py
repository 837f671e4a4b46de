"""Strategies: how what the model said becomes a query. One file per method: a function, then a thin class."""

from al_lightning.lazy import renamed
from al_lightning.query.badge import BADGE, badge_picks
from al_lightning.query.bald import BALD, bald_score
from al_lightning.query.base import ScoreStrategy, Strategy
from al_lightning.query.cluster_margin import ClusterMargin, cluster_turns
from al_lightning.query.entropy import Entropy, entropy_score
from al_lightning.query.information_density import InformationDensity, mean_cosine
from al_lightning.query.kcenter import KCenterGreedy, k_center_greedy
from al_lightning.query.kmeans import KMeans, nearest_to_centroids
from al_lightning.query.least_confidence import LeastConfidence, least_confidence_score
from al_lightning.query.margin import Margin, margin_score
from al_lightning.query.novel import DistanceWeighted
from al_lightning.query.per_cost import PerCost, score_per_cost
from al_lightning.query.prob_cover import ProbCover, prob_cover_picks, pure_radius
from al_lightning.query.random import Random, random_ids
from al_lightning.query.random_control import RandomControl
from al_lightning.query.stochastic import Stochastic, perturbed_scores
from al_lightning.query.stratified import Stratified
from al_lightning.query.typiclust import TypiClust, typical
from al_lightning.query.variance import Variance, variance_score
from al_lightning.query.variation_ratio import VariationRatio, variation_ratio_score

__all__ = [
    "BADGE",
    "BALD",
    "ClusterMargin",
    "DistanceWeighted",
    "Entropy",
    "InformationDensity",
    "KCenterGreedy",
    "KMeans",
    "LeastConfidence",
    "Margin",
    "PerCost",
    "ProbCover",
    "Random",
    "RandomControl",
    "ScoreStrategy",
    "Stochastic",
    "Strategy",
    "Stratified",
    "TypiClust",
    "Variance",
    "VariationRatio",
    "badge_picks",
    "bald_score",
    "cluster_turns",
    "entropy_score",
    "k_center_greedy",
    "least_confidence_score",
    "margin_score",
    "mean_cosine",
    "nearest_to_centroids",
    "perturbed_scores",
    "prob_cover_picks",
    "pure_radius",
    "random_ids",
    "score_per_cost",
    "typical",
    "variance_score",
    "variation_ratio_score",
]

__getattr__ = renamed(__name__, {"Badge": "BADGE", "Novel": "DistanceWeighted"})
