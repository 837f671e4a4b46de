"""The user's own LightningDataModule, behind a pool: what their module asks of it, and what Lightning calls on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from al_lightning.contrib import Replay
from al_lightning.errors import PoolChanged, PoolError
from al_lightning.features.source import RawInputs
from al_lightning.oracles.oracle import DatasetOracle
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import DistanceWeighted, Margin
from al_lightning.round_size import Listed
from tests.helpers import CLASSES, WIDTH, Net, Records, blobs, ids_in, learner, net, pool_of, quiet


class Data(L.LightningDataModule):
    """A DataModule as projects have it: hyperparameters, what it learns of its data, hooks, and a log of its calls."""

    num_classes = CLASSES

    def __init__(self, batch_size: int = 8, size: int = 60) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.prepare_data_per_node = False
        self.calls: list[str] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {TrainerFn(stage).value}")
        self.train, self.val, self.held_out = blobs(self.hparams.size), blobs(9, seed=1), blobs(12, seed=2)
        self.mean = self.train.tensors[0].mean(0)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=self.hparams.batch_size)

    def test_dataloader(self) -> Any:
        return DataLoader(self.held_out, batch_size=self.hparams.batch_size)

    def name_of(self, target: int) -> str:
        return "abc"[target]

    def teardown(self, stage: str) -> None:
        self.calls.append(f"teardown {TrainerFn(stage).value}")

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls.append("load_state_dict")

    def on_exception(self, exception: BaseException) -> None:
        self.calls.append(f"on_exception {exception}")


# ---- what a module asks -------------------------------------------------------------------------------------------


class Asks(Net):
    """Notes what it finds as ``trainer.datamodule``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []


