"""Counting never touches the fit: what is trained is what Lightning alone trains, and the bill has all of it, once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Subset, WeightedRandomSampler

from al_lightning.cost.budget import Budget
from al_lightning.cost.flop_count import FORMULAS
from al_lightning.errors import UnknownFlops, UnsupportedTrainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import Margin, Random
from al_lightning.report.page import write_report
from al_lightning.round_size import Listed
from tests.helpers import CLASSES, ByHand, Net, Records, blobs, learner, net, pool_of, quiet

# ---- what trains: every loss as without counting -------------------------------------------------------------------


class Losses(Net):
    """A Net that notes its losses, and penalises whatever a row asks for."""

    def __init__(self) -> None:
        super().__init__(lr=0.05)
        self.losses: list[float] = []

    def penalty(self, x: Tensor) -> Tensor | float:
        return 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1]) + self.penalty(batch[0])
        self.losses.append(float(loss.detach()))
        return loss


class GradientPenalty(Losses):
    def penalty(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(self(x).logsumexp(1).sum(), x, create_graph=True)
        return slope.square().mean()


class Adversarial(Losses):
    def penalty(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(self(x).square().sum(), x)
        return self(x.detach() + 0.1 * slope.sign()).square().mean()


class Jacobian(Losses):
    def penalty(self, x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.jacrev(self.net))(x).square().mean()


class Functional(Losses):
    def penalty(self, x: Tensor) -> Tensor:
        weights = dict(self.net.named_parameters())
        gradients = torch.func.grad(lambda w: torch.func.functional_call(self.net, w, (x,)).square().mean())(weights)
        return sum((g.square().sum() for g in gradients.values()), torch.zeros(()))


class Energy(Losses):
    """Forward needs autograd, in validation and scoring, too."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            z = x.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(z).logsumexp(1).sum(), z, create_graph=self.training)
            return self.net(z) + slope[:, :CLASSES]


class SpectralNorm(Losses):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.spectral_norm(self.net[0])


class WeightNorm(Losses):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.net[2])


class Orthogonal(Losses):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.orthogonal(self.net[2])


class Checkpointed(Losses):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.net, x, use_reentrant=False)
        return out


class Dropping(Losses):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(nn.functional.dropout(x, 0.3, self.training))


class Compiled(Losses):
    def __init__(self) -> None:
        super().__init__()
        self.fast = torch.compile(self.net, backend="aot_eager")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fast(x)
        return out


class Manual(ByHand, Losses):
    def __init__(self) -> None:
        Losses.__init__(self)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(nn.functional.cross_entropy(self(batch[0]), batch[1]).detach()))
        super().training_step(batch, batch_idx)


class ByClosures(Losses):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


KINDS = [GradientPenalty, Adversarial, Jacobian, Functional, Energy, SpectralNorm, WeightNorm, Orthogonal]
KINDS += [Checkpointed, Dropping, Compiled, Manual, ByClosures]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"precision": "bf16-mixed"},
    "accumulated": {"accumulate_grad_batches": 2},
}
ROWS = [*((kind, "plain") for kind in KINDS), (Losses, "bf16"), (Losses, "accumulated"), (GradientPenalty, "bf16")]


