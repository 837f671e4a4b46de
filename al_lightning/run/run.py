"""A run in progress: what it knows, and the folder it is written to."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np

from al_lightning.cost.ahead import Measured
from al_lightning.cost.bill import Bill, Line
from al_lightning.cost.energy import EnergyLedger, EnergyMeter
from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Entry
from al_lightning.cost.prices import Prices
from al_lightning.cost.rehearsed import Rehearsed
from al_lightning.cost.validation import Validation
from al_lightning.errors import PoolChanged
from al_lightning.fit.plan import Weights
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.trainer import TrainerSource, fresh_trainer
from al_lightning.history import Control, History
from al_lightning.planning.architectures import BACKWARD
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.state import PoolState
from al_lightning.preflight.trying import trying
from al_lightning.run.durable import read_arrays
from al_lightning.run.files import RunFiles
from al_lightning.run.leftovers import clear
from al_lightning.run.meta import Meta
from al_lightning.run.paths import SCRATCH
from al_lightning.run.settled import changes
from al_lightning.run.store import Change, Saved, Store
from al_lightning.scoring.question import Answers, Question, Request, Scorer
from al_lightning.scoring.trainer import TrainerScorer

if TYPE_CHECKING:
    from al_lightning.run.parts import KeptActivations, LastFit
    from al_lightning.scoring.samples import Samples


class Run(RunFiles):
    """State of one run. All ranks hold the same; only rank 0 has the folder open and writes.

    Args:
        folder: the run folder.
        source: the user's Trainer, or a function that builds one.
        model: the user's module, with all its layers built; its weights are set from what the folder holds.
        proxy: the module that the rounds train and score with in its place, likewise; None: the model itself.
        pool: its state is set from what the folder holds.
        ranks: the processes.
        seed: of everything that is drawn; None: the folder's, which is drawn with the folder.
        prices: for the bill.
        config: what must not change between two starts of the run, once something depends on it.
        recipe: ``labels -> records`` one training with the declared recipe goes through, or None if unknown.
        recipe_epochs: epochs of that recipe, or None if unknown.
        scoring: who infers the pool; default: the Trainer.
        energy: read around fits and scoring; None: energy is not measured.

    Raises:
        RunMismatch: the folder holds another configuration, on which what it has bought or trained depends.
        PoolChanged: the dataset is not the one the run started with.
        RunLocked: another process has the folder open.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: TrainerSource,
        model: L.LightningModule,
        pool: PoolDataModule,
        ranks: Ranks,
        seed: int | None,
        prices: Prices,
        config: dict[str, Any],
        recipe: Callable[[int], int | None],
        recipe_epochs: int | None = None,
        proxy: L.LightningModule | None = None,
        scoring: Scorer | None = None,
        energy: EnergyMeter | None = None,
    ) -> None:
        self.folder, self.source, self.pool = folder, source, pool
        self.target, self.proxy = model, proxy
        self.model = model if proxy is None else proxy
        """Whose turn it is: the proxy's until :meth:`deliver`, else the target's, which is the one delivered."""
        self.ranks, self.prices, self.recipe, self.recipe_epochs = ranks, prices, recipe, recipe_epochs
        self.scoring = scoring or TrainerScorer()
        self.validates: Validation | None = None
        self.initial: Weights = {}
        self.measures_coverage = self.used_features = False
        self.last: LastFit | None = None
        self._store: Store | None = None
        self.pending: list[Entry] = []
        self._waited = 0.0  # what pending work on other machines took here, beyond the seconds that are billed for it
        self._bytes_seen = pool.bytes_read or 0
        self.cached: dict[str, Any] = {}
        self.activations: KeptActivations | None = None
        self._files: dict[str, str] = {}
        self._digests = {}
        self._about: dict[str, Any] = {}
        self.energy = EnergyLedger(energy, ranks)
        self.on_zero(self.energy.reading)  # one that cannot be read is refused before the folder is opened
        with trying("reading the records", "Every record has to be there."):
            fingerprints = ranks.gather(pool.take_fingerprint())
        self.saved, self.seed = self.on_zero(lambda: self._open(config, seed, fingerprints[0]))
        self.config: dict[str, Any] = {**config, "seed": self.seed}
        self.rehearsed = Rehearsed(**self.saved.meta.get("rehearsed", {}))
        self.changed = changes(self.saved, self.config, folder)
        """Settings that are others than the folder's, ``{key: (stored, now)}``; nothing depends on them yet."""
        self.target_flops = self._meter("")
        self.flops = self.target_flops if proxy is None else self._meter("proxy_")
        self.energy.kwh.update(self.saved.meta.get("kwh", {}))
        if not self.is_new:
            self._restore_pool()
        if any(f != fingerprints[0] for f in fingerprints):
            raise PoolChanged("the processes of this job read different datasets: seed the split in setup().")
        self._lost: dict[str, Any] | None = self.saved.meta.get("in_flight")
        # A fit that was killed may go on. Until it is known what of it is lost, and that is with the step's commit,
        # decisions are made from the bill that they were made from before.
        if self.was_interrupted and not (self.step in ("train", "finish") and self.on_zero(self.fit_path.exists)):
            self.bill_lost()
        self.found: Change | None = None  # when the folder was opened, to be committed before anything else
        if self.pending or (self.step != "new" and self.saved.meta["fingerprint"] != fingerprints[0]):
            self.found = Change(meta={"fingerprint": fingerprints[0]})  # records may have been appended

    def _meter(self, whose: str) -> FlopMeter:
        meta: Mapping[str, Any] = self.saved.meta
        return FlopMeter(meta.get(f"{whose}flops_per_record"), meta.get(f"{whose}flops_unknown"))

    def _open(self, config: dict[str, Any], seed: int | None, fingerprint: dict[str, Any]) -> tuple[Saved, int]:
        self._store = Store(self.folder)
        saved = self._store.load()
        try:
            if saved.step == "new" or saved.meta.get("unconfigured"):
                seed = secrets.randbelow(2**31) if seed is None else seed
                saved.meta.update({"config": {**config, "seed": seed}, "fingerprint": fingerprint})
                return saved, seed
            seed = saved.meta["config"]["seed"] if seed is None else seed
            changes(saved, {**config, "seed": seed}, self.folder)
            self.pool.check_fingerprint(saved.meta["fingerprint"])
            self.pool.width = self.pool.width or saved.meta.get("width", 0)
            clear(self.folder, saved.files.values())
            if saved.step == "done":  # a kill came between the last commit and this
                shutil.rmtree(self.place(SCRATCH), ignore_errors=True)
        except BaseException:
            self.close()
            raise
        return saved, seed

    def _restore_pool(self) -> None:
        state = PoolState(self.pool.size)
        state.reserve(self.saved.meta.get("stop_set", []))
        state.query(i for query in self.saved.queries for i in query)
        state.answer(self.saved.answers)
        state.arrange(self.saved.places)
        if "scores" in self.saved.files:
            scores, rounds = self.read("scores", lambda path: itemgetter("scores", "rounds")(read_arrays(path)))
            state.scores[: len(scores)], state.score_rounds[: len(rounds)] = scores, rounds
        self.pool.state = state

    def close(self) -> None:
        """Let go of the folder."""
        self.energy.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    # ---- what it knows -----------------------------------------------------------------------------------------

    @property
    def step(self) -> str:
        """Return what comes next: ``query``, ``label``, ``train``, ``decide``, ``finish`` or ``done``."""
        return self.saved.step

    @property
    def is_new(self) -> bool:
        """Return whether it begins: the folder is new, or holds another configuration's beginning and no query."""
        return self.step == "new" or bool(self.changed and not self.saved.queries)

    @property
    def round(self) -> int:
        """Queries committed."""
        return len(self.saved.queries)

    @property
    def delivered(self) -> str:
        """Name of the file that holds the weights kept last: a fit's, or the initial ones before there was one."""
        if self.kept_as == "target":
            return "target" if "target" in self.saved.files else "target_initial"
        return "weights" if "weights" in self.saved.files else "initial"

    @property
    def kept_as(self) -> str:
        """Name of the file that a fit's weights go to: the proxy's stay where they are, for further rounds."""
        return "weights" if self.proxy is None or self.model is self.proxy else "target"

    @property
    def trainer(self) -> L.Trainer:
        """The Trainer of the last fit, or a fresh one if this process has not trained yet."""
        if self.last is not None:
            return self.last.trainer
        return fresh_trainer(self.source, model=self.model, datamodule=self.pool)

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
            final=None if self.proxy is None else self._target_costs,
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

    # ---- what it does ------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """From here on it is the target's turn, with its initial weights; without a proxy it has been all along."""
        if self.proxy is not None:
            self.model, self.flops = self.target, self.target_flops
            self.last = self.activations = None  # both are of the proxy
            self.initial = self.read_weights("target_initial")

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

    def ask(self, ids: np.ndarray, question: Question, *, phase: str, least: int | None = None) -> Answers:
        """Ask the model about records of the pool, by whoever does the scoring; the work goes on the ledger.

        Args:
            ids: ``(n,)`` ids to infer.
            question: what to ask.
            phase: of the ledger.
            least: how many answers are enough, should the scorer be allowed to leave some out; None: all.
        """
        embeds = phase == "embed"
        with nullcontext((self.scoring, self.flops)) if embeds else self.reading(ids, question.samples) as (who, meter):
            request = Request(
                trainer=self.trainer,
                model=self.model,
                pool=self.pool,
                ids=ids,
                question=question,
                meter=meter,
                least=least,
                scratch=self.place(SCRATCH),
                bill=self.bill,
            )
            if who.every_rank:
                began = self.energy.reading()
                found = who.run(request)
                self.energy.note(phase, began)
            else:
                found = self.on_zero(lambda: who.run(request))
                self.flops.per_record = self.ranks.broadcast(self.flops.per_record)
                self.flops.unknown = self.ranks.broadcast(self.flops.unknown)
        self.spend(found.entry(phase, self.round))
        self._waited += found.wall - found.seconds
        return found

    @contextmanager
    def reading(self, ids: np.ndarray, samples: Samples | None = None) -> Iterator[tuple[Scorer, FlopMeter]]:
        """Have a pass over these records read activations where they are kept; else nothing changes.

        Args:
            ids: ``(n,)`` that are inferred.
            samples: how several answers are drawn, if they are.

        Yields:
            Who infers, and where FLOPs are measured: from activations the Trainer does, it is little work.
        """
        if self.activations is None or not len(ids) or not self.activations.can_serve(samples):
            yield self.scoring, self.flops
            return
        with self.activations.scoring(ids) as meter:
            yield TrainerScorer(), meter

    @property
    def fit_path(self) -> Path:
        """Return where a running fit is kept as it goes."""
        return self.place(f"{SCRATCH}/fit.pt")

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
        if self._store is not None:
            lost = self._lost or {}
            total = {name: lost.get(name, 0) + spent.get(name, 0) for name in {*spent, *lost} - {"round"}}
            self._store.note("in_flight", {"round": self.round, **total})
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

    @property
    def about(self) -> dict[str, Any]:
        """Return what files that can be made again must hold, by their names."""
        return {**self.saved.meta.get("about", {}), **self._about}

    def add_file(self, name: str, path: str, about: dict[str, Any]) -> None:
        """Have the next step's commit name a file that was written and can be made again, and what it holds."""
        self._files[name], self._about[name] = path, about

    def go_on(self, step: str) -> None:
        """Move to the next step without an effect worth a write: after a kill the decision is simply made again."""
        self.saved.step = step

    def commit(self, change: Change) -> None:
        """Make a step's effect real, in memory and on disk, together with the step that comes next."""
        self.bill_lost()
        files = {**self._files, **change.files}
        change = replace(
            change,
            step=change.step or self.step,
            round=self.round if change.round < 0 else change.round,
            entries=(*self.pending, *change.entries),
            meta=self._with_accounts(change.meta),
            files=files,
            digests={name: self._digests[path] for name, path in files.items() if path in self._digests},
        )
        change = self.saved.placed(change)
        if change.query is not None and self.pool.keys is not None:
            change = replace(change, keys={i: str(self.pool.key(i)) for i in change.query.ids.tolist()})
        replaced = [self.saved.files[name] for name in change.files if name in self.saved.files]
        self.on_zero(lambda: self._store.commit(change) if self._store else None)
        self.saved.apply(change)
        self.pending, self._waited, self._files, self._about, self._digests = [], 0.0, {}, {}, {}
        if self.ranks.rank == 0:
            shutil.rmtree(self.place(SCRATCH), ignore_errors=True)
        if change.query is not None:
            self.pool.state.query(change.query.ids)
        self.pool.state.answer(change.answers)
        self.pool.state.correct(change.corrections)
        self.pool.state.arrange(self.saved.places)
        self.remove(set(replaced) - set(self.saved.files.values()))

    def _with_accounts(self, changed: Meta) -> Meta:
        """Add to a step's metadata what goes with every commit: FLOPs a record, prices, energy, origins of files."""
        meta: Meta = {"flops_per_record": self.target_flops.per_record, "in_flight": None, **changed}
        if self.flops is not self.target_flops:
            meta["proxy_flops_per_record"] = self.flops.per_record
        if self.target_flops.unknown:
            meta["flops_unknown"] = self.target_flops.unknown
        if self.flops.unknown:
            meta["proxy_flops_unknown"] = self.flops.unknown
        if self.energy.kwh:
            meta["kwh"] = dict(self.energy.kwh)
        if self.pool.width:
            meta["width"] = self.pool.width
        if self._about:
            meta["about"] = self.about
        if self.saved.meta.get("unconfigured"):
            meta["unconfigured"] = False
        if (rehearsed := asdict(self.rehearsed)) != asdict(Rehearsed()):
            meta["rehearsed"] = rehearsed
        if self.used_features:
            meta["features_used"] = True
        meta["pricing"] = self._pricing  # whoever reads the folder later can write the bill
        if self.saved.step == "new" or self.saved.meta.get("unconfigured"):
            meta |= {"config": self.saved.meta["config"], "fingerprint": self.saved.meta["fingerprint"]}
        if self.saved.step == "new":
            meta["fits"] = 0
        return meta

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files of the folder that nothing needs any more, and a folder that is empty then."""
        if self.ranks.rank == 0:
            for path in paths:
                self.place(path).unlink(missing_ok=True)
                with suppress(OSError):  # a round's folder that still holds the user's checkpoints stays
                    self.place(path).parent.rmdir()
