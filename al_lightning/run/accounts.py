"""The accounts of a run: what it has spent and bought, what that comes to, and what more would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from al_lightning.cost.ahead import Measured
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.energy import EnergyLedger
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry
from al_lightning.cost.prices import Prices
from al_lightning.cost.rehearsed import Rehearsed
from al_lightning.cost.validation import Validation
from al_lightning.fit.ranks import Ranks
from al_lightning.history import Control, History
from al_lightning.planning.architectures import BACKWARD
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.run.changes import Saved
from al_lightning.run.meta import Meta


class Accounts:
    """Keep the books of a run. All ranks hold the same.

    Args:
        saved: what the last commit made real.
        pool: whose labels were bought.
        ranks: the processes.
        prices: for the bill.
        recipe: ``labels -> records`` one training with the declared recipe goes through, or None if unknown.
        recipe_epochs: epochs of that recipe, or None if unknown.
        energy: read around fits and scoring.
        proxied: whether a proxy selects for the module that is delivered.
        note: writes a value beside the run's steps.

    Attributes:
        flops: FLOPs of a record of the module whose turn it is.
        target_flops: those of the module that is delivered.
        pending: work that no commit has named yet.
        rehearsed: costs that were seen before anything was bought.
        validates: what the Trainer says about validation; None: nothing is validated.
        covers: whether coverage is measured after every fit.
    """

    def __init__(
        self,
        saved: Saved,
        *,
        pool: PoolDataModule,
        ranks: Ranks,
        prices: Prices,
        recipe: Callable[[int], int | None],
        recipe_epochs: int | None,
        energy: EnergyLedger,
        proxied: bool,
        note: Callable[[str, Any], None],
    ) -> None:
        self.saved, self.pool, self.ranks, self.prices = saved, pool, ranks, prices
        self.recipe, self.recipe_epochs, self.energy, self.proxied = recipe, recipe_epochs, energy, proxied
        self._note = note
        self.pending: list[Entry] = []
        self._waited = 0.0  # what pending work on other machines took here, beyond the seconds that are billed for it
        self._bytes_seen = pool.bytes_read or 0
        self.validates: Validation | None = None
        self.covers = False
        self.rehearsed = Rehearsed(**saved.meta.get("rehearsed", {}))
        self.target_flops = self._meter("")
        self.flops = self._meter("proxy_") if proxied else self.target_flops
        energy.kwh.update(saved.meta.get("kwh", {}))
        self._lost: dict[str, Any] | None = saved.meta.get("in_flight")

    def _meter(self, whose: str) -> FlopMeter:
        meta: Mapping[str, Any] = self.saved.meta
        return FlopMeter(meta.get(f"{whose}flops_per_record"), meta.get(f"{whose}flops_unknown"))

    @property
    def round(self) -> int:
        """Count the queries that were committed."""
        return len(self.saved.queries)

    # ---- what it comes to --------------------------------------------------------------------------------------

    @property
    def bill(self) -> Bill:
        """Everything spent so far, priced."""
        return self.bill_with(self.saved.meta.get("train_rate"))

    def bill_with(self, train_rate: dict[str, float] | None) -> Bill:
        """The bill, with the reference priced at this measured rate of training (records and seconds)."""
        return self._bill((), 0, train_rate)

    def _bill(self, more: Iterable[Entry], labels: int, train_rate: dict[str, float] | None) -> Bill:
        units, beside = self.pool.label_units, self.pool.val_labels + self.saved.second_answers + labels
        return self.ranks.broadcast(
            Bill.of(
                [*self.saved.entries, *self.pending, *more],
                labels=len(self.pool.labelled) + beside,
                label_units=None if units is None else units + beside,
                prices=self.prices,
                reference=self._reference(train_rate, labels),
                kwh=self.energy.kwh,
                flops_unknown={**self.flops.unknown, **self.target_flops.unknown},
            )
        )

    def _reference(self, rate: dict[str, float] | None, more: int = 0) -> Line | None:
        per_record = self.target_flops.known().get("train")
        records = self.recipe(len(self.pool.labelled) + more)
        if records is None or rate is None or per_record is None:
            return None
        return Line(
            records=records, flops=records * per_record, seconds=records * rate["seconds"] / max(1, rate["records"])
        )

    @property
    def _pricing(self) -> dict[str, Any]:
        own = self.pool.label_costs is not None
        return {**asdict(self.prices), "val_labels": self.pool.val_labels, "label_costs": own}

    def score_cost(self, passes: int) -> float | None:
        """FLOPs of so many passes over a record / FLOPs the declared recipe spends on a label; None while unknown.

        Before the first scoring a forward pass counts as a third of a training pass. Where FLOPs could not be counted,
        seconds are compared.
        """
        own, whole = (meter.per_record.get("train") for meter in (self.flops, self.target_flops))
        if self.flops.unknown or self.target_flops.unknown:
            return self._score_seconds(passes)
        labels = len(self.pool.labelled)
        records = self.recipe(labels) if labels else None
        if not own or not whole or not records:
            return None
        return self.flops.per_record.get("forward", own / (1 + BACKWARD)) * labels / (records * whole) * passes

    def _score_seconds(self, passes: int) -> float | None:
        measured, labels = self.measured, len(self.pool.labelled)
        reference = self._reference(self.saved.meta.get("train_rate"))
        train = measured.pace(("train",), 0.0)
        if reference is None or not reference.seconds or not train:
            return None
        once = measured.inference("score", 1, passes=passes, round=self.round).seconds / measured.slack
        return once * labels / reference.seconds

    @property
    def history(self) -> History:
        """Return what decisions are made from; the same on every rank."""
        return History(
            rounds=tuple(self.saved.rounds),
            pool_size=self.pool.size,
            unlabelled=len(self.pool.unlabelled),
            labelled=len(self.pool.labelled),
            round=self.round,
            val_labels=self.pool.val_labels,
            bill=self.bill,
            control=Control(**control) if (control := self.saved.meta.get("control")) else None,
        )

    @property
    def measured(self) -> Measured:
        """Return what costs are foretold from."""
        entries = [*self.saved.entries, *self.pending]
        epochs = {r.round: r.epochs for r in self.saved.rounds}
        flops = {str(kind): value for kind, value in self.flops.known().items()}
        labels, recipe = len(self.pool.labelled), self.recipe_epochs
        records = self.recipe(labels) if labels and recipe else None
        share = 1.0 if records is None or recipe is None else records / (labels * recipe)
        return Measured(
            entries=entries,
            flops=flops,
            epochs=epochs,
            recipe=recipe,
            share=share,
            world=self.ranks.world,
            paces=self.saved.meta.get("pace", {}),
            final=self._target_costs if self.proxied else None,
            validation=self.validation,
            tuning=self.saved.meta.get("tuning", 0),
            features=self.rehearsed.features,
            answers=self.rehearsed.answers,
        )

    @property
    def validation(self) -> Validation | None:
        """Return what a fit validates, as far as it is known; None: nothing."""
        return self.validates and self.validates.seen(self.saved.meta.get("validation"))

    @property
    def _target_costs(self) -> tuple[float, float] | None:
        """FLOPs and seconds of training the target on a record, once they are measured."""
        train, rate = self.target_flops.known().get("train"), self.saved.meta.get("train_rate")
        return None if train is None or rate is None else (train, rate["seconds"] / max(1, rate["records"]))

    def reference(self, labels: int) -> Line | None:
        """One training on so many labels with the declared recipe, as measured; None while unknown."""
        return self._reference(self.saved.meta.get("train_rate"), labels - len(self.pool.labelled))

    def bill_after(self, entries: Iterable[Entry], labels: int) -> Bill:
        """The bill as it would be with more work and more labels at one price unit each; the same on every rank."""
        return self._bill(entries, labels, self.saved.meta.get("train_rate"))

    # ---- what is spent -----------------------------------------------------------------------------------------

    def spend(self, *entries: Entry) -> None:
        """Put work on the ledger, the first of it with the bytes read since the last; written with the next step."""
        total = self.pool.bytes_read
        if entries and total is not None:
            new, self._bytes_seen = total - self._bytes_seen, total
            entries = (replace(entries[0], bytes=entries[0].bytes + sum(self.ranks.gather(new))), *entries[1:])
        self.pending += entries

    @property
    def pending_wall(self) -> float:
        """Seconds that went by here while pending work was done."""
        return sum(entry.seconds for entry in self.pending) + self._waited

    @property
    def was_interrupted(self) -> bool:
        """Return whether a fit of this step was under way when a process ended."""
        return self._lost is not None

    def note_in_flight(self, records: int, flops: float, seconds: float) -> dict[str, Any]:
        """Note what a running fit has done so far, should it be killed; the next commit settles it.

        Returns:
            What it has done so far, without what kills have cost it.
        """
        spent: dict[str, Any] = {"records": records, "flops": flops, "seconds": seconds}
        if new := (self.pool.bytes_read or 0) - self._bytes_seen:
            spent["bytes"] = new * self.ranks.world  # as records are: each process reads about as much
        lost = self._lost or {}
        total = {name: lost.get(name, 0) + spent.get(name, 0) for name in {*spent, *lost} - {"round"}}
        self._note("in_flight", {"round": self.round, **total})
        return spent

    def take_over(self, kept: dict[str, Any]) -> None:
        """A fit that was interrupted goes on: so much of what it had cost is not lost.

        Args:
            kept: what :meth:`note_in_flight` had returned when it was kept.
        """
        if self._lost is not None:
            self._lost |= {name: max(0, self._lost.get(name, 0) - value) for name, value in kept.items()}
        self._bytes_seen -= kept.get("bytes", 0) // self.ranks.world

    def bill_lost(self) -> None:
        """Put what kills have cost the step on the bill."""
        if self._lost is not None:
            self.pending.append(Entry(phase="lost", **self._lost))
            self._lost = None

    def wait(self, seconds: float) -> None:
        """Note seconds that pending work took here beyond those that are billed for it."""
        self._waited += seconds

    def settle(self) -> None:
        """Forget pending work: a commit has named it."""
        self.pending, self._waited = [], 0.0

    def deliver(self) -> None:
        """Measure the module that is delivered from here on."""
        self.flops = self.target_flops

    def known(self) -> Meta:
        """Return what goes with every commit: FLOPs a record, prices, energy, costs of a rehearsal."""
        meta: Meta = {"flops_per_record": self.target_flops.per_record, "in_flight": None, "pricing": self._pricing}
        if self.flops is not self.target_flops:
            meta["proxy_flops_per_record"] = self.flops.per_record
        if self.target_flops.unknown:
            meta["flops_unknown"] = self.target_flops.unknown
        if self.flops.unknown:
            meta["proxy_flops_unknown"] = self.flops.unknown
        if self.energy.kwh:
            meta["kwh"] = dict(self.energy.kwh)
        if (rehearsed := asdict(self.rehearsed)) != asdict(Rehearsed()):
            meta["rehearsed"] = rehearsed
        return meta
