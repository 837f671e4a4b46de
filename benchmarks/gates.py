"""Gates of WarmStart, learnt from rounds that started warm beside the same rounds from the first weights.

A gate says which rounds may start warm, from what is known before a round: the share of labels that are new, the
agreement of the last two models, rounds so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

Row = dict[str, Any]


def gaps(rows: Sequence[Row], method: str) -> list[Row]:
    """Every warm round of a method beside the same round of reset: what was known before it, and the points it lost."""
    reset = {(row["dataset"], row["seed"]): row for row in rows if row["method"] == "reset"}
    found = []
    for row in rows:
        beside = reset.get((row["dataset"], row["seed"]))
        if row["method"] != method or beside is None:
            continue
        for t in range(2, len(row["labels"])):
            known = {
                "max_new": 1 - row["labels"][t - 1] / row["labels"][t],
                "gate": row["agreements"][t - 1],
                "rounds": t,
            }
            gap = row["accuracies"][t] - beside["accuracies"][t]
            found.append({"dataset": row["dataset"], "seed": row["seed"], "gap": gap, **known})
    return found


def opened(found: Sequence[Row], feature: str, threshold: float) -> list[Row]:
    """Rounds that a gate lets start warm: few new labels, or enough agreement or rounds."""
    return [r for r in found if (r[feature] <= threshold if feature == "max_new" else r[feature] >= threshold)]


def learn_gate(found: Sequence[Row], allowed: float) -> list[Row]:
    """Per feature, the widest threshold at which warm rounds lose no more than is allowed on average, or none.

    Args:
        found: of :func:`gaps`.
        allowed: points, below 0.
    """
    learnt: list[Row] = []
    for feature in ("max_new", "gate", "rounds"):
        tried = []
        for threshold in sorted({r[feature] for r in found}):
            through = opened(found, feature, threshold)
            lost = mean(r["gap"] for r in through)
            tried.append({"threshold": threshold, "opened": len(through) / len(found), "gap": round(lost, 3)})
        fine = [t for t in tried if t["gap"] >= allowed]
        best = max(fine, key=lambda t: t["opened"], default={"threshold": None, "opened": 0.0, "gap": None})
        learnt.append({"feature": feature, **best})
    return learnt