class AsksForClasses(Asks):
    """Builds its last layer by what the DataModule knows."""

    def configure_model(self) -> None:
        if not hasattr(self, "head"):
            self.head = nn.Linear(CLASSES, self.trainer.datamodule.num_classes)
            self.found.append(self.trainer.datamodule.hparams.batch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


class AsksForMethods(Asks):
    """Reads what setup has learnt, and calls a method."""

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule
        assert torch.equal(data.mean, blobs().tensors[0].mean(0))
        self.found.append(data.name_of(1))


class AsksForSteps(Asks):
    """Plans its schedule by the length of the training loader."""

    def configure_optimizers(self) -> Any:
        steps = len(self.trainer.datamodule.train_dataloader()) * self.trainer.max_epochs
        self.found.append(steps)
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class AsksForStepsInSetup(Asks):
    """Plans by the same length in ``setup``, which also runs before there is a label."""

    def setup(self, stage: str) -> None:
        self.steps = len(self.trainer.datamodule.train_dataloader())

    def on_fit_start(self) -> None:
        self.found.append(self.steps)


class AsksForCounts(Asks):
    """Weighs classes by what is labelled by now."""

    def on_fit_start(self) -> None:
        self.found.append(sum(len(y) for _, y in self.trainer.datamodule.train_dataloader()))


class Tells(Asks):
    """Sets what the DataModule reads, as a curriculum does."""

    def on_train_start(self) -> None:
        self.trainer.datamodule.mean = torch.full((WIDTH,), 7.0)
        self.found.append(self.trainer.datamodule.inner.mean[0].item())


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (AsksForClasses, [8]),
        (AsksForMethods, ["b", "b", "b"]),
        (AsksForSteps, [4, 6, 6]),
        (AsksForStepsInSetup, [2, 3, 3]),
        (AsksForCounts, [12, 18, 24]),
        (Tells, [7.0, 7.0, 7.0]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_module_asks_of_its_datamodule(tmp_path: Path, model: Any, found: list[Any]) -> None:
    asking = model()
    result = learner(tmp_path).fit(asking, datamodule=PoolDataModule(Data(), task="multiclass"))
    assert len(result.labelled) == 24
    assert asking.found[-len(found) :] == found


def test_names_of_both_are_the_pools_and_inner_has_theirs() -> None:
    class Named(Data):
        keys, features = "theirs", ["height", "width"]

    inner = Named()
    pool = PoolDataModule(inner, task="multiclass")
    assert pool.keys is None
    assert pool.features is None
    assert pool.inner is inner
    assert pool.inner.keys == "theirs"
    assert not isinstance(pool, Data)
    assert pool.prepare_data_per_node is False


def test_what_neither_has_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'Data' object has no attribute 'vocabulary'"):
        _ = PoolDataModule(Data(), task="multiclass").vocabulary
    with pytest.raises(AttributeError, match="'PoolDataModule' object has no attribute 'vocabulary'"):
        _ = pool_of().vocabulary


def test_an_error_inside_their_setup_is_told_as_it_is() -> None:
    class Broken(Data):
        def setup(self, stage: str) -> None:
            self.train = self.not_there

    with pytest.raises(AttributeError, match="not_there"):
        _ = PoolDataModule(Broken(), task="multiclass").size


def test_hyperparameters_of_the_datamodule_reach_checkpoints_and_loggers(tmp_path: Path) -> None:
    logger = L.loggers.CSVLogger(tmp_path / "logs", name="", version="")
    trainer = quiet(logger=logger, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    model = net()
    learner(tmp_path / "run", trainer).fit(model, datamodule=PoolDataModule(Data(batch_size=6), task="multiclass"))
    assert "batch_size: 6" in (tmp_path / "logs" / "hparams.yaml").read_text()
    (last, *_) = tmp_path.rglob("last.ckpt")
    assert Data.load_from_checkpoint(last).hparams.batch_size == 6


# ---- what Lightning calls -----------------------------------------------------------------------------------------


def test_hooks_are_paired_over_a_run_and_as_in_lightning_after_it(tmp_path: Path) -> None:
    inner, model = Data(), net()
    model.test_step = model.validation_step  # type: ignore[method-assign]
    pool = PoolDataModule(inner, task="multiclass")
    learner(tmp_path).fit(model, datamodule=pool)
    run = ["prepare_data", "setup fit", "setup test", "teardown fit", "teardown test"]
    assert inner.calls == run
    quiet().test(model, datamodule=pool, verbose=False)
    assert inner.calls == [*run, "setup test", "teardown test"]


def test_hooks_get_the_stage_as_lightning_gives_it(tmp_path: Path) -> None:
    class Strict(Data):
        def setup(self, *, stage: TrainerFn) -> None:  # type: ignore[override]
            assert stage.value in ("fit", "test")
            super().setup(stage)

        def teardown(self, *, stage: TrainerFn) -> None:  # type: ignore[override]
            super().teardown(stage.value)

    inner = Strict()
    learner(tmp_path).fit(net(), datamodule=PoolDataModule(inner, task="multiclass"))
    assert inner.calls[-2:] == ["teardown fit", "teardown test"]


def test_a_second_run_sets_up_again(tmp_path: Path) -> None:
    inner = Data()
    pool = PoolDataModule(inner, task="multiclass")
    first = learner(tmp_path / "1").fit(net(), datamodule=pool)
    second = learner(tmp_path / "2").fit(net(), datamodule=pool)
    assert first.labelled.tolist() == second.labelled.tolist()
    assert inner.calls.count("setup fit") == inner.calls.count("teardown fit") == 2


def test_a_datamodule_that_shuffles_its_records_between_two_runs_is_refused(tmp_path: Path) -> None:
    class Reshuffles(Data):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            seed = self.calls.count("setup fit")
            self.train, _ = random_split(self.train, [40, 20], generator=torch.Generator().manual_seed(seed))

    pool = PoolDataModule(Reshuffles(), task="multiclass")
    learner(tmp_path / "1").fit(net(), datamodule=pool)
    with pytest.raises(PoolChanged, match="reordered"):
        learner(tmp_path / "2").fit(net(), datamodule=pool)


def test_a_hand_written_loop_tears_down_at_its_end() -> None:
    inner = Data()
    pool = PoolDataModule(inner, task="multiclass")
    for round in pool.rounds(sizes=Listed([12, 6])):
        quiet().fit(net(), datamodule=pool)
        if not round.final:
            pool.label(pool.draw(round.size), DatasetOracle())
    assert inner.calls == ["prepare_data", "setup fit", "setup test", "teardown fit", "teardown test"]


def test_exceptions_of_a_fit_are_told_and_then_it_is_torn_down(tmp_path: Path) -> None:
    class Fails(Net):
        def on_train_epoch_start(self) -> None:
            raise RuntimeError("out of luck")

    inner = Data()
    with pytest.raises(RuntimeError, match="out of luck"):
        learner(tmp_path, preflight=False).fit(Fails(), datamodule=PoolDataModule(inner, task="multiclass"))
    assert inner.calls[3:] == ["on_exception out of luck", "teardown fit", "teardown test"]


def test_state_goes_into_checkpoints_and_comes_back(tmp_path: Path) -> None:
    inner, model = Data(), net()
    model.test_step = model.validation_step  # type: ignore[method-assign]
    pool = PoolDataModule(inner, task="multiclass")
    trainer = quiet(enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    learner(tmp_path / "run", trainer).fit(model, datamodule=pool)
    (last, *_) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=False)["PoolDataModule"]["calls"][:2] == ["prepare_data", "setup fit"]
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        quiet().test(model, datamodule=pool, ckpt_path=str(last), verbose=False)
    assert "load_state_dict" in inner.calls
    assert len(pool.labelled) == 24


def test_the_wrapped_datamodule_knows_the_trainer_of_each_fit(tmp_path: Path) -> None:
    inner = Data()
    pool = PoolDataModule(inner, task="multiclass")
    result = learner(tmp_path).fit(net(), datamodule=pool)
    assert inner.trainer is pool.trainer is result.trainer


@pytest.mark.filterwarnings("ignore:You have overridden .on_before_batch_transfer. in both:UserWarning")
def test_transfer_hooks_of_the_datamodule_come_before_the_modules() -> None:
    class Moves(Data):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] + 100, batch[1]

    class AlsoMoves(Net):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] - 100, batch[1]

    def trained(data: L.LightningDataModule) -> bool:
        model = AlsoMoves()
        quiet(limit_val_batches=0).fit(model, datamodule=data)
        return bool((model.batches[0] > 50).all())

    pool = PoolDataModule(Moves(), task="multiclass")
    pool.label(range(12), {i: i % 3 for i in range(12)})
    assert trained(pool) is True
    assert trained(Moves()) is True


# ---- how it loads ---------------------------------------------------------------------------------------------------


class Loads(Data):
    """Trains on what a function makes of its dataset."""

    def __init__(self, loader: Any, data: Any = None) -> None:
        super().__init__()
        self.make, self.data = loader, data

    def train_dataloader(self) -> Any:
        return self.make(self.train if self.data is None else self.data)


class FollowsBatches(DataLoader):
    """A subclass that only sets what it loads with, as those for graphs do."""

    def __init__(self, dataset: Any, **settings: Any) -> None:
        super().__init__(dataset, collate_fn=lambda items: torch.utils.data.default_collate(items), **settings)


class Prefetches(DataLoader):
    """A subclass that loads in a way of its own."""

    def __iter__(self) -> Any:
        return iter(list(super().__iter__()))


class Halves(BatchSampler):
    """A batch sampler of the user's."""


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(blobs())


class CountedStream(Stream):
    def __len__(self) -> int:
        return 60


@pytest.mark.parametrize(
    "make",
    [
        lambda data: DataLoader(data, batch_size=8, shuffle=True),
        lambda data: DataLoader(data, batch_size=8),
        lambda data: DataLoader(data, batch_size=8, sampler=RandomSampler(data)),
        lambda data: DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 8, drop_last=True)),
        lambda data: DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3)),
        lambda data: DataLoader(data, batch_size=8, shuffle=True, drop_last=True),
        lambda data: DataLoader(data, batch_size=8, shuffle=True, num_workers=1, persistent_workers=True),
        lambda data: FollowsBatches(data, batch_size=8, shuffle=True),
        lambda data: DataLoader(data, 8, shuffle=True, collate_fn=lambda items: [torch.stack([x for x, _ in items]),
                                torch.tensor([int(y) for _, y in items])]),
    ],
    ids=["shuffled", "in order", "sampler", "batches", "generator", "drop last", "workers", "subclass", "collate"],
)  # fmt: skip
def test_a_fit_sees_the_batches_of_the_users_own_loader(make: Any) -> None:
    """Plain Lightning on the labelled part, by the same loader, from the same generator."""
    ids, plain, ours = list(range(0, 40, 2)), net(), net()
    torch.manual_seed(5)
    quiet().fit(plain, make(Subset(blobs(), ids)), DataLoader(blobs(9, seed=1), batch_size=8))
    pool = PoolDataModule(Loads(make), task="multiclass")
    pool.label(ids, {i: i % 3 for i in ids})
    torch.manual_seed(5)
    quiet().fit(ours, datamodule=pool)
    assert len(plain.batches) == len(ours.batches)
    assert all(map(torch.equal, plain.batches, ours.batches))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: DataLoader(data, 8, sampler=WeightedRandomSampler([1.0] * 60, 60)), "WeightedRandomSampler, a"),
        (lambda data: DataLoader(data, 8, sampler=SubsetRandomSampler(range(30))), "SubsetRandomSampler, a sampler"),
        (lambda data: DataLoader(data, 8, sampler=RandomSampler(data, num_samples=30)), "RandomSampler, a sampler of"),
        (lambda data: DataLoader(data, batch_sampler=Halves(RandomSampler(data), 8, False)), "Halves, a batch sampler"),
        (lambda data: DataLoader(data, batch_size=None), "batch_size=None: its dataset serves batches"),
        (lambda data: Prefetches(data, batch_size=8), "Prefetches, __iter__ of its own"),
        (lambda data: {"a": DataLoader(data), "b": DataLoader(data)}, "returned dict; a pool needs one DataLoader"),
        (lambda data: CombinedLoader({"a": DataLoader(data)}), "returned CombinedLoader; a pool needs one"),
        (lambda data: [DataLoader(data), DataLoader(data)], "returned list; a pool needs one DataLoader"),
        (lambda data: DataLoader(Stream(), batch_size=8), "Stream is not map-style"),
        (lambda data: DataLoader(CountedStream(), batch_size=8), "CountedStream is not map-style"),
    ],
    ids=["weighted", "subset", "fewer", "batch sampler", "batches", "own way", "dict", "combined", "list", "stream",
         "counted stream"],
)  # fmt: skip
def test_ways_to_load_that_mean_nothing_on_the_labelled_part_are_refused(
    tmp_path: Path, make: Any, message: str
) -> None:
    model = net()
    with pytest.raises(PoolError, match=message):
        learner(tmp_path).fit(model, datamodule=PoolDataModule(Loads(make), task="multiclass"))
    assert not model.batches


