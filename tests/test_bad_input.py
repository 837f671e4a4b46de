"""Bad input is an error at once, which names the value, what is allowed, and the way out; nothing paid for is lost."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import EveryK, WholePool
from al_lightning.contrib import Gated, Replay
from al_lightning.cost.budget import Budget
from al_lightning.cost.prices import Prices
from al_lightning.errors import BadScores, OutputMismatch, PoolError, PoolExhausted, UnknownMonitor, UnsupportedModel
from al_lightning.oracles.oracle import SKIP, FunctionOracle
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import KCenterGreedy, Margin, Random
from al_lightning.round_size import Fixed, Listed
from al_lightning.stop import FalseStart
from tests.helpers import Net, Records, blobs, learner, net, pool_of, quiet

# ---- monitors ---------------------------------------------------------------------------------------------------


def test_an_unknown_monitor_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownMonitor, match=r"RoundPlateau monitors 'val_accuracy'.*train_loss, val_acc, val_loss"
    ) as e:
        learner(tmp_path, stop=[RoundPlateau("val_accuracy")]).fit(net(), datamodule=pool_of())
    assert e.value.available == ("train_loss", "val_acc", "val_loss")
    # Nothing was bought: with the right name the run begins in the same folder.
    model = net()
    result = learner(tmp_path, stop=[RoundPlateau("val_acc", min_delta=0.5, patience=9)]).fit(
        model, datamodule=pool_of()
    )
    assert len(result.labelled) == 24
    assert len(model.batches) == 2 * (2 + 3 + 3)


def test_an_unknown_monitor_of_stall_detection_names_what_there_is(tmp_path: Path) -> None:
    trainer = quiet(max_epochs=3, callbacks=[StallDetection("train_los")])
    with pytest.raises(UnknownMonitor, match=r"StallDetection monitors 'train_los'.*train_loss, val_acc, val_loss"):
        learner(tmp_path, trainer).fit(net(), datamodule=pool_of())


def test_a_module_that_logs_nothing_is_told_so(tmp_path: Path) -> None:
    class Silent(Net):
        def log(self, *args: Any, **kwargs: Any) -> None: ...

    with pytest.raises(UnknownMonitor, match=r"Available: nothing\. Log it with self\.log\('val_acc'"):
        learner(tmp_path, stop=[RoundPlateau("val_acc")]).fit(Silent(), datamodule=pool_of())


# ---- datasets ---------------------------------------------------------------------------------------------------


class NoLength(Dataset[Any]):
    def __getitem__(self, i: int) -> Any:
        return blobs()[i]


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(blobs())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NoLength(), "NoLength has no length"),
        (Streamed(), "Streamed is not map-style"),
        (Records([]), "Records is empty"),
        (Records([(torch.ones(2),)]), "items are tuple, in which no label has a place"),
        (Records(["text"]), "items are str"),
        ([(1.0, 2)] * 5, None),  # a list of items is a dataset, too
    ],
    ids=["no length", "iterable", "empty", "no target", "bare", "list"],
)
def test_datasets_that_cannot_be_a_pool(data: Any, message: str | None) -> None:
    if message is None:
        assert pool_of(data).size == 5
    else:
        with pytest.raises(PoolError, match=message):
            pool_of(data)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "classification"}, r"task is 'classification'; allowed: multiclass, binary, multilabel, regression"),
        ({"eval_view": blobs(59)}, "eval_view has 59 records, the dataset has 60"),
        ({"keys": ["a"] * 61}, "keys has 61 records, the dataset has 60"),
        ({"features": np.zeros((59, 2))}, r"shape \(59, 2\); expected \(60, d\)"),
        ({"features": np.zeros(60)}, r"shape \(60,\); expected \(60, d\)"),
    ],
)
def test_parts_that_do_not_fit_the_dataset(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        pool_of(**kwargs)


# ---- sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "requested", "available"),
    [
        ({"round_size": Listed([61])}, 61, 60),
        ({"round_size": Fixed(5), "stop": [Budget(labels=100)]}, 100, 60),
        ({"round_size": Fixed(5), "stop": [Budget(labels=55)], "stop_set": 6}, 55, 54),
        ({"stop_set": 70}, 70, 60),
    ],
)
def test_more_than_the_pool_has_is_refused_with_both_counts(
    tmp_path: Path, kwargs: dict[str, Any], requested: int, available: int
) -> None:
    with pytest.raises(PoolExhausted, match=rf"\b{requested}\b.*\b{available} available") as error:
        learner(tmp_path / "run", **kwargs).fit(net(), datamodule=pool_of())
    assert (error.value.requested, error.value.available) == (requested, available)
    assert not (tmp_path / "run").exists()


def test_the_last_round_takes_what_is_left(tmp_path: Path) -> None:
    result = learner(tmp_path, round_size=Fixed(25)).fit(net(), datamodule=pool_of())
    assert [r.queried for r in result.history] == [25, 25, 10]
    assert result.reason.kind == "exhausted"


# ---- outputs and scores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "output", "message"),
    [
        ("multiclass", lambda x: x.sum(-1), r"shape \(8,\) for a batch of 8 records; task='multiclass' means \(8, C\)"),
        ("multiclass", lambda x: x[:, :1], r"shape \(8, 1\).*C >= 2"),
        ("multiclass", lambda x: x[:4], r"shape \(4, 4\) for a batch of 8"),
        ("multiclass", lambda x: x[:, :, None].expand(-1, -1, 5), r"shape \(8, 4, 5\)"),
        ("binary", lambda x: x, r"shape \(8, 4\).*task='binary' means \(8,\) or \(8, 1\)"),
        ("multilabel", lambda x: x.sum(-1), r"shape \(8,\).*task='multilabel'"),
        ("regression", lambda x: x[:3], r"shape \(3, 4\).*task='regression'"),
        ("multiclass", lambda x: [x], r"the model returned list.*infer\(batch\) method"),
        ("multiclass", lambda x: {"scores": x}, "the model returned dict"),
    ],
)
def test_outputs_other_than_the_task_says(tmp_path: Path, task: str, output: Any, message: str) -> None:
    class Other(Net):
        def forward(self, x: Tensor) -> Any:
            return output(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net(batch[0]).sum()

        validation_step = None  # type: ignore[assignment]

    class NeedsLogits(Random):  # a strategy for any task
        requires = frozenset({"logits"})

    several = task == "multilabel"
    oracle = FunctionOracle(lambda i: [i % 2, 1] if several else i % 2)
    run = learner(tmp_path, quiet(max_epochs=1), query=NeedsLogits(), oracle=oracle)
    data = TensorDataset(blobs().tensors[0], torch.ones(60, 2)) if several else blobs()
    with pytest.raises(OutputMismatch, match=message):
        run.fit(Other(), datamodule=pool_of(data, task=task, val=None))


def test_strategies_on_classes_refuse_a_regression(tmp_path: Path) -> None:
    with pytest.raises(
        OutputMismatch, match=r"Margin cannot query for task='regression'; it takes multiclass.*KCenterGreedy"
    ):
        learner(tmp_path / "margin").fit(net(), datamodule=pool_of(task="regression"))
    with pytest.raises(
        OutputMismatch, match=r"stop_set=\d+ measures agreement of classes, and task='regression' has none"
    ):
        learner(tmp_path / "stop", query=Random(), stop_set=5).fit(net(), datamodule=pool_of(task="regression"))
    assert not (tmp_path / "margin").exists()  # nothing was spent


class Nan(Net):
    """Returns NaN for some records while it is broken."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.load_state_dict(net().state_dict())
        self.broken = [tuple(blobs().tensors[0][i].tolist()) for i in broken]

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        if self.training or not self.broken:
            return logits
        return torch.stack(
            [z * np.nan if tuple(r.tolist()) in self.broken else z for r, z in zip(x, logits, strict=True)]
        )


