"""Runs of one configuration, which differ in their seed alone, as one line of a comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from al_lightning.report.runs import ReportedRun

_SEED = re.compile(r"(^|(?<=[,/]))seed[-_=]?\d+(,|/|$)")
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
          2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
          2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
"""Student's t, 97.5 %, for 1 to 30 degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one configuration.

    Args:
        name: what tells it from the others.
        runs: one per seed.
        settings: theirs, without the seed.
    """

    name: str
    runs: tuple[ReportedRun, ...]
    settings: dict[str, Any]


def half_width(sd: Any, n: int) -> Any:
    """Half the width of the 95 % confidence interval of a mean over ``n`` runs, by Student's t (1908).

    Args:
        sd: sample standard deviation, a number or an array.
        n: runs, 2 or more.
    """
    t = _T_975[n - 2] if n - 2 < len(_T_975) else 1.96 + 2.4 / (n - 1)
    return t * sd / np.sqrt(n)


def grouped(runs: Sequence[ReportedRun]) -> list[Group]:
    """Group runs by configuration, in the order in which configurations first appear.

    A group is named by the folders of its runs, the seed left out: ``margin`` for ``margin/seed-0`` and
    ``margin/seed-1``.
    """
    by_settings: dict[str, tuple[dict[str, Any], list[ReportedRun]]] = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key != "seed"}
        by_settings.setdefault(json.dumps(settings, sort_keys=True), (settings, []))[1].append(run)
    groups: list[Group] = []
    for settings, own in by_settings.values():
        names = list(dict.fromkeys(_SEED.sub("", run.name).strip(",/.") or "runs" for run in own))
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        same = sum(group.name.partition(" (")[0] == name for group in groups)
        groups.append(Group(name=f"{name} ({same + 1})" if same else name, runs=tuple(own), settings=settings))
    return groups


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """``{key: one value per group}`` of every setting that is not the same in all groups."""
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    values = {key: [_text(group.settings.get(key)) for group in groups] for key in keys}
    return {key: row for key, row in values.items() if len(set(row)) > 1}


def _text(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)