class Balanced(PoolDataModule):
    """Draws every class equally often."""

    def train_dataloader(self) -> Any:
        part = super().train_dataloader()
        labels = torch.as_tensor(part.dataset.labels)
        sampler = WeightedRandomSampler((1 / labels.bincount())[labels].tolist(), num_samples=len(part.sampler))
        return DataLoader(part.dataset, self.batch_size, sampler=sampler, collate_fn=part.collate_fn)


@pytest.mark.parametrize("wraps", ["a dataset", "a DataModule with that sampler"])
def test_a_subclass_samples_the_labelled_part_its_own_way(tmp_path: Path, wraps: str) -> None:
    def weighted(data: Any) -> DataLoader:
        return DataLoader(data, 8, sampler=WeightedRandomSampler([1.0] * 60, 60))

    data = blobs()
    inner = data if wraps == "a dataset" else Loads(weighted, data)
    pool = Balanced(inner, task="multiclass", batch_size=8, val=blobs(9, seed=1))
    model = net()
    result = learner(tmp_path, quiet(max_epochs=4)).fit(model, datamodule=pool)
    last = model.batches[-12:]  # 24 labels in batches of 8, four times
    assert set(ids_in(last, data)) <= set(result.labelled.tolist())
    assert len(set(map(len, last))) == 1