def test_nan_scores_name_the_ids_and_lose_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def label(id: int) -> int:
        asked.append(id)
        return id % 3

    first = learner(tmp_path / "other", round_size=Listed([12])).fit(net(), datamodule=pool_of()).labelled.tolist()
    broken = sorted({5, 17, 33, 48} - set(first))
    with pytest.raises(BadScores) as error:  # one batch would show one of them before a label is bought
        learner(tmp_path / "run", oracle=FunctionOracle(label), preflight=False).fit(
            Nan(tuple(broken)), datamodule=pool_of()
        )
    assert sorted(error.value.ids) == broken
    assert all(f"{id}" in str(error.value) for id in broken)
    assert len(asked) == 12
    fixed = Nan()
    result = learner(tmp_path / "run", oracle=FunctionOracle(label)).fit(fixed, datamodule=pool_of())
    assert len(asked) == 24
    assert result.labelled.tolist() == asked
    assert len(fixed.batches) == 2 * (3 + 3)  # the first round is not trained again
    assert result.bill.records_trained == 2 * (12 + 18 + 24)


def test_a_missing_class_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = learner(tmp_path, oracle=FunctionOracle(lambda i: i % 2)).fit(net(), datamodule=pool_of())
        again = learner(tmp_path, oracle=FunctionOracle(lambda i: i % 2)).fit(net(), datamodule=pool_of())
    told = [str(w.message) for w in caught if "no labelled record" in str(w.message)]
    assert told == ["classes [2] have no labelled record after round 1; the run goes on"]
    assert len(result.labelled) == len(again.labelled) == 24


