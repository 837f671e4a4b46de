"""Mistakes people make, a row each: every one is refused before a label is asked for and a step is trained.

``python -m tests.compat.mistakes`` prints what becomes of each.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from al_lightning import ActiveLearner, Budget, PoolDataModule, RoundPlateau, StallDetection, WarmStart
from al_lightning.candidates import SEALS, RandomSubset, Representatives, ShardShare
from al_lightning.cost.prices import Prices
from al_lightning.errors import (
    ActiveLearningError,
    BadPart,
    BadScores,
    FeaturesMissing,
    OutputMismatch,
    PoolError,
    PoolExhausted,
    PreflightFailed,
    UnknownMonitor,
    UnsupportedModel,
    UnsupportedTrainer,
)
from al_lightning.features import Layer, RawInputs
from al_lightning.oracles import FunctionOracle
from al_lightning.oracles.oracle import DatasetOracle
from al_lightning.query import (
    BADGE,
    BALD,
    ClusterMargin,
    DistanceWeighted,
    InformationDensity,
    KCenterGreedy,
    Margin,
    Variance,
)
from al_lightning.round_size import Listed
from tests.helpers import CLASSES, Net, Records, blobs, net, quiet

# ---- what is asked and trained ------------------------------------------------------------------------------------


class Counted:
    """Answers a query, and counts what it is asked."""

    def __init__(self, label: Callable[[int], Any] = lambda i: i % CLASSES) -> None:
        self.asked = 0
        self._label = label

    def __call__(self, id: int) -> Any:
        self.asked += 1
        return self._label(id)


class Steps(L.Callback):
    """Counts the steps that are trained, of whatever copy of the Trainer."""

    al_shared = True

    def __init__(self) -> None:
        self.trained = 0

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.trained += 1


@dataclass
class Setting:
    """A run that would work: a mistake changes something in it.

    Args:
        model: the module.
        data: records of the pool.
        pool: further arguments of the PoolDataModule.
        trainer: of the Trainer.
        parts: of the ActiveLearner.
        datamodule: what is passed for the pool instead, if something is.
        label: how the oracle answers.
    """

    model: Any
    data: Any
    pool: dict[str, Any]
    trainer: dict[str, Any]
    parts: dict[str, Any]
    datamodule: Any = None
    label: Callable[[int], Any] = lambda i: i % CLASSES

    @classmethod
    def working(cls) -> Setting:
        """The run without a mistake."""
        return cls(net(), blobs(), {"val": blobs(9, seed=1)}, {}, {"query": Margin(), "round_size": Listed([12, 6])})


@dataclass(frozen=True)
class Mistake:
    """A row of the table.

    Args:
        name: of the mistake.
        make: changes a setting that would work.
        error: class of the refusal.
        words: that its message contains.
    """

    name: str
    make: Callable[[Setting], None]
    error: type[ActiveLearningError]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a mistake.

    Args:
        error: what was raised, or None.
        labels: that were asked for.
        steps: that were trained.
    """

    error: BaseException | None
    labels: int
    steps: int

    @property
    def refused(self) -> bool:
        """Whether it was refused by an error of the library's, before anything was spent."""
        return isinstance(self.error, ActiveLearningError) and not self.labels and not self.steps


def refused(mistake: Mistake, folder: Path | None = None) -> Outcome:
    """Make the mistake, and see what becomes of it.

    Args:
        mistake: a row.
        folder: of the run; default: one that is removed afterwards.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return refused(mistake, Path(made) / "run")
    setting, steps = Setting.working(), Steps()
    mistake.make(setting)
    asked = Counted(setting.label)
    error: BaseException | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(setting, folder, FunctionOracle(asked), steps)
    except Exception as found:
        error = found
    return Outcome(error=error, labels=asked.asked, steps=steps.trained)


def run(setting: Setting, folder: Path, oracle: Any, steps: Steps) -> Any:
    """Run a setting."""
    callbacks = [*setting.trainer.pop("callbacks", ()), steps]
    trainer = setting.parts.pop("trainer", None) or quiet(callbacks=callbacks, **setting.trainer)
    learner = ActiveLearner(trainer, **{"run_dir": folder, "oracle": oracle, **setting.parts})
    pool = setting.datamodule
    if pool is None:
        pool = PoolDataModule(setting.data, **{"task": "multiclass", "batch_size": 8, **setting.pool})
    return learner.fit(setting.model, datamodule=pool)


# ---- modules ------------------------------------------------------------------------------------------------------


class DictOut(Net):
    """forward returns a dict."""

    def forward(self, x: Tensor) -> Any:
        return {"scores": self.net(x)}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0])["scores"], batch[1])

    validation_step = None  # type: ignore[assignment]


class WantsTarget(DictOut):
    """forward takes the target, too."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return {"scores": self.net(x)}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(*batch)["scores"], batch[1])