def test_distilling_and_a_loader_of_ones_own_do_not_go_together(tmp_path: Path) -> None:
    fit = Replay(replay=1.0, distill=0.5)
    with pytest.raises(PoolError, match=r"Replay.distill=.* and Balanced has a train_dataloader.. of its own"):
        learner(tmp_path, fit=fit).fit(net(), datamodule=Balanced(blobs(), task="multiclass"))


def test_unlabelled_records_beside_labelled_ones(tmp_path: Path) -> None:
    """The labelled stream is what this fit trains on; the other one has what is left, without targets."""
    data = blobs()

    class Inputs(Dataset[Any]):
        def __init__(self, pool: PoolDataModule) -> None:
            self.pool, self.ids = pool, pool.unlabelled.tolist()

        def __len__(self) -> int:
            return len(self.ids)

        def __getitem__(self, i: int) -> Tensor:
            return self.pool.read_input(self.ids[i])

    class Streams(PoolDataModule):
        def train_dataloader(self) -> Any:
            streams = {"labelled": super().train_dataloader(), "rest": DataLoader(Inputs(self), 8, shuffle=True)}
            return CombinedLoader(streams, "max_size_cycle")

    class OnBoth(Net):
        def log(self, name: str, value: Any, **more: Any) -> None:
            super().log(name, value, **{**more, "batch_size": 8})

        def __init__(self) -> None:
            super().__init__()
            self.rest: list[Tensor] = []

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            assert not set(ids_in([batch["rest"]], data)) & set(ids_in([batch["labelled"][0]], data))
            self.rest.append(batch["rest"])
            return super().training_step(batch["labelled"], batch_idx) + 0 * self(batch["rest"]).sum()

    model, pool = OnBoth(), Streams(data, task="multiclass", batch_size=8, val=blobs(9, seed=1))
    result = learner(tmp_path, quiet(max_epochs=1)).fit(model, datamodule=pool)
    assert set(ids_in(model.batches, data)) == set(result.labelled.tolist())
    assert sorted(ids_in(model.rest[-5:], data)) == pool.unlabelled.tolist()  # 36 of them in batches of 8


