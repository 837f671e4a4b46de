"""The cheapest rho: how much compute to give the frugal preset, where labels and hours have a price."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from al_lightning.planning.efficiency import even, whole_sizes
from al_lightning.planning.planner import Way, plan
from al_lightning.planning.project import Project

LABEL_VALUE = ((0.7, 0.733), (1.0, 0.834), (1.5, 0.893), (2.0, 0.928))
"""What a label is worth under the frugal preset at a rho, beside one of ordinary active learning in small rounds: the
mean of letter, banking77 and Fashion-MNIST (``labels_to_match`` of ``frugal*`` and ``baseline`` in
benchmarks/results/savings-*.json)."""
TRIED = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
"""Values that are compared: those between the measured ones."""


def label_value(rho: float) -> float:
    """Return what a label is worth at a rho, between the measured values on a line."""
    at, value = zip(*LABEL_VALUE, strict=True)
    return float(np.interp(rho, at, value))


def cheapest_rho(project: Project, way: Callable[[float, Sequence[int]], Way], rounds: Callable[[float], int]) -> float:
    """Return the rho whose labels and compute cost the least together, for equally good models.

    A smaller rho trains and scores less, and its labels are worth less: as good a model takes more of them. Both are
    priced by the planner.

    Args:
        project: what is to be learnt, at which prices; its labels are those of ordinary active learning.
        way: how a rho runs rounds of these sizes.
        rounds: how many rounds a rho has.
    """

    def money(rho: float) -> float:
        taken = project.labels / project.pool  # of a pool that is labelled almost whole, little is gained by choosing
        labels = math.ceil(project.labels / (taken + (1 - taken) * label_value(rho)) - 1e-9)
        labels = min(labels, project.pool)
        sizes = whole_sizes(labels, even(min(rounds(rho), labels)))
        return plan(replace(project, labels=labels), way(rho, sizes)).money

    return min(TRIED, key=money)
