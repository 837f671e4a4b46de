"""Every strategy and selector on features on every scale; prints how many were tried. Ends where FAISS would end it."""

from __future__ import annotations

import warnings

import numpy as np

from al_lightning.candidates import SEALS, Representatives
from al_lightning.errors import ActiveLearningError
from al_lightning.query import (
    ClusterMargin,
    DistanceWeighted,
    Entropy,
    InformationDensity,
    KCenterGreedy,
    KMeans,
    Margin,
    ProbCover,
    Stratified,
    TypiClust,
)
from tests.conftest import view_of

STRATEGIES = [
    KMeans(),
    KCenterGreedy(),
    TypiClust(),
    ProbCover(),
    ProbCover(delta=1.0),
    Stratified(),
    ClusterMargin(),
    DistanceWeighted(Margin()),
    DistanceWeighted(Margin(), dims=2),
    InformationDensity(Entropy()),
]
SELECTORS = [Representatives(0.3), SEALS(neighbours=3)]
X = np.random.default_rng(0).normal(size=(80, 5))
SCORES = {"score": np.random.default_rng(1).random(80)[10:].astype(np.float32)}
BASE = {"float16": 0, "float32": 0, "float64": 0, "int64": 60}
POWERS = [-140, -45, 0, 50, 60, 64, 100, 127, 170, 900]


def features_of(dtype: str, power: int) -> np.ndarray | None:
    """Powers of two, so that nothing but the range differs; None where the type does not hold them."""
    with np.errstate(all="ignore"):
        scaled = X * 2.0**power
        made = scaled.astype(dtype)
    kept = np.isfinite(made.astype(float)).all() and np.allclose(made.astype(float), scaled, rtol=0.5, atol=0)
    return made if kept else None


def outcome(part: object, features: np.ndarray) -> list[int] | str:
    """What it picks, or the library's error."""
    view, rng = view_of(80, labelled=range(10), features=features), np.random.default_rng(3)
    try:
        if isinstance(part, Representatives | SEALS):
            return part.propose(view=view, size=6, rng=rng, state={})[0].tolist()
        ids = view.unlabelled
        return part.pick(size=6, view=view, ids=ids, arrays=SCORES if part.columns else {}, rng=rng).tolist()
    except ActiveLearningError as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Hold each against the same part on the same features around one."""
    warnings.simplefilter("error")
    tried = 0
    for dtype in BASE:
        plain = features_of(dtype, BASE[dtype] and 40)
        for power in POWERS:
            features = features_of(dtype, power)
            if features is None:
                continue
            for part in [*STRATEGIES, *SELECTORS]:
                found = outcome(part, features)
                tried += 1
                said = isinstance(found, str)
                assert not said or "size" in found or "ProbCover" in found, (dtype, power, part, found)
                absolute = isinstance(part, ProbCover) and part.delta is not None  # a radius is in the features' unit
                if -45 <= power <= 50 and not absolute and dtype.startswith("float"):
                    assert found == outcome(part, plain), (dtype, power, part, found)
    print(tried)


if __name__ == "__main__":
    main()
