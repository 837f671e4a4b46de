"""The user's data as a pool: a LightningDataModule that trains on what is labelled and predicts what is a candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate

from al_lightning.checks.packages import check_package
from al_lightning.cost.prices import Prices
from al_lightning.errors import PoolError
from al_lightning.features.inputs import taken_in
from al_lightning.oracles.oracle import SKIP, LabelRequest, Oracle, check_labels, plain
from al_lightning.pool import fingerprint, wrapped
from al_lightning.pool.delegate import Delegate
from al_lightning.pool.items import Attach, ItemFormat
from al_lightning.pool.place import Place, place_of
from al_lightning.pool.state import PoolState, check_keys, checked_costs
from al_lightning.pool.view import PoolView
from al_lightning.pool.views import LabelledView, for_training, loader_for_scoring
from al_lightning.scoring.outputs import TASKS
from al_lightning.seeds import generator

if TYPE_CHECKING:
    from al_lightning.candidates.base import CandidateSelector
    from al_lightning.cost.budget import Budget
    from al_lightning.history import Reason, RoundSize
    from al_lightning.pool.turns import Loop, Round


class PoolDataModule(Delegate):
    """Wrap a map-style dataset, or the user's own LightningDataModule, as a pool.

    Args:
        data: the records: a dataset with ``__len__`` and ``__getitem__``, or a LightningDataModule whose train dataset
            is the pool. Its loader settings, validation and test loaders are used as they are, its attributes are
            reachable as ours, and its ``setup`` runs once: docs/datamodules.md.
        task: what the model's logits mean, one of ``multiclass``, ``binary``, ``multilabel``, ``regression``,
            ``segmentation``, ``tokens``; or ``structured``, for labels of any structure: boxes, key points, sequences,
            dicts and tuples of several targets. The module's ``infer`` then says how uncertain it is about a record, by
            ``Outputs(scores=...)`` or logits (docs/adr/0016).
        val: validation dataset. Its labels are bought labels and stand on the bill.
        test: test dataset, for ``trainer.test``; never on the bill.
        eval_view: the same records without augmentation, for scoring; default: ``data``.
        features: ``(N, d)`` numbers of the user's, up to 1e16 in size (an array, a memory map, a tensor, a DataFrame, a
            list of rows, a SciPy sparse matrix, HDF5 or Zarr), or ``RawInputs()`` or ``Layer("name")``.
        label_costs: ``(N,)`` numbers above 0, the price of each record's label in multiples of ``Prices.label``, for
            ``PerCost`` and the bill. Validation labels cost 1 each. Default: all labels cost the same.
        keys: one stable key per record (path, primary key), no two with the same text; checked on resume and written
            into label files.
        target_key: key of the target where items are dicts.
        attach: ``(item, label) -> item`` where items are neither tuples ``(..., target)`` nor dicts with a target.
        batch_size: of the training loader; default 32, or the wrapped DataModule's.
        eval_batch_size: of the validation, test and scoring loaders; default: ``batch_size``.
        loader: further ``DataLoader`` settings, for example ``{"num_workers": 4}``; with ``{"shuffle": False}`` epochs
            are in the order of labelling.

    Raises:
        PoolError: a dataset without length, items no label can be attached to, mismatched lengths, label costs that
            are no prices, an empty batch, or loader settings that a pool cannot keep.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> pool = PoolDataModule(TensorDataset(torch.randn(9, 4), torch.arange(9) % 3), task="multiclass")
        >>> pool.size, len(pool.unlabelled)
        (9, 9)
    """

    def __init__(
        self,
        data: Dataset[Any] | L.LightningDataModule,
        *,
        task: str,
        val: Dataset[Any] | None = None,
        test: Dataset[Any] | None = None,
        eval_view: Dataset[Any] | None = None,
        features: Any = None,
        label_costs: Sequence[float] | np.ndarray | None = None,
        keys: Sequence[Any] | None = None,
        target_key: str | None = None,
        attach: Attach | None = None,
        batch_size: int | None = None,
        eval_batch_size: int | None = None,
        loader: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_package(data, "PoolDataModule")
        if task not in TASKS:
            raise PoolError(f"task is {task!r}; allowed: {', '.join(TASKS)}.")
        for name, other in (("val", val), ("test", test), ("eval_view", eval_view)):
            wrapped.check_dataset(other, name)
        wrapped.check_settings(loader or {})
        inner = data if isinstance(data, L.LightningDataModule) and not isinstance(data, Delegate) else None
        self.task = task
        self.items = ItemFormat(target_key, attach, task)
        self.features = features
        self.label_costs = None if label_costs is None else checked_costs(label_costs)
        self.keys = keys
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise PoolError(f"PoolDataModule({name}={size}): records of a batch, allowed: 1 or more.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.scoring_batch_size: int | None = None  # smaller than that, once memory had no room for it
        self.loader = {name: value for name, value in (loader or {}).items() if name != "shuffle"}
        self.width = 0  # of the model's logits, once some were seen
        self.candidates: np.ndarray | None = None
        self.train_ids: np.ndarray | None = None
        self.train_sampler: Sampler[int] | None = None
        self.stand_in: Dataset[Any] | None = None  # the records as they are served instead, while that is so
        self.val_split: tuple[Sequence[int], Sequence[int]] | None = None  # positions to train on, and to validate on
        self.stop_reason: Reason | None = None
        self.loop: Loop | None = None  # a new one per pool.rounds(): callbacks remember each by itself
        self._val, self._test, self._eval_view = val, test, eval_view
        self._data: Any = None
        self._place: tuple[Any, Any, Place | None] | None = None
        self._brought: dict[int, Any] | None = None
        self._val_labels = 0
        self._shuffle: bool | None = (loader or {}).get("shuffle")  # None: as the wrapped loader, else yes
        self._order: torch.Tensor | None = None  # state of the wrapped loader's own generator
        self._seen: dict[str, Any] = {}  # what the dataset was, before it was torn down
        self.state = PoolState(0)
        self.wrap(inner)
        self._offer_loaders()
        if inner is None:
            self._adopt(data)

    # ---- set-up ------------------------------------------------------------------------------------------------

    def _offer_loaders(self) -> None:
        # Lightning asks whether a DataModule *defines* a loader or hook, so one is defined only where there is data.
        inner = self.inner
        for stage, own in (("val", self._val), ("test", self._test)):
            name = f"{stage}_dataloader"
            if own is not None or wrapped.defines(inner, name):
                setattr(self, name, lambda name=name, own=own: self._held_out(name, own))
        for name in wrapped.HOOKS:
            if wrapped.defines(inner, name):
                setattr(self, name, getattr(inner, name))

    def prepare_data(self) -> None:
        """Run the wrapped DataModule's ``prepare_data``, once."""
        if self.inner is not None and self._data is None:
            self.inner.prepare_data()

    def setup(self, stage: str = "fit") -> None:
        """Run the wrapped DataModule's ``setup`` once: an unseeded split inside it must not change between rounds.

        After its ``teardown``, when a run is over, it runs again for what is asked for then.

        Raises:
            PoolError: what it brings cannot be a pool.
            PoolChanged: it has made other records of the same data.
        """
        if self.inner is None:
            return
        if self._data is None:
            self._torn_down = False
            self.set_up_inner("fit")
            if wrapped.defines(self.inner, "test_dataloader"):
                self.set_up_inner("test")
            self._adopt(self._take_over().dataset)
            if wrapped.defines(self.inner, "teardown"):
                self._seen = self.take_fingerprint()
        elif self._torn_down and stage not in self._stages:
            self._set_up_again("fit" if stage == "predict" else stage)

    def _set_up_again(self, stage: str) -> None:
        self.set_up_inner(stage)
        if stage == "fit":
            self._torn_down = False
            self._data = self._take_over().dataset
            self.check_fingerprint(self._seen)

    def _take_over(self) -> DataLoader:
        assert self.inner is not None
        loader = wrapped.training_loader(self.inner, any_sampler=self.loads_its_own_way)
        self.batch_size = self.batch_size or wrapped.batch_size(loader)
        self.loader = {**wrapped.loader_options(loader), **self.loader}
        if self._shuffle is None:
            self._shuffle = wrapped.shuffles(loader)
        if loader.generator is not None:
            self._order = loader.generator.get_state()
        return loader

    def _adopt(self, data: Any) -> None:
        size = wrapped.size_of(data)
        others: dict[str, Any] = {"eval_view": self._eval_view, "keys": self.keys, "label_costs": self.label_costs}
        for name, other in others.items():
            if other is not None and len(other) != size:
                raise PoolError(f"{name} has {len(other)} records, the dataset has {size}: they must be the same ones.")
        if self.keys is not None:
            check_keys(self.keys)
        first = wrapped.first_of(data)
        self.items.check(first)
        ordinary = self.loader.get("collate_fn") in (None, default_collate)
        self.items = self.items.seen_in(data, first, stacked=ordinary)
        self._take_features(data, size)
        self.batch_size = self.batch_size or 32
        self._val_labels = (
            wrapped.size_of(self._val, "val") if self._val is not None else wrapped.validation_records(self.inner)
        )
        self._data = data
        self.state = PoolState(size)

    def _take_features(self, data: Any, size: int) -> None:
        from al_lightning.features.source import Layer, RawInputs  # these know this module

        if self.features is None or isinstance(self.features, Layer):
            return
        if isinstance(self.features, RawInputs):
            self.features.rows(data if self._eval_view is None else self._eval_view, self.items, [0])  # can they be?
        else:
            self.features = taken_in(self.features, size=size)

    # ---- what is in it -----------------------------------------------------------------------------------------

    def _ready(self) -> PoolState:
        if self._data is None:
            self.prepare_data()
            self.setup()
        return self.state

    @property
    def size(self) -> int:
        """Number of records."""
        return self._ready().size

    @property
    def labelled(self) -> np.ndarray:
        """Ids with a label, in the order of labelling."""
        return self._ready().labelled

    @property
    def unlabelled(self) -> np.ndarray:
        """Ids that may be queried, ascending."""
        return self._ready().unlabelled

    @property
    def val_labels(self) -> int:
        """Labelled records that validation uses; they count as bought."""
        self._ready()
        return self._val_labels

    @property
    def val_data(self) -> Any:
        """The validation records, or None where there are none or they come in several datasets."""
        self._ready()
        return self._val if self._val is not None else wrapped.validation_data(self.inner)

    @property
    def label_units(self) -> float | None:
        """Return what all labels cost, in multiples of ``Prices.label``; None where all cost the same."""
        return None if self.label_costs is None else float(self.label_costs[self.labelled].sum())

    @property
    def training_data(self) -> Any:
        """The records as fits read them."""
        self._ready()
        return self._data

    @property
    def eval_data(self) -> Any:
        """The records as scoring reads them."""
        self._ready()
        return self._eval_view if self._eval_view is not None else self._data

    @property
    def datasets(self) -> list[Any]:
        """Every dataset object in here; copies of a Trainer share them instead of cloning them."""
        return [x for x in (self._data, self._eval_view, self._val, self._test, self.inner) if x is not None]

    @property
    def loads_its_own_way(self) -> bool:
        """Return whether a subclass has a ``train_dataloader`` of its own."""
        return type(self).train_dataloader is not PoolDataModule.train_dataloader

    @property
    def bytes_read(self) -> int | None:
        """Bytes its datasets have read out of shards in this process and its loaders; None where none counts them."""
        self._ready()
        datasets = {id(x): x for x in (*self.datasets, self.val_data) if hasattr(x, "bytes_read")}
        return sum(x.bytes_read for x in datasets.values()) if datasets else None

    def key(self, id: int) -> Any:
        """The user's stable key of a record, or its id."""
        return self.keys[id] if self.keys is not None else id

    def read_input(self, id: int) -> Any:
        """A record as the model sees it, without its target; the whole item where nothing says what the target is."""
        return self.items.input_of(self.eval_data[id])

    def take_fingerprint(self) -> dict[str, Any]:
        """Return what a later run needs to recognise this dataset."""
        return fingerprint.take(self.size, self.keys, fingerprint.reader(self.eval_data, self.items))

    def check_fingerprint(self, taken: Mapping[str, Any]) -> None:
        """Raise PoolChanged unless the dataset begins with the records that ``taken`` saw."""
        fingerprint.check(taken, self.size, self.keys, fingerprint.reader(self.eval_data, self.items))

    def view(self, *, round: int = 0, features: Any = None, score_cost: float | None = None) -> PoolView:
        """The read-only view that selectors and strategies get.

        Args:
            round: queries committed so far.
            features: a run's :class:`~al_lightning.features.provider.Features`, which are on its bill; without one, the
                view has the user's array, if there is one.
            score_cost: see :class:`~al_lightning.pool.view.PoolView`.
        """
        state, data = self._ready(), self.eval_data
        own = (lambda: self.features) if hasattr(self.features, "shape") else None
        return PoolView(
            size=state.size,
            round=round,
            unlabelled=state.unlabelled,
            labelled=state.labelled,
            scores=state.scores,
            score_rounds=state.score_rounds,
            label_costs=self.label_costs,
            score_cost=score_cost,
            load_features=features.get if features is not None else own,
            load_clusters=features.clusters if features is not None else None,
            load_projected=features.projected if features is not None else None,
            spend=features.spend if features is not None else None,
            load_shard_of=lambda: getattr(data, "shard_of", None),
        )

    def start_run(self) -> PoolState:
        """A clean state with the labels the user brought; what an earlier run bought with this pool is its own."""
        state = self._ready()
        if self._brought is None:
            self._brought = dict(state.labels)
        self.state = PoolState(state.size)
        self.state.query(self._brought)
        self.state.answer(self._brought)
        return self.state

    # ---- labelling ---------------------------------------------------------------------------------------------

    def draw(self, size: int, *, seed: int = 0) -> np.ndarray:
        """``size`` unlabelled ids at random, for a first query."""
        return self._ready().draw(size, generator(seed, 0, "draw"))

    def request(
        self, ids: np.ndarray, round: int, *, folder: Path | None = None, prices: Prices | None = None
    ) -> LabelRequest:
        """The query as an oracle gets it."""
        return LabelRequest(
            round=round,
            ids=ids,
            keys=tuple(self.key(int(i)) for i in ids),
            target=self._target,
            key=self.key,
            task=self.task,
            size=self.size,
            queried=frozenset(self.state.queried.tolist()),
            folder=folder,
            prices=prices or Prices(),
        )

    def _target(self, id: int) -> Any:
        item = self.eval_data[id]
        try:
            return self.items.target(item)
        except PoolError as error:
            raise PoolError(f"id {id}: {error}") from None

    def label(self, ids: Sequence[int] | np.ndarray, oracle: Oracle | Mapping[int, Any]) -> int:
        """Query ids and store the answers.

        Args:
            ids: unlabelled ids.
            oracle: who answers, or the answers themselves as ``{id: label or SKIP}``.

        Returns:
            How many labels came in; ids without an answer stay queried (``pool.state.waiting``).
        """
        state = self._ready()
        ids = np.asarray(ids, dtype=np.int64)
        before = len(state.labels)
        state.query(ids)
        try:
            if isinstance(oracle, Mapping):
                answers = self.plain(oracle)
            else:
                oracle.ask(self.request(ids, len(self.labelled)))
                awaited = set(state.waiting.tolist())  # an oracle may tell all it knows
                answers = {i: answer for i, answer in self.plain(oracle.collect()).items() if i in awaited}
            self.check_labels(answers)
            state.answer(answers)
        except BaseException:
            state.release(ids)
            raise
        return len(state.labels) - before

    def check_labels(self, answers: Mapping[int, Any]) -> None:
        """Raise PoolError, which names the id and what is allowed, for an answer that cannot be trained on."""
        others = {i: label for i, label in {**self.state.labels, **answers}.items() if label is not SKIP}
        unlike = None
        if others and self.items.stacked and self.items.attach is None and self.task not in ("multiclass", "binary"):
            unlike = partial(self.items.unlike, other=next(iter(others.values())))
        check_labels(answers, self.task, classes=self.classes, unlike=unlike)

    @property
    def classes(self) -> int:
        """Return the number of classes: outputs of the model, once one was seen, or names the dataset has; else 0."""
        if self.task not in ("multiclass", "multilabel", "tokens"):
            return 0
        names = getattr(self.training_data, "classes", None)
        return self.width or (len(names) if isinstance(names, list | tuple) else 0)

    def plain(self, answers: Mapping[int, Any]) -> dict[int, Any]:
        """Answers as they are stored, see :func:`~al_lightning.oracles.oracle.plain`."""
        exact = self.items.blank or self.items.attach is not None
        return plain(answers, self.task, exact=exact)

    def rounds(
        self,
        *,
        sizes: RoundSize,
        budget: Budget | None = None,
        candidates: CandidateSelector | None = None,
        oracle: Oracle | None = None,
        seed: int = 0,
    ) -> Iterator[Round]:
        """The rounds of a hand-written loop, see :func:`al_lightning.pool.loop.rounds`."""
        from al_lightning.pool.loop import rounds

        with self.in_use():
            yield from rounds(self, sizes=sizes, budget=budget, candidates=candidates, oracle=oracle, seed=seed)

    def request_stop(self, reason: Reason) -> None:
        """Ask the loop to end after this round; callbacks such as RoundPlateau do."""
        self.stop_reason = reason

    # ---- loaders -----------------------------------------------------------------------------------------------

    @property
    def records_at_once(self) -> int:
        """Records of a batch while scoring."""
        self._ready()
        return self.scoring_batch_size or self.eval_batch_size or self.batch_size or 1

    def _eval_loader(self, dataset: Any, **more: Any) -> DataLoader:
        options = {k: v for k, v in self.loader.items() if k != "drop_last"} | more
        return DataLoader(dataset, batch_size=self.eval_batch_size or self.batch_size, shuffle=False, **options)

    def _training_loader(self, dataset: Any, sampler: Sampler[int] | None = None, **more: Any) -> DataLoader:
        options = {**self.loader, **more}
        if self._order is not None and "generator" not in options:
            options["generator"] = torch.Generator()  # the same in every fit: a run that is resumed shuffles alike
            options["generator"].set_state(self._order)
        shuffle = sampler is None and self._shuffle is not False
        return DataLoader(dataset, batch_size=self.batch_size, shuffle=shuffle, sampler=sampler, **options)

    def _held_out(self, name: str, own: Any) -> Any:
        if name == "val_dataloader" and self.val_split is not None:
            return self._eval_loader(Subset(self.val_data, self.val_split[1]))
        return self._eval_loader(own) if own is not None else getattr(self.inner, name)()

    def train_dataloader(self) -> DataLoader:
        """The labelled part, or what the plan of this fit makes of it, shuffled.

        While modules are built, before the first label, it is the loader of all records, as without a pool: modules ask
        for its length in ``setup`` and are asked again before every fit.

        Raises:
            PoolError: nothing is labelled, or ``drop_last`` leaves no batch.
        """
        labels = self._ready().labels
        if self.val_split is not None:
            return self._training_loader(Subset(self.val_data, self.val_split[0]), drop_last=False)
        ids = list(labels) if self.train_ids is None else self.train_ids.tolist()
        if not ids:
            if self.trainer is not None and self.trainer.state.fn is None:
                return self._training_loader(self._data)
            raise PoolError(
                "no record is labelled yet. Label a first set: pool.label(pool.draw(200, seed=0), oracle); "
                "ActiveLearner and pool.rounds(oracle=...) do it for you."
            )
        if self.loader.get("drop_last") and len(ids) < (self.batch_size or 1):
            raise PoolError(
                f"drop_last=True leaves no batch: {len(ids)} labelled records, batch_size={self.batch_size}. "
                "Start with more labels, or a smaller batch."
            )
        bought = list(labels.values()) if self.train_ids is None else [labels[i] for i in ids]
        view = LabelledView(self.stand_in or self._data, ids, bought, self.items)
        dataset, collate = for_training(view, self.loader.get("collate_fn"))
        return self._training_loader(dataset, self.train_sampler, collate_fn=collate)

    def predict_dataloader(self) -> DataLoader:
        """This round's candidates (all unlabelled records where none were chosen), in ascending order of id."""
        ids = self.unlabelled if self.candidates is None else self.candidates
        return self._eval_loader(self.eval_data, sampler=ids.tolist())

    def indexed_dataloader(self, ids: Sequence[int] | np.ndarray, place: Place | None = None) -> DataLoader:
        """``(ids, batch)`` for exactly these ids, in this order: what the scorer reads.

        Args:
            ids: ``(n,)``.
            place: where the target stands in a batch, for a model that is not shown it.
        """
        data = self.stand_in or self.eval_data
        shown = self.items.showing(self.known_label, None if place is None else place.label)
        return loader_for_scoring(data, ids, self.records_at_once, self.loader, shown)

    @property
    def place(self) -> Place | None:
        """Return where the target stands in a batch, found once for these records and their collate function.

        None where collation leaves it where it stands in an item.
        """
        data, collate = self.eval_data, self.loader.get("collate_fn")
        if self._place is None or self._place[0] is not data or self._place[1] is not collate:
            self._place = data, collate, place_of(data, self.items, collate, self.known_label)
        return self._place[2]

    @property
    def known_label(self) -> Any:
        """A label that was bought, for the place of a target that nobody knows; None where there is none yet."""
        return next(iter(self._ready().labels.values()), None)
