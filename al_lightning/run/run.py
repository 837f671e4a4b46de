"""A run in progress: what it knows, and the folder it is written to."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from al_lightning.cost.energy import EnergyLedger, EnergyMeter
from al_lightning.cost.prices import Prices
from al_lightning.errors import PoolChanged
from al_lightning.fit.plan import Weights
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.trainer import TrainerSource
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.state import PoolState
from al_lightning.preflight.trying import trying
from al_lightning.run.accounts import Accounts
from al_lightning.run.durable import read_arrays
from al_lightning.run.leftovers import clear
from al_lightning.run.meta import Meta
from al_lightning.run.parts import KeptActivations, LastFit
from al_lightning.run.paths import SCRATCH
from al_lightning.run.settled import changes
from al_lightning.run.store import Change, Saved, Store
from al_lightning.run.turn import Turn
from al_lightning.scoring.question import Scorer
from al_lightning.scoring.trainer import TrainerScorer


class Run(Turn):
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
        self.ranks = ranks
        self.scoring = scoring or TrainerScorer()
        self.initial: Weights = {}
        self.used_features = False
        self.last: LastFit | None = None
        self._store: Store | None = None
        self.cached: dict[str, Any] = {}
        self.activations: KeptActivations | None = None
        self._files: dict[str, str] = {}
        self._digests = {}
        self._about: dict[str, Any] = {}
        self._energy = EnergyLedger(energy, ranks)
        self.on_zero(self._energy.reading)  # one that cannot be read is refused before the folder is opened
        with trying("reading the records", "Every record has to be there."):
            fingerprints = ranks.gather(pool.take_fingerprint())
        self.saved, self.seed = self.on_zero(lambda: self._open(config, seed, fingerprints[0]))
        self.config: dict[str, Any] = {**config, "seed": self.seed}
        self.changed = changes(self.saved, self.config, folder)
        """Settings that are others than the folder's, ``{key: (stored, now)}``; nothing depends on them yet."""
        self.accounts = Accounts(
            self.saved,
            pool=pool,
            ranks=ranks,
            prices=prices,
            recipe=recipe,
            recipe_epochs=recipe_epochs,
            energy=self._energy,
            proxied=proxy is not None,
            note=self._note,
        )
        if not self.is_new:
            self._restore_pool()
        if any(f != fingerprints[0] for f in fingerprints):
            raise PoolChanged("the processes of this job read different datasets: seed the split in setup().")
        # A fit that was killed may go on. Until it is known what of it is lost, and that is with the step's commit,
        # decisions are made from the bill that they were made from before.
        if self.accounts.was_interrupted and not (
            self.step in ("train", "finish") and self.on_zero(self.fit_path.exists)
        ):
            self.accounts.bill_lost()
        self.found: Change | None = None  # when the folder was opened, to be committed before anything else
        if self.accounts.pending or (self.step != "new" and self.saved.meta["fingerprint"] != fingerprints[0]):
            self.found = Change(meta={"fingerprint": fingerprints[0]})  # records may have been appended

    def _note(self, key: str, value: Any) -> None:
        if self._store is not None:
            self._store.note(key, value)

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
        self._energy.close()
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

    # ---- what it does ------------------------------------------------------------------------------------------

    def go_on(self, step: str) -> None:
        """Move to the next step without an effect worth a write: after a kill the decision is simply made again."""
        self.saved.step = step

    def commit(self, change: Change) -> None:
        """Make a step's effect real, in memory and on disk, together with the step that comes next."""
        self.accounts.bill_lost()
        files = {**self._files, **change.files}
        change = replace(
            change,
            step=change.step or self.step,
            round=self.round if change.round < 0 else change.round,
            entries=(*self.accounts.pending, *change.entries),
            meta=self._known(change.meta),
            files=files,
            digests={name: self._digests[path] for name, path in files.items() if path in self._digests},
        )
        change = self.saved.placed(change)
        if change.query is not None and self.pool.keys is not None:
            change = replace(change, keys={i: str(self.pool.key(i)) for i in change.query.ids.tolist()})
        replaced = [self.saved.files[name] for name in change.files if name in self.saved.files]
        self.on_zero(lambda: self._store.commit(change) if self._store else None)
        self.saved.apply(change)
        self.accounts.settle()
        self._files, self._about, self._digests = {}, {}, {}
        if self.ranks.rank == 0:
            shutil.rmtree(self.place(SCRATCH), ignore_errors=True)
        if change.query is not None:
            self.pool.state.query(change.query.ids)
        self.pool.state.answer(change.answers)
        self.pool.state.correct(change.corrections)
        self.pool.state.arrange(self.saved.places)
        self.remove(set(replaced) - set(self.saved.files.values()))

    def _known(self, changed: Meta) -> Meta:
        """Add to a step's metadata what goes with every commit: the accounts, origins of files, what begins a run."""
        meta: Meta = {**self.accounts.known(), **changed}
        if self.pool.width:
            meta["width"] = self.pool.width
        if self._about:
            meta["about"] = self.about
        if self.saved.meta.get("unconfigured"):
            meta["unconfigured"] = False
        if self.used_features:
            meta["features_used"] = True
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
