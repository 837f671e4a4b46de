"""Is active learning worth it here? Four ways to one model, the money for each, and what would change the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates.whole import WholePool
from al_lightning.planning.efficiency import REFERENCE_ROUNDS, Efficiency
from al_lightning.planning.planner import Plan, Way, label_everything, plan
from al_lightning.planning.project import Project
from al_lightning.planning.schedule import Schedule, best_schedule, schedule
from al_lightning.planning.signal import LabelSignal

EVERYTHING, RANDOM = "label everything", "random labels, one training"
ORDINARY, THIS = "ordinary active learning", "this schedule"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The cheapest of the ways.

    Args:
        choice: its name.
        plans: every way's bill; None: it would be another one, in one round.
        schedule: the rounds of "this schedule"; None likewise.
        changes: sentences: what would have to be otherwise for another way to be the cheapest.
        signal: what the labels bought so far say; None: none were looked at.
    """

    choice: str
    plans: dict[str, Plan | None]
    schedule: Schedule | None
    changes: tuple[str, ...]
    signal: LabelSignal | None = None

    @property
    def worth_it(self) -> bool:
        """Return whether it is a way that selects."""
        return self.choice in (ORDINARY, THIS)

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON-able data."""
        return {
            "choice": self.choice,
            "worth_it": self.worth_it,
            "money": {name: None if p is None else p.money for name, p in self.plans.items()},
            "labels": {name: None if p is None else p.labels for name, p in self.plans.items()},
            "changes": list(self.changes),
            "signal": None if self.signal is None else self.signal.to_json(),
        }


def verdict(project: Project, way: Way, efficiency: Efficiency, signal: LabelSignal | None = None) -> Verdict:
    """Compare the four ways to a model as good as ordinary active learning makes with ``project.labels``.

    Args:
        project: what is to be learnt, at which prices.
        way: how "this schedule" runs its rounds; their sizes are planned.
        efficiency: what labels are worth.
        signal: of the labels bought so far. Where they say nothing, none is worth more than a random one, whatever
            labels and hours cost.
    """
    nothing = signal is not None and signal.finding == "nothing"
    if nothing:
        efficiency = replace(efficiency, random=1.0)
    plans, found = _plans(project, way, efficiency)
    choice = _cheapest(plans)
    return Verdict(
        choice=choice,
        plans=plans,
        schedule=found,
        changes=() if nothing else tuple(_changes(project, way, efficiency, plans, found)),
        signal=signal,
    )


def _plans(project: Project, way: Way, efficiency: Efficiency) -> tuple[dict[str, Plan | None], Schedule | None]:
    best = best_schedule(project, way, efficiency)
    found = best if best.rounds > 1 else None  # one round is random labels
    return {**_fixed(project, efficiency), THIS: _plan(found)}, found


def _fixed(project: Project, efficiency: Efficiency) -> dict[str, Plan | None]:
    ordinary = Way(sizes=(project.labels,))
    at_random = schedule(project, ordinary, efficiency, 1)
    by_rounds = schedule(project, ordinary, efficiency, min(REFERENCE_ROUNDS, project.labels))
    return {
        EVERYTHING: label_everything(project),
        RANDOM: _plan(at_random),
        ORDINARY: _plan(by_rounds),
    }


def _plan(found: Schedule | None) -> Plan | None:
    return None if found is None else found.plan


def _cheapest(plans: dict[str, Plan | None], label: float = 1.0, hour: float = 1.0) -> str:
    """The cheapest way where labels and hours cost so many times what the plans say."""
    possible = {
        name: label * p.label_money + hour * p.compute_money + p.other_money
        for name, p in plans.items()
        if p is not None
    }
    return min(possible, key=lambda name: possible[name])


def _changes(
    project: Project, way: Way, efficiency: Efficiency, plans: dict[str, Plan | None], found: Schedule | None
) -> Iterator[str]:
    prices = project.prices
    for what, now, choose in (
        ("a label", prices.label, lambda x: _cheapest(plans, label=x)),
        ("an hour", prices.hour, lambda x: _cheapest(plans, hour=x)),
    ):
        for end, side in ((1e-6, "or less"), (1e6, "or more")):
            if now and (edge := _edge(choose, 1.0, end)) is not None:
                yield f"{what} at {now * edge[0]:.3g} {prices.currency} {side} (now {now:g}): {edge[1]}"

    def by_worth(random: float) -> str:
        otherwise = replace(efficiency, random=min(1.0, random))
        same = found and schedule(project, way, otherwise, found.rounds, found.growth)
        return _cheapest({**_fixed(project, otherwise), THIS: _plan(same)})

    for end, side in ((1.0, "or more"), (0.05, "or less")):
        if (edge := _edge(by_worth, efficiency.random, end)) is not None:
            now = efficiency.random
            yield f"a random label worth {edge[0]:.0%} {side} of one picked by a fresh model (now {now:.0%}): {edge[1]}"


def _edge(choose: Callable[[float], str], inside: float, outside: float) -> tuple[float, str] | None:
    """The first value on the way to another one at which the choice is another, and that choice; None without one."""
    now, steps = choose(inside), 24
    ratio = (outside / inside) ** (1 / steps)
    for _ in range(steps):
        if choose(inside * ratio) != now:
            break
        inside *= ratio
    else:
        return None
    outside = inside * ratio
    for _ in range(12):
        middle = (inside * outside) ** 0.5
        inside, outside = (middle, outside) if choose(middle) == now else (inside, middle)
    return outside, choose(outside)


@dataclass(frozen=True, kw_only=True)
class Lever:
    """Hold what a lever saves in a plan, and how many labels it may cost before it no longer pays.

    Args:
        name: of the lever.
        money: saved, at equal labels.
        flops: saved, likewise.
        labels: that this money would buy.
        share: those labels / the plan's.
    """

    name: str
    money: float
    flops: float
    labels: float
    share: float


def levers(project: Project, way: Way) -> list[Lever]:
    """The break-even of every lever of a way: each taken back alone, the labels and all else as they are.

    Args:
        project: what is to be learnt, at which prices.
        way: with its sizes.
    """
    now, rounds = plan(project, way), len(way.sizes)
    total = sum(way.sizes)
    without = {"warm, short fits": (project, replace(way, policy=WarmStart("reset")))}
    without["fewer records inferred"] = project, replace(way, candidates=WholePool())
    if rounds < REFERENCE_ROUNDS <= total:
        small = [total * (i + 1) // REFERENCE_ROUNDS - total * i // REFERENCE_ROUNDS for i in range(REFERENCE_ROUNDS)]
        without[f"{rounds} rounds instead of {REFERENCE_ROUNDS}"] = project, replace(way, sizes=small)
    if project.inference_discount:
        without["cheaper machines for inference"] = replace(project, inference_discount=0.0), way
    price = project.prices.label * project.units
    found = []
    for name, (as_was, otherwise) in without.items():
        other = plan(as_was, otherwise)
        money, flops = other.money - now.money, other.bill.flops - now.bill.flops
        if money > 0 or flops > 0:
            labels = money / price if price else float("inf")
            found.append(Lever(name=name, money=money, flops=flops, labels=labels, share=labels / now.labels))
    return found