# ---- labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["cat", -1, 0.5, True, None, [1], float("nan"), float("inf")])
def test_a_label_that_is_no_class_number_is_refused(tmp_path: Path, label: Any) -> None:
    asked: list[int] = []

    class Answers:
        def ask(self, request: Any) -> None:
            self.ids = request.ids.tolist()
            asked.extend(self.ids)

        def collect(self) -> dict[int, Any]:
            return {id: label if id == self.ids[3] else id % 3 for id in self.ids}

    with pytest.raises(PoolError, match=r"the label of id \d+ is .*takes class numbers 0, 1, \.\.\. or SKIP"):
        learner(tmp_path, oracle=Answers()).fit(net(), datamodule=pool_of())
    result = learner(tmp_path, oracle=FunctionOracle(lambda i: i % 3)).fit(net(), datamodule=pool_of())
    assert result.labelled[:12].tolist() == asked


def test_binary_labels_are_0_and_1() -> None:
    pool = pool_of(task="binary")
    with pytest.raises(PoolError, match="the label of id 4 is 2; task='binary' takes 0, 1 or SKIP"):
        pool.label([3, 4], {3: 1, 4: 2})
    assert pool.label([3, 4], {3: 1.0, 4: 0}) == 2


def test_labels_given_by_hand_are_checked_before_anything_is_stored() -> None:
    pool = pool_of()
    with pytest.raises(PoolError, match="the label of id 4 is 'cat'"):
        pool.label([3, 4], {3: 1, 4: "cat"})
    assert len(pool.labelled) == 0
    assert len(pool.state.waiting) == 0
    assert pool.label([3, 4], {3: 1, 4: SKIP}) == 1


@pytest.mark.parametrize(
    ("ids", "answers", "message"),
    [
        ([60], {60: 1}, r"ids \[60\]: ids of this pool are 0 to 59"),
        ([-1], {-1: 1}, r"ids \[-1\]"),
        ([2, 2], {2: 1}, r"ids \[2\]: given more than once"),
        ([0], {0: 1}, "id 0: it is already labelled"),
        ([1], {1: 1, 9: 2}, "id 9"),
    ],
)
def test_ids_that_cannot_be_labelled(ids: list[int], answers: dict[int, int], message: str) -> None:
    pool = pool_of()
    pool.label([0], {0: 1})
    before = pool.state.status.copy()
    with pytest.raises(PoolError, match=message):
        pool.label(ids, answers)
    assert (pool.state.status == before).all()


def test_training_without_labels_says_what_to_do() -> None:
    with pytest.raises(PoolError, match=r"no record is labelled yet.*pool\.draw"):
        quiet().fit(net(), datamodule=pool_of())


def test_drop_last_that_leaves_no_batch_is_refused() -> None:
    pool = pool_of(loader={"drop_last": True})
    pool.label([0, 1, 2], {0: 0, 1: 1, 2: 2})
    with pytest.raises(PoolError, match=r"drop_last=True leaves no batch: 3 labelled records, batch_size=8"):
        quiet().fit(net(), datamodule=pool)


