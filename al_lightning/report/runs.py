"""Runs as a report needs them: what their folders hold, and nothing in it taken on trust."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.prices import Prices
from al_lightning.errors import ActiveLearningError
from al_lightning.history import RoundRecord
from al_lightning.oracles.label_cell import Language, language_of
from al_lightning.oracles.oracle import SKIP
from al_lightning.run.describe import flatten
from al_lightning.run.store import Saved

Point = dict[str, Any]
"""A trained round on a curve: ``labels``, ``accuracy``, ``flops``, ``seconds``, ``money`` and ``final``."""


def _losses_last(names: Iterable[Iterable[str]]) -> list[str]:
    return sorted(dict.fromkeys(chain.from_iterable(names)), key=lambda name: "loss" in name)


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """One run, read from its folder.

    Args:
        folder: the run folder.
        saved: what its database holds.
        name: what it is called among others.
        brought: whether its first query are labels that the user had before the run.
        reason_rounds: the round of each of its reasons.
    """

    folder: Path
    saved: Saved
    name: str
    brought: bool = False
    reason_rounds: tuple[int, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Return what must not change between two starts of the run, as data."""
        config: dict[str, Any] = self.saved.meta["config"]
        return config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """``{"query.class": "Margin", ...}``: the configuration and the stopping rules, as far as they say anything."""
        rules = self.saved.meta.get("stop") or []
        flat = flatten({**self.config, "stop": {str(i): rule for i, rule in enumerate(rules)}})
        return {key: value for key, value in flat.items() if value is not None}

    @property
    def task(self) -> str:
        """Return what the model's logits mean."""
        return str(self.config["task"])

    @property
    def pool_size(self) -> int:
        """Records in the pool when the run last looked."""
        return int(self.saved.meta["fingerprint"]["size"])

    @cached_property
    def trained(self) -> tuple[RoundRecord, ...]:
        """Every round that was trained, the final fit last."""
        final = self.saved.final
        return (*self.saved.rounds, *([] if final is None else [final]))

    @cached_property
    def labels(self) -> dict[int, Any]:
        """``{id: label}`` in the order of labelling; refused records are left out."""
        return {i: value for i, value in self.saved.answers.items() if value is not SKIP}

    @property
    def refused(self) -> int:
        """Records that nobody wanted to label."""
        return len(self.saved.answers) - len(self.labels)

    @cached_property
    def language(self) -> Language | None:
        """Return how its labels are written; None for tasks whose labels fit no cell."""
        classes = (self.saved.meta.get("labelling") or {}).get("classes")
        return language_of(self.task, classes, self.labels.values())

    # ---- what it cost ------------------------------------------------------------------------------------------

    @property
    def prices(self) -> Prices | None:
        """Return what the run was priced at; None where a version before run folders had prices wrote it."""
        noted = self.saved.meta.get("pricing")
        return None if noted is None else Prices(**{name: noted[name] for name in ("label", "hour", "currency")})

    @cached_property
    def bill(self) -> Bill:
        """The whole ledger, priced as the run was; without prices its money means nothing."""
        noted = self.saved.meta.get("pricing") or {}
        beside = int(noted.get("val_labels", 0)) + self.saved.second_answers
        bill = Bill.of(
            self.saved.entries,
            labels=len(self.labels) + beside,
            prices=self.prices or Prices(),
            reference=self._reference,
            kwh=self.saved.meta.get("kwh"),
        )
        if not noted.get("label_costs") or not self.trained or not bill.prices.label:
            return bill
        paid = self.label_money(self.trained[-1]) / bill.prices.label
        return Bill.of(
            self.saved.entries,
            labels=bill.labels,
            label_units=paid,
            prices=bill.prices,
            reference=bill.reference,
            kwh=bill.kwh,
        )

    def label_money(self, record: RoundRecord) -> float:
        """Return what the labels had cost when a round was trained."""
        hour = self.prices.hour if self.prices else 0.0
        return float(record.cost["money"] - record.cost["seconds"] / 3600 * hour)

    @property
    def _reference(self) -> Line | None:
        """One training on the labels there are; None while they are not those of the last fit."""
        last, meta = self.trained[-1] if self.trained else None, self.saved.meta
        per_record, rate = meta.get("flops_per_record", {}).get("train"), meta.get("train_rate")
        if last is None or last.labelled != len(self.labels) or not last.cost.get("rho") or not per_record or not rate:
            return None
        flops = last.cost["flops"] / last.cost["rho"]
        records = flops / per_record
        seconds = records * rate["seconds"] / max(1, rate["records"])
        return Line(records=round(records), flops=flops, seconds=seconds)

    # ---- what it came to ---------------------------------------------------------------------------------------

    @property
    def standing(self) -> tuple[str, str]:
        """Return where it stands: one word to look at, one sentence to read."""
        step, n = self.saved.step, len(self.saved.open_ids)
        if step == "done":
            why = self.saved.reasons[-1].sentence if self.saved.reasons else "no reason was noted"
            return "finished", f"It ended: {why}."
        if step == "label" and n:
            return "waiting", f"It waits for {n:,} labels."
        return "unfinished", f"It is under way, or was interrupted before the step “{step}”; the same command goes on."

    @property
    def metrics(self) -> list[str]:
        """Names of what the module logged, those that are no losses first."""
        return _losses_last(r.metrics for r in self.trained)

    def curve(self, metric: str | None) -> list[Point]:
        """Every trained round that has the metric, oldest first."""
        return [
            {
                "labels": record.labelled,
                "accuracy": record.metrics[metric],
                **{name: record.cost[name] for name in ("flops", "seconds", "money")},
                "final": record.final,
            }
            for record in self.trained
            if metric is not None and math.isfinite(record.metrics.get(metric, math.nan))
        ]


# ---- reading ----------------------------------------------------------------------------------------------------


def main_metric(runs: Iterable[ReportedRun], wanted: str | None) -> str | None:
    """Return what counts as accuracy: the name that is wanted, the first that is no loss, the first, or None.

    Raises:
        ActiveLearningError: the wanted one was never logged.
    """
    names = _losses_last(run.metrics for run in runs)
    if wanted is not None and wanted not in names:
        raise ActiveLearningError(
            f"metric {wanted!r} was not logged; allowed: {', '.join(names) or 'none, for the module logged nothing'}."
        )
    return wanted or next(iter(names), None)