# ---- what else is given as data -------------------------------------------------------------------------------------


class Table:
    """In the manner of Hugging Face's datasets: a row is a dict, several rows are a dict of lists."""

    def __init__(self) -> None:
        self.features = {"left": "float", "right": "float", "label": "class"}
        self.rows = [{"left": x[:2].tolist(), "right": x[2:].tolist(), "label": int(y)} for x, y in blobs()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return [row[key] for row in self.rows]
        if isinstance(key, int):
            return dict(self.rows[key])
        return {name: [self.rows[i][name] for i in key] for name in self.features}


class BatchedTable(Table):
    """The same, with the method that PyTorch's loaders ask for."""

    def __getitems__(self, keys: list[int]) -> list[Any]:
        assert all(type(key) is int for key in keys)
        return [self[key] for key in keys]


class NotValidated(Net):
    """Trains only, and logs nothing."""

    validation_step = None  # type: ignore[assignment]

    def log(self, *args: Any, **kwargs: Any) -> None: ...


class OnRows(NotValidated):
    """Reads two columns."""

    def forward(self, left: Any, right: Any) -> Tensor:
        columns = [torch.stack(list(x), -1) if isinstance(x, list) else x for x in (left, right)]
        return self.net(torch.cat(columns, -1).float())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch["left"], batch["right"]), batch["label"])