@pytest.mark.parametrize(("kind", "settings"), ROWS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_losses_are_those_of_a_fit_that_is_not_counted(
    kind: type[Losses], settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(folder: str) -> tuple[list[float], Any]:
        torch.manual_seed(0)
        model = kind()
        trainer = quiet(max_epochs=2, **SETTINGS[settings])
        result = learner(tmp_path / folder, trainer, round_size=Listed([12, 6])).fit(model, datamodule=pool_of())
        return model.losses, result.bill

    counted, bill = losses("counted")
    assert bill.flops_unknown == {}
    assert bill.records_trained == 2 * (12 + 18)
    assert bill.rho > 0
    assert "unknown" not in str(bill)
    monkeypatch.setattr("al_lightning.cost.flops.FlopMeter.start", lambda self, kind, **_: None)
    assert counted == losses("not counted")[0]
    torch._dynamo.reset()


# ---- a count that fails -----------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no matrix product be counted."""

    def no(*args: Any, **kwargs: Any) -> int:
        raise ValueError("no formula")

    for op in (torch.ops.aten.addmm, torch.ops.aten.mm):
        monkeypatch.setitem(FORMULAS, op, no)


@pytest.mark.usefixtures("broken")
def test_a_fit_that_cannot_be_counted_goes_on_with_rho_in_seconds(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="FLOPs of") as said:
        result = learner(tmp_path / "run").fit(net(), datamodule=pool_of())
    once = [str(w.message) for w in said if "FLOPs of" in str(w.message)]
    assert len(once) == 3, "a line for each kind: train, validate, forward"
    bill = result.bill
    assert not bill.knows_flops
    assert set(bill.flops_unknown) == {"train", "validate", "forward"}
    assert bill.rho == bill.rho_seconds
    assert bill.rho > 1
    assert "unknown" in str(bill)
    assert "no formula" in str(bill)
    assert "in seconds" in str(bill)
    assert bill.to_json()["flops"] is None
    assert bill.to_json()["phases"]["train"]["records"] == 2 * (12 + 18 + 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = learner(tmp_path / "run").fit(net(), datamodule=pool_of())
    assert str(again.bill) == str(bill), "a folder keeps what is not known"
    page = write_report([tmp_path / "run"], tmp_path / "report").page
    assert "unknown" in page.read_text()


@pytest.mark.usefixtures("broken")
def test_a_budget_of_flops_that_cannot_be_counted_is_refused_on_the_first_batch(tmp_path: Path) -> None:
    model = net()
    stop = [Budget(flops=1e12)]
    with pytest.raises(UnknownFlops, match=r"Budget\(flops=1e\+12\).*no formula.*hours="):
        learner(tmp_path, quiet(num_sanity_val_steps=0), stop=stop).fit(model, datamodule=pool_of())
    assert len(model.batches) == 1


@pytest.mark.filterwarnings("ignore:FLOPs of")
@pytest.mark.usefixtures("broken")
def test_other_budgets_are_kept_in_seconds_where_flops_are_unknown(tmp_path: Path) -> None:
    result = learner(tmp_path, stop=[Budget(rho=0.001)]).fit(net(), datamodule=pool_of())
    assert result.reason.kind == "budget"
    assert len(result.history) == 1


def test_an_error_of_the_users_step_is_the_users(tmp_path: Path) -> None:
    class Fails(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 0 and not self.batches:
                self.batches.append(batch[0])
                raise KeyError("mine")
            return super().training_step(batch, batch_idx)

    trainer = quiet()
    with pytest.raises(KeyError, match="mine"):
        learner(tmp_path, trainer, preflight=False).fit(Fails(), datamodule=pool_of())
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


# ---- records ----------------------------------------------------------------------------------------------------


class TimeMajor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x)[0][-1])
        return out


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES)

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat([self.head(self.conv(image[None]).mean((2, 3))) for image in x])


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(50, 8), nn.Linear(8, CLASSES)

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        out: Tensor = self.head(self.bag(*x))
        return out


class Graphs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.node, self.head = nn.Linear(4, 8), nn.Linear(8, CLASSES)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        sums = torch.zeros(int(x["graph"].max()) + 1, 8).index_add(0, x["graph"], self.node(x["nodes"]))
        out: Tensor = self.head(sums)
        return out


def targets(rows: list[Any]) -> Tensor:
    return torch.tensor([row[1] for row in rows])


def time_major(rows: list[Any]) -> Any:
    return torch.stack([row[0] for row in rows], 1), targets(rows)


def images(rows: list[Any]) -> Any:
    return [row[0] for row in rows], targets(rows)


def flat(rows: list[Any]) -> Any:
    starts = torch.tensor([0, *(len(row[0]) for row in rows[:-1])]).cumsum(0)
    return (torch.cat([row[0] for row in rows]), starts), targets(rows)


def graphs(rows: list[Any]) -> Any:
    graph = torch.cat([torch.full((len(row[0]),), i) for i, row in enumerate(rows)])
    return {"nodes": torch.cat([row[0] for row in rows]), "graph": graph}, targets(rows)


SHAPES: dict[str, tuple[Callable[[int], Tensor], Any, type[nn.Module]]] = {
    "time first": (lambda i: torch.full((25, 4), i / 60.0), time_major, TimeMajor),
    "images in a list": (lambda i: torch.full((3, 8 + i % 3, 9), i / 60.0), images, Images),
    "flat tokens": (lambda i: torch.arange(20 + i % 30) % 50, flat, Bag),
    "graphs": (lambda i: torch.full((3 + i % 5, 4), i / 60.0), graphs, Graphs),
}


class AnyShape(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), batch_size=len(batch[1]))


