"""Everything that planning a run finds out, as one record: printed, or given out as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from al_lightning.planning.efficiency import Efficiency
from al_lightning.planning.project import Project
from al_lightning.planning.schedule import Schedule
from al_lightning.planning.verdict import Lever, Verdict


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Everything that planning a run finds out.

    Args:
        project: what it was asked.
        about: where the project's numbers are from.
        efficiency: what labels are worth.
        schedule: the rounds: those asked for, or the cheapest.
        trade_off: fewer and more rounds.
        levers: what each saves, and may cost.
        verdict: the ways beside each other.
        run: the command that runs it.
    """

    project: Project
    about: tuple[str, ...]
    efficiency: Efficiency
    schedule: Schedule
    trade_off: list[Schedule]
    levers: list[Lever]
    verdict: Verdict
    run: str

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able data."""
        return {
            "verdict": self.verdict.to_json(),
            "plan": self.schedule.plan.to_json(),
            "rounds": self.schedule.rounds,
            "growth": self.schedule.growth,
            "trade_off": [
                {"rounds": s.rounds, **{k: v for k, v in s.plan.to_json().items() if k not in ("rounds", "sizes")}}
                for s in self.trade_off
            ],
            "levers": [vars(lever) for lever in self.levers],
            "assumptions": [a._asdict() for a in self.project.assumptions],
            "about": list(self.about),
            "efficiency": vars(self.efficiency),
            "run": self.run,
        }