# ---- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmStart("warm"), r"WarmStart\(mode='warm'\).*reset, keep, shrink_perturb, resume"),  # type: ignore[arg-type]
        (lambda: WarmStart("keep", epochs=0), r"epochs=0"),
        (lambda: WarmStart("keep", rho=0.9), r"rho=0\.9.*final="),
        (lambda: WarmStart("keep", final="previous", final_epochs=2, rho=0.9), r"rho=0\.9.*final_epochs="),
        (lambda: WarmStart("keep", final_average=0.0), r"final_average=0\.0.*0 < final_average <= 1"),
        (lambda: WarmStart("keep", first_epochs=1.5), r"first_epochs=1\.5"),  # type: ignore[arg-type]
        (lambda: Replay(replay=-1), r"replay=-1"),
        (lambda: Gated("keep", gate=0), r"gate=0.*0 < gate <= 1"),
        (lambda: Gated("keep", gate=1.1), r"gate=1\.1"),
        (lambda: WarmStart("keep", final="last"), r"final='last'.*'initial', 'previous'"),  # type: ignore[arg-type]
        (lambda: RoundPlateau("x", mode="up"), r"RoundPlateau\(mode='up'\)"),  # type: ignore[arg-type]
        (lambda: RoundPlateau("x", patience=0), r"patience=0"),
        (lambda: RoundPlateau("x", min_delta=-0.1), r"min_delta=-0\.1"),
        (lambda: StallDetection("x", mode="down"), r"StallDetection\(mode='down'\)"),  # type: ignore[arg-type]
        (lambda: StallDetection("x", patience=0), r"patience=0"),
        (lambda: StallDetection("x", max_restarts=-1), r"max_restarts=-1"),
        (lambda: StallDetection("x", rounds=2), r"rounds=2\) has moved: al_lightning.stop.FalseStart"),  # type: ignore[call-arg]
        (lambda: StallDetection("x", accuracy="y"), r"has moved: al_lightning.stop.FalseStart"),  # type: ignore[call-arg]
        (lambda: StallDetection("x", remedy="luck"), r"remedy='luck'\) has moved: the cause"),  # type: ignore[call-arg]
        (lambda: StallDetection("x", patience=0.0), r"patience=0\.0.*a share of the fit's epochs"),
        (lambda: StallDetection("x", patience=1.5), r"patience=1\.5"),
        (lambda: StallDetection("x", reference="luck"), r"reference='luck'.*'chance'"),  # type: ignore[arg-type]
        (lambda: FalseStart("x", control=0.6), r"control=0\.6.*0 < control <= 0\.5"),
        (lambda: FalseStart("x", min_gap=-0.1), r"min_gap=-0\.1"),
        (lambda: FalseStart("x", agreement=2), r"agreement=2"),
        (lambda: Budget(), r"Budget\(\) limits nothing.*labels, flops, hours, money, rho"),
        (lambda: Budget(labels=0), r"Budget\(labels=0\)"),
        (lambda: Budget(rho=float("nan")), r"Budget\(rho=nan\)"),
        (lambda: Budget(hours=-1), r"Budget\(hours=-1\)"),
        (lambda: Prices(label=-1), r"Prices\(label=-1\)"),
        (lambda: Prices(hour=float("nan")), r"Prices\(hour=nan\)"),
    ],
)
def test_settings_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"fit": Gated("keep", gate=0.5)}, r"Gated\(gate=\.\.\.\).*stop_set="),
        ({"stop_set": -1}, "stop_set=-1"),
        ({"initial": Margin()}, r"initial=Margin\(\) needs the model"),
        ({"candidates": EveryK(WholePool(), 2), "query": KCenterGreedy()}, "EveryK .*KCenterGreedy"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path: Path, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(tmp_path / "run", **kwargs).fit(net(), datamodule=pool_of())
    assert not (tmp_path / "run").exists()


def test_freezing_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"freeze='trunk' names no parameter; top-level names are net"):
        learner(tmp_path, fit=WarmStart("keep", freeze=("trunk",))).fit(net(), datamodule=pool_of())


def test_a_model_for_fewer_classes_than_labels_fails_in_the_users_own_words(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="Target 7 is out of bounds"):
        learner(tmp_path, oracle=FunctionOracle(lambda i: 7)).fit(net(), datamodule=pool_of())
    assert isinstance(PoolDataModule(TensorDataset(torch.ones(3, 2), torch.ones(3)), task="regression").size, int)