@pytest.mark.parametrize("name", SHAPES)
def test_records_are_counted_whatever_a_batch_looks_like(name: str, tmp_path: Path) -> None:
    make, collate, build = SHAPES[name]
    data = Records([(make(i), i % CLASSES) for i in range(60)])
    model = AnyShape()
    model.net = build()
    pool = pool_of(data, val=Subset(data, range(9)), loader={"collate_fn": collate})
    result = learner(tmp_path, query=Random(), round_size=Listed([12, 6])).fit(model, datamodule=pool)
    assert result.bill.lines["train"].records == 2 * (12 + 18)
    assert result.bill.lines["validate"].records == 2 * (9 + 2 * 9)
    assert result.bill.reference is not None
    assert result.bill.reference.records == 2 * 18


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Records([blobs()[i] for i in range(11)]))


class Buckets(PoolDataModule):
    """Batches of two sizes, from a batch sampler."""

    def train_dataloader(self) -> DataLoader[Any]:
        mine = super().train_dataloader()
        half = len(mine.dataset) // 2
        batches = [range(half), range(half, half + 2), range(half + 2, len(mine.dataset))]
        return DataLoader(mine.dataset, batch_sampler=[list(b) for b in batches], collate_fn=mine.collate_fn)


class Balanced(PoolDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        mine = super().train_dataloader()
        sampler = WeightedRandomSampler([1.0] * len(mine.dataset), num_samples=10)
        return DataLoader(mine.dataset, batch_size=4, sampler=sampler, collate_fn=mine.collate_fn)


class Fetched(PoolDataModule):
    """The data set is given lists of positions: the loader itself does not batch."""

    def train_dataloader(self) -> DataLoader[Any]:
        mine = super().train_dataloader()
        whole = Whole(mine)
        return DataLoader(whole, batch_size=None, sampler=BatchSampler(RandomSampler(whole), 5, drop_last=False))


class Whole(Records):
    def __init__(self, loader: DataLoader[Any]) -> None:
        self.dataset, self.collate = loader.dataset, loader.collate_fn

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, positions: Any) -> Any:
        return self.collate(self.dataset.__getitems__(positions))  # type: ignore[attr-defined]


class WithUnlabelled(PoolDataModule):
    """Labelled records, and a stream of others beside them."""

    def train_dataloader(self) -> Any:
        others = DataLoader(Subset(self.training_data, range(40)), batch_size=5)
        return CombinedLoader({"labelled": super().train_dataloader(), "others": others}, "max_size_cycle")


LOADERS: dict[str, tuple[type[PoolDataModule], dict[str, Any], dict[str, Any], int]] = {
    "as it is": (PoolDataModule, {}, {}, 12 + 18),
    "workers": (PoolDataModule, {"loader": {"num_workers": 1}}, {}, 12 + 18),
    "persistent workers": (PoolDataModule, {"loader": {"num_workers": 1, "persistent_workers": True}}, {}, 12 + 18),
    "drop last": (PoolDataModule, {"loader": {"drop_last": True}}, {}, 8 + 16),
    "limited batches": (PoolDataModule, {}, {"limit_train_batches": 1}, 8 + 8),
    "a batch sampler": (Buckets, {}, {}, 12 + 18),
    "a sampler": (Balanced, {}, {}, 10 + 10),
    "lists of positions": (Fetched, {}, {}, 12 + 18),
    "beside a stream": (WithUnlabelled, {}, {}, (4 * 12) + (8 + 8 + 2 + 8 + 8 + 2 + 8 + 8)),
}


