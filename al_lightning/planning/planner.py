"""The bill before it is spent: a plan, round by round, from a project and a way of running it.

The article this library starts from (J. Prendki, "Compute-saving active learning", 2022) argues with these numbers. A
pool of 100,000 in rounds of 1,000 costs 99,000 inferences the first time:

>>> article = Project(pool=100_000, labels=5_000, epochs=1, forward=1e9)
>>> ordinary = Way(sizes=[1_000] * 5)
>>> five = plan(article, ordinary)
>>> five.rounds[1].inferred
99000

Five rounds of 1,000 that are retrained from scratch train on 15,000 records for 5,000 labels, three times as many; with
a pool of 10,000 that is already more than no active learning:

>>> five.bill.records_trained, five.bill.records_trained / five.labels
(15000, 3.0)
>>> few = Project(pool=10_000, labels=5_000, epochs=1, forward=1e9)
>>> plan(few, ordinary).bill.records_trained > label_everything(few).bill.records_trained
True

Training costs grow with the square of the labels: ten times the rounds, almost a hundred times the training.

>>> def trained(rounds):
...     return plan(article, Way(sizes=[100] * rounds)).bill.records_trained
>>> trained(5), trained(50), round(trained(50) / trained(5))
(1500, 127500, 85)

A pool of 1,000,000 that is selected down to 50,000 by thousands costs 47.8 million inferences:

>>> million = Project(pool=1_000_000, labels=50_000, epochs=1, forward=1e9)
>>> f"{plan(million, Way(sizes=[1_000] * 50)).bill.records_inferred / 1e6:.1f} million"
'47.8 million'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates.base import CandidateSelector
from al_lightning.candidates.whole import WholePool
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.course import Course, RoundAhead
from al_lightning.fit.plan import FitPolicy
from al_lightning.history import History
from al_lightning.planning.project import HOURS_A_MONTH, BadProject, Project
from al_lightning.round_size import Listed

_INFERENCE = ("score", "agree")


@dataclass(frozen=True, kw_only=True)
class Way:
    """Hold how rounds are run.

    Args:
        sizes: labels per round.
        policy: where each round's weights come from, and how long it trains; default: reset, ordinary active learning.
        candidates: which records are inferred for a query; default: all unlabelled ones.
        selects: whether the model is asked at all; without, queries are drawn at random.
        worth: of its labels beside those of ordinary active learning in the same rounds: what short fits and fewer
            candidates cost in labels, above 0.
    """

    sizes: Sequence[int]
    policy: FitPolicy = field(default_factory=lambda: WarmStart("reset"))
    candidates: CandidateSelector = field(default_factory=WholePool)
    selects: bool = True
    worth: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PlannedRound:
    """One line of the bill.

    Args:
        round: its number; the final fit has the last round's.
        labels: bought in it.
        labelled: with a label then.
        inferred: records inferred for its query, or for the stop set.
        trained: records that go forward and backward, epochs counted.
        flops: all of it.
        hours: of compute.
        label_money: price of its labels.
        compute_money: price of its hours, inference at its discount.
        other_money: fixed money, and egress.
        final: whether it is the consolidating fit.
    """

    round: int
    labels: int
    labelled: int
    inferred: int
    trained: int
    flops: float
    hours: float
    label_money: float
    compute_money: float
    other_money: float
    final: bool = False

    @property
    def money(self) -> float:
        """All of it."""
        return self.label_money + self.compute_money + self.other_money


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A round-by-round bill.

    Args:
        rounds: its lines.
        bill: the same as a run's bill, at the full price of an hour: what to hold ``result.bill`` against.
        storage_money: keeping the pool for as long as it takes.
        beside: validation labels' price.
        waiting_hours: hours in which nothing is computed.
    """

    rounds: tuple[PlannedRound, ...]
    bill: Bill = field(repr=False)
    storage_money: float
    beside: float
    waiting_hours: float

    @property
    def labels(self) -> int:
        """Labels bought from the pool."""
        return self.rounds[-1].labelled

    @property
    def label_money(self) -> float:
        """Price of all labels, those for validation included."""
        return sum(r.label_money for r in self.rounds) + self.beside

    @property
    def compute_money(self) -> float:
        """Price of the hours, inference at its discount."""
        return sum(r.compute_money for r in self.rounds)

    @property
    def other_money(self) -> float:
        """Fixed money, egress and storage."""
        return sum(r.other_money for r in self.rounds) + self.storage_money

    @property
    def money(self) -> float:
        """Everything."""
        return self.label_money + self.compute_money + self.other_money

    @property
    def hours(self) -> float:
        """Hours of compute."""
        return self.bill.seconds / 3600

    @property
    def elapsed_hours(self) -> float:
        """Hours from beginning to end: compute and waiting, one after the other."""
        return self.hours + self.waiting_hours

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        names = ("labels", "label_money", "compute_money", "other_money", "money", "hours", "elapsed_hours")
        return {
            **{name: getattr(self, name) for name in names},
            "flops": self.bill.flops,
            "rho": self.bill.rho,
            "currency": self.bill.prices.currency,
            "sizes": [r.labels for r in self.rounds if r.labels],
            "rounds": [{**vars(r), "money": r.money} for r in self.rounds],
        }