class ByWholeNumbers(Dataset[Any]):
    """Takes Python's ints and nothing else, as lists of a JSON file do where ids are keys."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, id: int) -> Any:
        assert type(id) is int, f"id {id!r} is a {type(id).__name__}"
        return blobs()[id]


@pytest.mark.parametrize("table", [Table, BatchedTable])
def test_rows_of_a_table_are_records(tmp_path: Path, table: Any) -> None:
    pool = PoolDataModule(table(), task="multiclass", target_key="label", batch_size=8)
    assert len(learner(tmp_path).fit(OnRows(), datamodule=pool).labelled) == 24


@pytest.mark.parametrize(
    "data",
    [
        lambda: Subset(blobs(90), range(10, 70)),
        lambda: ConcatDataset([blobs(20), blobs(40, seed=3)]),
        lambda: random_split(blobs(70), [60, 10])[0],
        lambda: [(x, int(y)) for x, y in blobs()],
        ByWholeNumbers,
    ],
    ids=["subset", "concatenated", "split", "list", "whole numbers"],
)
def test_datasets_are_read_by_their_ids(tmp_path: Path, data: Any) -> None:
    records, model = data(), net()
    pool = pool_of(records, features=RawInputs(), keys=list(range(60)))
    result = learner(tmp_path, query=DistanceWeighted(Margin()), stop_set=6).fit(model, datamodule=pool)
    x = torch.stack([records[i][0] for i in range(60)])
    assert sorted(set(ids_in(model.batches, TensorDataset(x)))) == sorted(result.labelled.tolist())


def test_a_dataset_of_tuples_with_more_than_a_target_needs_to_say_which_it_is(tmp_path: Path) -> None:
    """The last element is the target: ``(x, meta, y)``; another order takes attach=."""

    class Meta(NotValidated):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch[0], batch[2]), batch_idx)

        def infer(self, batch: Any) -> Any:
            from al_lightning.scoring.outputs import Outputs

            return Outputs(self(batch[0]))

    items = [(x, i / 60, y) for i, (x, y) in enumerate(blobs())]
    result = learner(tmp_path).fit(Meta(), datamodule=pool_of(Records(items), val=None))
    assert len(result.labelled) == 24
    paths = Records([(x, y, f"{i}.png") for i, (x, y) in enumerate(blobs())])
    with pytest.raises(PoolError, match=r"label of id \d+ is '\d+.png'"):
        learner(tmp_path / "moved").fit(net(), datamodule=pool_of(paths))


LOADER = DataLoader(blobs(), batch_size=8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": LOADER}, "data is a DataLoader: pass its dataset, data=loader.dataset"),
        ({"val": LOADER}, "val is a DataLoader: pass its dataset"),
        ({"test": LOADER}, "test is a DataLoader: pass its dataset"),
        ({"eval_view": LOADER}, "eval_view is a DataLoader"),
        ({"val": [blobs(9), blobs(9)]}, "val is a list of 2 datasets or loaders: pass one"),
        ({"val": [LOADER, LOADER]}, "val is a list of 2 datasets or loaders"),
        ({"data": {"train": blobs(), "test": blobs()}}, "data is a dict of 2 datasets"),
        ({"val": Stream()}, "Stream is not map-style"),
        ({"data": {3: (1.0, 2)}}, "data is a dict of 1"),
        ({"data": pool_of()}, "data is a PoolDataModule: pass a dataset.*a pool is not wrapped again"),
        ({"val": Data()}, "val is a Data: pass a dataset"),
        ({"loader": {"batch_size": 4}}, r"'batch_size'.* pass PoolDataModule\(batch_size="),
        ({"loader": {"sampler": [0]}}, "'sampler'.*subclass of PoolDataModule a train_dataloader"),
        ({"loader": {"worker": 4}}, "'worker'.*allowed: .*num_workers"),
    ],
)
def test_what_is_no_dataset_is_refused_as_the_pool_is_made(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        pool_of(**given)


def test_a_table_that_is_read_by_columns_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(PoolError, match=r"record 0 of DataFrame cannot be read \(KeyError"):
        pool_of(pandas.DataFrame({"x": [1.0, 2.0], "y": [0, 1]}))


class Batches:
    """No DataLoader, and Lightning takes it."""

    def __iter__(self) -> Any:
        return iter([[torch.ones(2, WIDTH), torch.zeros(2)]])


@pytest.mark.filterwarnings("ignore:Your .IterableDataset. has .__len__. defined:UserWarning")
@pytest.mark.filterwarnings("ignore:Total length of .list. across ranks is zero:UserWarning")
@pytest.mark.parametrize(
    ("loaders", "records"),
    [
        (lambda data: [DataLoader(data.val, 8), DataLoader(data.held_out, 8)], 9 + 12),
        (lambda data: {"near": DataLoader(data.val, 8), "far": DataLoader(data.held_out, 8)}, 9 + 12),
        (lambda data: DataLoader(data.train, 8, sampler=SubsetRandomSampler(range(5))), 5),
        (lambda data: DataLoader(CountedStream(), 8), 60),
        (lambda data: [], 0),
    ],
    ids=["two", "named", "sampled", "stream", "none"],
)
def test_labels_of_all_validation_loaders_are_on_the_bill(tmp_path: Path, loaders: Any, records: int) -> None:
    class Validates(Data):
        def val_dataloader(self) -> Any:
            return loaders(self)

    class OnAny(Net):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx)

    result = learner(tmp_path).fit(OnAny(), datamodule=PoolDataModule(Validates(), task="multiclass"))
    assert result.bill.labels == 24 + records


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(Stream(), batch_size=8), "DataLoader of Stream, whose records cannot be counted"),
        (Batches(), "returned a Batches of NoneType"),
    ],
)
def test_validation_that_cannot_be_counted_is_refused(loader: Any, message: str) -> None:
    class Validates(Data):
        def val_dataloader(self) -> Any:
            return loader

    with pytest.raises(PoolError, match=message):
        _ = PoolDataModule(Validates(), task="multiclass").size


def test_sizes_of_batches_apply_to_what_they_say() -> None:
    pool = pool_of(test=blobs(9), eval_batch_size=5, loader={"shuffle": False})
    pool.label(range(12), {i: i % 3 for i in range(12)})
    sizes = {name: [len(x) for x, _ in getattr(pool, f"{name}_dataloader")()] for name in ("train", "val", "test")}
    assert sizes == {"train": [8, 4], "val": [5, 4], "test": [5, 4]}
    assert torch.equal(torch.cat([x for x, _ in pool.train_dataloader()]), blobs().tensors[0][:12])
    assert [len(x) for x, _ in pool.predict_dataloader()] == [5] * 9 + [3]