class Dicts(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch["labelled"] if isinstance(batch, dict) else batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*ambiguous collection")
@pytest.mark.parametrize("name", LOADERS)
def test_records_are_those_that_the_loaders_served(name: str, tmp_path: Path) -> None:
    kind, more, settings, served = LOADERS[name]
    pool = kind(blobs(), val=blobs(9, seed=1), task="multiclass", batch_size=8, **more)
    model = Dicts()
    trainer = quiet(max_epochs=2, **settings)
    result = learner(tmp_path, trainer, query=Random(), round_size=Listed([12, 6])).fit(model, datamodule=pool)
    assert result.bill.records_trained == sum(len(x) for x in model.batches)
    assert result.bill.records_trained == 2 * served


def test_records_of_a_validation_stream(tmp_path: Path) -> None:
    class Streams(PoolDataModule):
        def val_dataloader(self) -> list[Any]:
            return [DataLoader(Stream(), batch_size=4), DataLoader(blobs(9, seed=1), batch_size=4)]

    class Two(Net):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx)

    pool = Streams(blobs(), task="multiclass", batch_size=8)
    trainer = quiet(max_epochs=1, num_sanity_val_steps=0)
    result = learner(tmp_path, trainer, query=Random(), round_size=Listed([12])).fit(Two(), datamodule=pool)
    assert result.bill.lines["validate"].records == 11 + 9


# ---- tuning callbacks -------------------------------------------------------------------------------------------

TUNERS: dict[str, Callable[[], Any]] = {
    "learning rate": lambda: LearningRateFinder(num_training_steps=20),
    "batch size": lambda: BatchSizeFinder(init_val=2, steps_per_trial=2, max_trials=3),
    "batch size, by halving": lambda: BatchSizeFinder("binsearch", init_val=2, steps_per_trial=2, max_trials=3),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TUNERS)
def test_what_tuning_callbacks_train_is_on_the_bill(name: str, tmp_path: Path) -> None:
    model, pool = Net(), pool_of()
    trainer = quiet(callbacks=[TUNERS[name]()], default_root_dir=tmp_path)
    result = learner(tmp_path / "run", trainer, query=Margin(), round_size=Listed([12, 6])).fit(model, datamodule=pool)
    assert result.bill.records_trained == sum(len(x) for x in model.batches)
    assert result.bill.records_trained > 2 * (12 + 18)
    assert result.bill.reference is not None
    assert result.bill.reference.records == 2 * 18
    assert result.bill.rho == pytest.approx(result.bill.flops / result.bill.reference.flops)
    assert (model.lr, pool.batch_size) == (0.1, 8), "the user's settings are the user's"


@pytest.mark.filterwarnings("ignore")
def test_a_batch_size_that_was_found_is_trained_with(tmp_path: Path) -> None:
    model, pool = Net(), pool_of()
    trainer = quiet(callbacks=[BatchSizeFinder(init_val=2, steps_per_trial=2, max_trials=2)], default_root_dir=tmp_path)
    result = learner(tmp_path / "run", trainer, query=Random(), round_size=Listed([12])).fit(model, datamodule=pool)
    assert result.trainer is not None
    found = next(c for c in result.trainer.callbacks if isinstance(c, BatchSizeFinder)).optimal_batch_size  # type: ignore[attr-defined]
    assert found == 4
    assert [len(x) for x in model.batches[-6:]] == [4] * 6


def test_a_finder_of_what_the_pool_does_not_read_is_refused(tmp_path: Path) -> None:
    class Sized(Net):
        bs = 4

    model, trainer = Sized(), quiet(callbacks=[BatchSizeFinder(batch_arg_name="bs")])
    with pytest.raises(UnsupportedTrainer, match=r"batch_arg_name='bs'.*batch_size"):
        learner(tmp_path / "run", trainer).fit(model, datamodule=pool_of())
    assert not model.batches