def plan(project: Project, way: Way) -> Plan:
    """The bill of running a project in a way.

    Args:
        project: what is to be learnt, at which prices.
        way: how; its sizes are what is bought, whatever ``project.labels`` says.

    Raises:
        BadProject: sizes that the pool does not hold.
    """
    if sum(way.sizes) > project.pool:
        raise BadProject(f"rounds of {sum(way.sizes):,} labels in all, pool={project.pool:,}: no more than there is.")
    measured = project.measured
    full, seconds = measured.flops["train"], measured.pace(("train",), 0.0)

    def reference(labels: int) -> Line:
        records = labels * project.epochs
        return Line(records=records, flops=records * full, seconds=records * seconds)

    course = Course(
        size=Listed(way.sizes),
        policy=way.policy,
        candidates=way.candidates,
        passes=project.passes if way.selects else 0,
        units=project.units,
    )
    bought = None if project.units == 1 else float(project.val_labels)
    start = Bill(labels=project.val_labels, label_units=bought, prices=project.prices)
    history = History(pool_size=project.pool, unlabelled=project.pool, val_labels=project.val_labels, bill=start)
    ahead = list(course.rounds(history, measured, reference))
    rounds = tuple(_priced(project, r) for r in ahead)
    waiting = project.round_hours * sum(r.labels > 0 for r in rounds)
    months = (ahead[-1].bill.seconds / 3600 + waiting) / HOURS_A_MONTH
    return Plan(
        rounds=rounds,
        bill=ahead[-1].bill,
        storage_money=project.pool * project.record_gigabytes * project.storage * months,
        beside=project.val_labels * project.prices.label,
        waiting_hours=waiting,
    )


def _priced(project: Project, ahead: RoundAhead) -> PlannedRound:
    inference, trained = ahead.line(*_INFERENCE), ahead.line("train")
    flops, seconds = (sum(getattr(entry, name) for entry in ahead.entries) for name in ("flops", "seconds"))
    paid = seconds - project.inference_discount * inference.seconds
    read = (inference.records + ahead.new) * project.record_gigabytes
    return PlannedRound(
        round=ahead.round,
        labels=ahead.new,
        labelled=ahead.labelled,
        inferred=inference.records,
        trained=trained.records,
        flops=flops,
        hours=seconds / 3600,
        label_money=ahead.new * project.units * project.prices.label,
        compute_money=paid / 3600 * project.prices.hour,
        other_money=(project.round_money if ahead.new else 0.0) + read * project.egress,
        final=ahead.final,
    )


def label_everything(project: Project) -> Plan:
    """The bill of labelling the whole pool and training once; it needs no pool beside to select from."""
    return plan(replace(project, labels=project.pool), Way(sizes=[project.pool], selects=False))