class Raises(Net):
    """Fails somewhere."""

    def __init__(self, where: str) -> None:
        super().__init__()
        setattr(self, where, self._fail)

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("it fails here")


class Narrow(Net):
    """Fewer logits than classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net[2] = nn.Linear(8, 2)


class OneLogit(Net):
    """A logit a record, and a loss that takes it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, 0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self(batch[0]) - batch[1]).square().mean()

    validation_step = None  # type: ignore[assignment]


class NotANumber(Net):
    """Its logits are NaN from the start."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.nan


class NoOptimizer(Net):
    """configure_optimizers is missing."""

    configure_optimizers = L.LightningModule.configure_optimizers  # type: ignore[assignment]


class NoTrainingStep(Net):
    """training_step is missing."""

    training_step = L.LightningModule.training_step  # type: ignore[assignment]


class Plateau(Net):
    """ReduceLROnPlateau of something that nobody logs."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "valid_loss"}}


class Unreadable(Net):
    """Keeps an object in its state_dict, which no checkpoint gives back safely."""

    class Thing:
        """An object of the user's."""

    def get_extra_state(self) -> Any:
        return Unreadable.Thing()

    def set_extra_state(self, state: Any) -> None:
        pass


class Inner(L.LightningDataModule):
    """The user's own DataModule."""

    def train_dataloader(self) -> Any:
        return DataLoader(blobs(), batch_size=8, shuffle=True)


class DictItems(Net):
    """Takes batches that are dicts."""

    def forward(self, x: Tensor, more: Any = None) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    validation_step = None  # type: ignore[assignment]


def bad_collate(items: list[Any]) -> Any:
    """A collate function that fails."""
    raise KeyError("pixels")


def bad_worker(worker: int) -> None:
    """A worker that does not start."""
    raise OSError("no such mount")


class Tuples(Net):
    """Takes the first two elements of its items, however many there are."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def infer(self, batch: Any) -> Tensor:
        return self.net(batch[0] if isinstance(batch, tuple | list) else batch)

    validation_step = None  # type: ignore[assignment]


class Memory(Tuples):
    """Remembers outputs by the number of the record."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + batch[2].float().mean() * self.net(batch[0]).square().mean()


class Normed(Net):
    """Takes no batch of one record."""

    def __init__(self) -> None:
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(self.net[0].out_features))


class Broken(Records):
    """A record that cannot be read: every one."""

    def __getitem__(self, i: int) -> Any:
        if i:
            raise FileNotFoundError(f"images/{i}.png")
        return super().__getitem__(i)


# ---- the table ----------------------------------------------------------------------------------------------------


def parts(**changed: Any) -> Callable[[Setting], None]:
    """Other parts of the learner."""
    return lambda s: s.parts.update(changed)


def pool(**changed: Any) -> Callable[[Setting], None]:
    """Other arguments of the pool."""
    return lambda s: s.pool.update(changed)


def trainer(**changed: Any) -> Callable[[Setting], None]:
    """Other arguments of the Trainer."""
    return lambda s: s.trainer.update(changed)


def model(make: Callable[[], Any]) -> Callable[[Setting], None]:
    """Another module."""
    return lambda s: setattr(s, "model", make())


def data(make: Callable[[], Any]) -> Callable[[Setting], None]:
    """Other records."""
    return lambda s: setattr(s, "data", make())


def passed(make: Callable[[], Any]) -> Callable[[Setting], None]:
    """Something else in the pool's place."""
    return lambda s: setattr(s, "datamodule", make())


def both(*changes: Callable[[Setting], None]) -> Callable[[Setting], None]:
    """Several changes."""
    return lambda s: [change(s) for change in changes] and None


def dicts() -> Any:
    """Records that are dicts of an input and words."""
    x, y = blobs().tensors
    return Records([{"x": a, "more": "words", "y": int(b)} for a, b in zip(x, y, strict=True)])


def behind(last: Callable[[int], Any]) -> Callable[[], Any]:
    """Records of ``(x, class, something else)``."""
    x, y = blobs().tensors
    return lambda: Records([(a, int(b), last(i)) for i, (a, b) in enumerate(zip(x, y, strict=True))])


