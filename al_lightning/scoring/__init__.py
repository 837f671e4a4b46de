"""Inferring candidates for a query."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.scoring.auto import AutoScorer
    from al_lightning.scoring.outputs import Outputs
    from al_lightning.scoring.question import Scorer
    from al_lightning.scoring.ray.scorer import RayScorer
    from al_lightning.scoring.ray.team import Workers
    from al_lightning.scoring.scores import Scores
    from al_lightning.scoring.trainer import score

__all__ = ["AutoScorer", "Outputs", "RayScorer", "Scorer", "Scores", "Workers", "score"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "auto": "AutoScorer",
        "outputs": "Outputs",
        "question": "Scorer",
        "ray.scorer": "RayScorer",
        "ray.team": "Workers",
        "scores": "Scores",
        "trainer": "score",
    },
)
