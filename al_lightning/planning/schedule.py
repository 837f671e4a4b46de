"""The cheapest rounds: how many, and how fast they grow, under what larger rounds cost in labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from al_lightning.planning.efficiency import Efficiency, growing, whole_sizes
from al_lightning.planning.planner import Plan, Way, plan
from al_lightning.planning.project import Project

MOST_ROUNDS = 50
"""Rounds that are looked at; more change little, and somebody has to run them."""
MOST_GROWTH = 2.0
"""Growth that is looked at: labels of a round / those of the one before. No benchmark has run more."""
LEAST_FIRST = 0.02
"""Share of the labels that a first round has at least: a model of fewer picks by chance, whatever its age."""
_NUMBERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 28, 40, MOST_ROUNDS)
_GROWTHS = (1.0, 1.15, 1.4, MOST_GROWTH)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Rounds, and what they come to.

    Args:
        rounds: how many.
        growth: labels of a round / those of the one before.
        way: how it is run.
        plan: its bill.
    """

    rounds: int
    growth: float
    way: Way = field(repr=False)
    plan: Plan = field(repr=False)

    @property
    def money(self) -> float:
        """All-in."""
        return self.plan.money


def schedule(project: Project, way: Way, efficiency: Efficiency, rounds: int, growth: float = 1.0) -> Schedule | None:
    """A schedule that reaches what ``project.labels`` labels reach in small rounds; None: fewer than rounds.

    Args:
        project: what is to be learnt.
        way: everything but the sizes.
        efficiency: what larger rounds cost in labels.
        rounds: how many.
        growth: labels of a round / those of the one before.
    """
    shares = growing(rounds, growth)
    way = way if rounds > 1 else Way(sizes=(), selects=False)  # one training on random labels
    labels = efficiency.needed(project.labels, shares, way.worth, project.labels / project.pool)
    if labels < rounds:
        return None
    way = replace(way, sizes=whole_sizes(labels, shares))
    return Schedule(rounds=rounds, growth=growth, way=way, plan=plan(project, way))


def trade_off(project: Project, way: Way, efficiency: Efficiency, growth: float = 1.0) -> list[Schedule]:
    """Schedules of ever more rounds: compute against labels."""
    found = (schedule(project, way, efficiency, rounds, growth) for rounds in _NUMBERS)
    return [s for s in found if s is not None]


def best_schedule(project: Project, way: Way, efficiency: Efficiency) -> Schedule:
    """The cheapest schedule: a coarse grid, then steps that halve."""
    known: dict[tuple[int, float], Schedule | None] = {}

    def at(rounds: int, growth: float) -> float:
        key = rounds, round(growth, 4)
        if growing(*key)[0] < LEAST_FIRST - 1e-9:
            return math.inf
        if key not in known:
            known[key] = schedule(project, way, efficiency, *key)
        found = known[key]
        return math.inf if found is None else found.money

    best = min(((n, g) for n in _NUMBERS for g in _GROWTHS if n > 1 or g == 1), key=lambda x: at(*x))
    step, stretch = max(1, best[0] // 4), 1.2
    while step > 1 or stretch > 1.01:
        n, g = best
        numbers = [max(1, min(MOST_ROUNDS, n + i)) for i in (-step, 0, step)]
        growths = [max(1.0, min(MOST_GROWTH, g * s)) for s in (1 / stretch, 1, stretch)]
        around = [*((i, g) for i in numbers), *((n, s) for s in growths)]
        better = min(around, key=lambda x: at(*x))
        if at(*better) < at(*best):
            best = better
        else:
            step, stretch = max(1, step // 2), math.sqrt(stretch)
    found = known[best[0], round(best[1], 4)]
    assert found is not None
    return found