def targets(make: Callable[[int], Any]) -> Callable[[Setting], None]:
    """The dataset answers, with these."""
    x = blobs().tensors[0]
    records = [(a, make(i)) for i, a in enumerate(x)]
    return both(data(lambda: Records(records)), parts(oracle=DatasetOracle()), pool(val=None))


def omega(value: Any) -> Any:
    """A configuration that nobody has built yet."""
    from omegaconf import OmegaConf

    return OmegaConf.create(value)


def named(monitor: str) -> dict[str, Any]:
    """A row's words for a misspelt monitor."""
    return {"error": UnknownMonitor, "words": (repr(monitor), "Available: ", "train_loss")}


RULE = {"_target_": "al_lightning.Budget", "labels": 20}
UNLABELLED = [(x, -1) for x in blobs().tensors[0]]

MISTAKES = [
    # A class for an instance, a configuration for a part, one thing for another
    Mistake("query: a class", parts(query=Margin), BadPart, ("the class Margin", "query=Margin(...)")),
    Mistake("query: a name", parts(query="margin"), BadPart, ("query is 'margin'", "Margin()")),
    Mistake("query: none", parts(query=None), BadPart, ("query is", "Margin()")),
    Mistake("candidates: a class", parts(candidates=RandomSubset), BadPart, ("candidates=RandomSubset(...)",)),
    Mistake("candidates: a share", parts(candidates=0.3), BadPart, ("candidates is 0.3", "RandomSubset(0.3)")),
    Mistake("fit: a class", parts(fit=WarmStart), BadPart, ("fit=WarmStart(...)",)),
    Mistake("fit: a mode", parts(fit="keep"), BadPart, ("fit is 'keep'", 'WarmStart("keep")')),
    Mistake("stop: a class", parts(stop=[RoundPlateau]), BadPart, ("stop[0]", "RoundPlateau(...)")),
    Mistake("stop: a class alone", parts(stop=Budget), BadPart, ("stop is the class Budget",)),
    Mistake("stop: a number", parts(stop=[400]), BadPart, ("stop[0] is 400", "Budget(labels=400)")),
    Mistake("stop: a DictConfig", lambda s: s.parts.update(stop=[omega(RULE)]), BadPart, ("DictConfig", "instantiate")),
    Mistake("stop: a ListConfig", lambda s: s.parts.update(stop=omega([RULE])), BadPart, ("ListConfig", "instantiate")),
    Mistake("stop: a dict of rules", parts(stop={"labels": Budget(labels=20)}), BadPart, ("stop is dict",)),
    Mistake("oracle: a class", parts(oracle=DatasetOracle), BadPart, ("oracle=DatasetOracle(...)",)),
    Mistake("oracle: a function", parts(oracle=lambda i: 0), BadPart, ("oracle is", "FunctionOracle")),
    Mistake("oracle: labels", parts(oracle=[0, 1, 2]), BadPart, ("FunctionOracle(labels.__getitem__)",)),
    Mistake("initial: a class", parts(initial=KCenterGreedy), BadPart, ("initial=KCenterGreedy(...)",)),
    Mistake("initial: needs the model", parts(initial=Margin()), BadPart, ("initial=Margin()", "Random()")),
    Mistake("round_size: a list", parts(round_size=[20, 10]), BadPart, ("round_size is [20, 10]", "Listed([20, 10])")),
    Mistake("round_size: a share", parts(round_size=0.1), BadPart, ("round_size is 0.1",)),
    Mistake("round_size: nothing", parts(round_size=0), BadPart, ("round_size=0", "1 or more")),
    Mistake("round_size: a class", parts(round_size=Listed), BadPart, ("round_size=Listed(...)",)),
    Mistake("round_size: more than there is", parts(round_size=80), PoolExhausted, ("80", "60 available")),
    Mistake("seed: text", parts(seed="0"), BadPart, ("seed='0'",)),
    Mistake("seed: below zero", parts(seed=-1), BadPart, ("seed=-1", "0 or more")),
    Mistake("prices: a number", parts(prices=0.1), BadPart, ("prices is 0.1", "Prices(")),
    Mistake("prices: a class", parts(prices=Prices), BadPart, ("prices=Prices(...)",)),
    Mistake("trainer: a class", parts(trainer=L.Trainer), BadPart, ("the class Trainer", "Trainer(...)")),
    Mistake("datamodule: the user's own", passed(Inner), BadPart, ("Inner", "PoolDataModule(Inner(...), task=...)")),
    Mistake("datamodule: a class", passed(lambda: Inner), BadPart, ("the class Inner", "PoolDataModule(")),
    Mistake("datamodule: a DataLoader", passed(lambda: DataLoader(blobs())), BadPart, ("(loader.dataset",)),
    Mistake("datamodule: a data set", passed(blobs), BadPart, ("TensorDataset", "PoolDataModule(dataset, task=...)")),
    Mistake("model: a class", model(lambda: Net), BadPart, ("the class Net", "Net(...)")),
    Mistake("model: a plain module", model(lambda: nn.Linear(4, 3)), BadPart, ("Linear", "no LightningModule")),
    Mistake("proxy: a plain module", parts(proxy=nn.Linear(4, 3)), BadPart, ("proxy is Linear",)),
    # Features
    Mistake(
        "DistanceWeighted without features",
        parts(query=DistanceWeighted(Margin())),
        FeaturesMissing,
        ("DistanceWeighted", "features="),
    ),
    Mistake(
        "Representatives without features", parts(candidates=Representatives(0.5)), FeaturesMissing, ("features=",)
    ),
    Mistake("SEALS without features", parts(candidates=SEALS(5)), FeaturesMissing, ("SEALS", "features=")),
    Mistake("a first query without features", parts(initial=KCenterGreedy()), FeaturesMissing, ("KCenterGreedy",)),
    Mistake(
        "density without features", parts(query=InformationDensity(Margin())), FeaturesMissing, ("InformationDensity",)
    ),
    Mistake("no such layer", pool(features=Layer("nowhere")), FeaturesMissing, ("'nowhere'", "net.0")),
    Mistake(
        "a first query by an untrained layer",
        both(pool(features=Layer("net.0")), parts(initial=KCenterGreedy())),
        FeaturesMissing,
        ("has not been fitted", "pretrained=True"),
    ),
    Mistake(
        "RawInputs of dicts",
        both(
            data(dicts), model(DictItems), pool(features=RawInputs(), target_key="y", val=None),
            parts(query=DistanceWeighted(Margin())),
        ),
        FeaturesMissing,
        ("RawInputs()", "Layer("),
    ),
    Mistake(
        "features that are NaN",
        both(pool(features=np.full((60, 3), np.nan)), parts(query=DistanceWeighted(Margin()))),
        BadScores,
        ("features", "NaN"),
    ),
    Mistake(
        "more clusters than records",
        both(pool(features=RawInputs()), parts(candidates=Representatives(0.5, n_clusters=99))),
        PoolError,
        ("n_clusters=99", "60 records"),
    ),
    Mistake("shards of a pool without", parts(candidates=ShardShare(0.5)), PoolError, ("not in shards",)),
    # What is asked of the model
    Mistake("forward returns a dict", model(DictOut), OutputMismatch, ("dict", "infer(batch)")),
    Mistake("forward wants the target", model(WantsTarget), OutputMismatch, ("WantsTarget", "infer(batch)")),
    Mistake("infer raises", model(lambda: Raises("infer")), PreflightFailed, ("it fails here",)),
    Mistake("BADGE without an embedding", parts(query=BADGE()), OutputMismatch, ("BADGE()", "embedding")),
    Mistake(
        "ClusterMargin without features", parts(query=ClusterMargin()), ActiveLearningError, ("ClusterMargin",)
    ),
    Mistake("BALD without dropout", parts(query=BALD()), OutputMismatch, ("no dropout layer",)),
    Mistake("one logit for classes", model(OneLogit), OutputMismatch, ("multiclass", "(8,)", "(8, C)")),
    Mistake("fewer logits than classes", model(Narrow), PreflightFailed, ("training_step", "out of bounds")),
    Mistake("NaN from the start", model(NotANumber), BadScores, ("score", "NaN")),
    Mistake("Variance of classes", parts(query=Variance()), OutputMismatch, ("Variance", "multiclass")),
    # Training
    Mistake("training_step raises", model(lambda: Raises("training_step")), PreflightFailed, ("it fails here",)),
    Mistake("validation_step raises", model(lambda: Raises("validation_step")), PreflightFailed, ("it fails here",)),
    Mistake("optimizers raise", model(lambda: Raises("configure_optimizers")), PreflightFailed, ("it fails here",)),
    Mistake("no optimizers", model(NoOptimizer), PreflightFailed, ("configure_optimizers",)),
    Mistake("no training_step", model(NoTrainingStep), PreflightFailed, ("training_step",)),
    Mistake("a state_dict with an object", model(Unreadable), UnsupportedModel, ("state_dict", "Thing")),
    Mistake("freezing what is not there", parts(fit=WarmStart("keep", freeze=["x"])), UnsupportedModel, ("'x'",)),
    Mistake(
        "shares of epochs without a limit",
        both(trainer(max_epochs=-1), parts(fit=WarmStart("keep", epochs=0.5))),
        UnsupportedTrainer,
        ("max_epochs",),
    ),
    Mistake("no epochs", trainer(max_epochs=0), UnsupportedTrainer, ("max_epochs=0", "trains nothing")),
    Mistake("no steps", trainer(max_steps=0), UnsupportedTrainer, ("max_steps=0", "trains nothing")),
    Mistake("no batches", trainer(limit_train_batches=0), UnsupportedTrainer, ("limit_train_batches=0",)),
    # Monitors
    Mistake("RoundPlateau", parts(stop=[RoundPlateau("val_accuracy", "max")]), **named("val_accuracy")),
    Mistake("StallDetection", parts(stop=[StallDetection("loss")]), **named("loss")),
    Mistake("EarlyStopping", trainer(callbacks=[EarlyStopping("valid_loss")]), **named("valid_loss")),
    Mistake(
        "ModelCheckpoint",
        trainer(callbacks=[ModelCheckpoint(monitor="acc")], enable_checkpointing=True),
        **named("acc"),
    ),
    Mistake("ReduceLROnPlateau", model(Plateau), **named("valid_loss")),
    Mistake("a metric of validation without any", both(pool(val=None), parts(stop=[RoundPlateau("val_acc", "max")])),
            **named("val_acc")),
    Mistake("LearningRateMonitor without a logger", trainer(callbacks=[LearningRateMonitor()]), PreflightFailed,
            ("LearningRateMonitor", "logger")),
    # Data and loaders
    Mistake("records that cannot be read", data(lambda: Broken(list(blobs()))), PreflightFailed, ("images/",)),
    Mistake("a collate function that fails", pool(loader={"collate_fn": bad_collate}), OutputMismatch, ("pixels",)),
    Mistake("workers that do not start", pool(loader={"num_workers": 1, "worker_init_fn": bad_worker}), PreflightFailed,
            ("no such mount",)),
    Mistake("prefetching without workers", pool(loader={"prefetch_factor": 4}), PreflightFailed, ("prefetch_factor",)),
    Mistake("drop_last leaves no batch", pool(loader={"drop_last": True}, batch_size=32), PoolError, ("drop_last",)),
    Mistake("a dataset that answers, without labels", both(data(lambda: Records(UNLABELLED)),
            parts(oracle=DatasetOracle())), PoolError, ("-1", "Pass another oracle")),
    Mistake("a number behind the class", both(model(Tuples), data(behind(lambda i: i % 3)), pool(val=None)), PoolError,
            ("last of the 3 elements", "whatever it is", "attach=")),
    Mistake("a weight behind the class", both(model(Tuples), data(behind(lambda i: 1.0 + i % 2)), pool(val=None)),
            PoolError, ("last of the 3 elements", "1.0", "attach=")),
    Mistake("a position behind the class", both(model(Memory), data(behind(lambda i: i)), pool(val=None),
            parts(oracle=DatasetOracle())), PoolError, ("class numbers 0 to 2",)),
    Mistake("a last batch of one record", both(model(Normed), pool(batch_size=11)), PreflightFailed,
            ("12 labels in batches of 11", "drop_last")),
    Mistake("a later batch of one record", both(model(Normed), pool(batch_size=17)), PreflightFailed,
            ("18 labels in batches of 17", "drop_last")),
    Mistake("names of classes", targets(lambda i: "abc"[i % 3]), PoolError, ("'a'", "Give classes numbers")),
    Mistake("shares of classes", targets(lambda i: torch.eye(3)[i % 3]), PoolError, ("structured",)),
    Mistake("classes in a list of one", targets(lambda i: torch.tensor([i % 3])), PoolError, ("one class number",)),
    Mistake("keys of another length", pool(keys=["a", "b"]), PoolError, ("keys has 2 records",)),
    Mistake("label costs of another length", pool(label_costs=[1.0] * 59), PoolError, ("59 records",)),
]  # fmt: skip
"""Adding a mistake is adding a row."""


if __name__ == "__main__":
    for mistake in MISTAKES:
        found = refused(mistake)
        print("refused" if found.refused else "NOT REFUSED", mistake.name, found, sep=" | ")
