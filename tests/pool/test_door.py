"""A label that cannot be trained on is refused with its id and what is allowed, and never stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from al_lightning import DatasetOracle, PoolDataModule
from al_lightning.errors import PoolError
from al_lightning.oracles import SKIP, FileOracle, FunctionOracle
from al_lightning.pool.suspects import ask_again
from al_lightning.query import Random
from al_lightning.round_size import Listed
from tests.helpers import Records, blobs, fill, ids_of, learner, net, pool_of

X = torch.randn(20, 4)
NAN = float("nan")


def pool(task: str, target: Any = None, collate: Any = None, classes: int = 0) -> PoolDataModule:
    data = Records([(X[i], target) for i in range(20)])
    made = PoolDataModule(data, task=task, loader={} if collate is None else {"collate_fn": collate})
    made.width = classes
    return made


BOXES = {"boxes": torch.zeros(2, 4), "labels": torch.ones(2, dtype=torch.int64)}

# name: task, what the dataset has, classes, the label, what the error says
REFUSED: dict[str, Any] = {
    "class out of range": ("multiclass", 0, 3, 3, "3; task='multiclass' takes class numbers 0 to 2 or SKIP"),
    "class below zero": ("multiclass", 0, 3, -1, "-1; .* class numbers 0 to 2"),
    "class of a tensor": ("multiclass", 0, 3, torch.tensor(7), "7; .* class numbers 0 to 2"),
    "class with a fraction": ("multiclass", 0, 0, 1.5, r"1.5; .* class numbers 0, 1, \.\.\."),
    "class for a text": ("multiclass", 0, 0, "cat", "'cat'; .* class numbers"),
    "binary two": ("binary", 0, 0, 2, "2; task='binary' takes 0, 1 or SKIP"),
    "class number for labels": ("multilabel", torch.zeros(3), 3, 2, "2; .* each of 3 classes.*no class number"),
    "class number in a tensor": ("multilabel", torch.zeros(3), 0, torch.tensor(2), "2; .* 0 or 1 for each class"),
    "too many labels": ("multilabel", torch.zeros(3), 0, [0, 1, 0, 1],
                        r"form \[4\], and the dataset's own targets have \[3\]"),
    "too few labels": ("multilabel", torch.zeros(3), 3, torch.ones(2),
                       r"form \[2\], and the dataset's own targets have \[3\]"),
    "NaN": ("regression", 0.5, 0, NAN, "nan; .* finite numbers"),
    "NaN in a tensor": ("regression", torch.zeros(2), 0, torch.tensor([1.0, NAN]), "nan.*finite numbers"),
    "NaN deep inside": ("structured", BOXES, 0, {**BOXES, "boxes": torch.full((2, 4), NAN)}, "boxes.*finite numbers"),
    "infinity in an array": ("structured", BOXES, 0, {"boxes": np.array([np.inf])}, "finite numbers"),
    "nothing": ("regression", 0.5, 0, [0.5, None], "None.*finite numbers"),
    "text for a number": ("regression", 0.5, 0, "high", "'high'; .* takes numbers"),
    "text for a tensor": ("structured", torch.zeros(2), 0, "high", "cannot take the form of the dataset's own targets"),
    "another shape": ("regression", torch.zeros(2), 0, [1.0, 2.0, 3.0], r"form \[3\], .* have \[2\].*default_collate"),
    "a list for a number": ("regression", torch.tensor(0.5), 0, [1.5], r"form \[1\], .* have \[\]"),
    "a fraction for whole numbers": ("regression", torch.tensor(3), 0, 1.5, "does not fit the dataset's own targets"),
    "one token": ("tokens", torch.zeros(3).long(), 5, 2, "2; .* a class number for every token"),
    "one pixel": ("segmentation", torch.zeros(2, 2).long(), 5, 2, "2; .* a class number for every pixel"),
    "a smaller mask": ("segmentation", torch.zeros(2, 2).long(), 5, [[1, 0]], r"form \[1, 2\], .* have \[2, 2\]"),
    "a key too few": ("structured", {"a": 1, "b": 2.0}, 0, {"a": 1},
                      r"form {'a': \[\]}, .* have {'a': \[\], 'b': \[\]}"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("way", ["answers", "function", "dataset", "again"])
def test_it_is_refused_by_its_id_and_nothing_is_stored(name: str, way: str) -> None:
    task, target, classes, label, message = REFUSED[name]
    made = pool(task, target, classes=classes)
    made._eval_view = Records([(X[i], label if i == 4 else target) for i in range(20)])
    if way == "again":
        made.label([4], {4: SKIP})
    ask: Any = {"answers": {4: label}, "function": FunctionOracle(lambda i: label), "dataset": DatasetOracle()}
    says = "id 4: the dataset holds no label" if way == "dataset" and label is NAN else f"label of id 4 is .*{message}"
    with pytest.raises(PoolError, match=rf"(?s){says}"):
        ask_again(made, [4], ask["answers"]) if way == "again" else made.label([4], ask[way])
    assert made.state.labels == {}
    assert len(made.labelled) == 0


TAKEN: dict[str, Any] = {
    "the last class": ("multiclass", 0, 3, 2),
    "labels": ("multilabel", torch.zeros(3), 3, [0, 1, 1]),
    "labels in an array": ("multilabel", torch.zeros(3), 3, np.array([0, 1, 1])),
    "one number in a vector of one": ("regression", torch.zeros(1), 0, 1.5),
    "ignored pixels": ("segmentation", torch.zeros(2, 2).long(), 5, [[0, 255], [-100, 1]]),
    "a structure": ("structured", BOXES, 0, {"boxes": [[0.0] * 4] * 2, "labels": [1, 1]}),
    "text": ("structured", "a cat", 0, "a dog"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_can_be_trained_on_is_taken(name: str) -> None:
    task, target, classes, label = TAKEN[name]
    made = pool(task, target, classes=classes)
    assert made.label([4, 6], {4: label, 6: SKIP}) == 1
    next(iter(made.train_dataloader()))


def test_labels_of_a_pool_without_targets_are_like_each_other() -> None:
    made = pool("multilabel", None)
    made.label([1], {1: [0, 1, 1]})
    with pytest.raises(PoolError, match=r"the label of id 2 .*form \[2\], and other labels have \[3\]"):
        made.label([2, 3], {2: [0, 1], 3: [1, 1, 1]})
    with pytest.raises(PoolError, match=r"the label of id 6 .*form \[1\], and other labels have \[2\]"):
        pool("multilabel", None).label([5, 6], {5: [1, 1], 6: [1]})


def test_a_collate_function_of_the_users_own_may_take_any_shape() -> None:
    made = pool("regression", torch.zeros(2), collate=lambda rows: rows)
    assert made.label([1, 2], {1: [1.0], 2: [1.0, 2.0, 3.0]}) == 2


def test_classes_are_counted_by_their_names_where_the_dataset_has_some() -> None:
    data = Records([(X[i], 0) for i in range(20)])
    data.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    with pytest.raises(PoolError, match="class numbers 0 to 1"):
        PoolDataModule(data, task="multiclass").label([1], {1: 2})


# ---- in a run --------------------------------------------------------------------------------------------------------


def test_a_class_beyond_the_models_outputs_is_refused_once_they_were_seen(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(i: int) -> int:
        asked.append(i)
        return 9 if len(asked) > 12 else i % 3

    with pytest.raises(PoolError, match=r"the label of id \d+ is 9; .* class numbers 0 to 2"):
        learner(tmp_path, oracle=FunctionOracle(answer)).fit(net(), datamodule=pool_of())
    result = learner(tmp_path, oracle=FunctionOracle(lambda i: i % 3)).fit(net(), datamodule=pool_of())
    assert len(result.labelled) == 24


def unchecked(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a version did that took any label, until a fit fails on one."""
    with monkeypatch.context() as patch:
        patch.setattr(PoolDataModule, "check_labels", lambda self, answers: None)
        with pytest.raises(Exception, match=r"out of bounds|cannot convert float NaN"):
            run()


@pytest.mark.parametrize("value", [9, NAN, -1])
def test_a_folder_that_holds_one_names_it_and_goes_on_once_it_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    asked: list[int] = []

    def answer(i: int) -> Any:
        asked.append(i)
        return value if len(asked) == 15 else i % 3  # in the second query

    def run(label: Callable[[int], Any], pool: PoolDataModule) -> Any:
        return learner(tmp_path, oracle=FunctionOracle(label)).fit(net(), datamodule=pool)

    unchecked(lambda: run(answer, pool_of()), monkeypatch)
    id = asked[14]
    with pytest.raises(PoolError, match=rf"a label that cannot be trained on: the label of id {id} is .*same command"):
        run(lambda i: value if i == id else i % 3, pool_of())
    made = pool_of()
    assert len(run(lambda i: i % 3, made).labelled) == 24
    assert made.state.labels[id] == id % 3


def test_a_wrong_cell_that_was_taken_in_is_mended_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TensorDataset(*blobs().tensors)
    data.classes = ["a", "b", "c"]  # type: ignore[attr-defined]
    made = pool_of(data)

    def run(pool: PoolDataModule) -> Any:
        made = learner(tmp_path, oracle=FileOracle(), query=Random(), round_size=Listed([6, 6]))
        return made.fit(net(), datamodule=pool)

    run(pool_of(data))
    path = tmp_path / "queries" / "round-001.csv"
    id = ids_of(path)[2]
    fill(path, lambda i: "9" if i == id else str(i % 3))
    unchecked(lambda: run(pool_of(data)), monkeypatch)
    with pytest.raises(PoolError, match=f"the label of id {id} is 9"):
        run(pool_of(data))
    fill(path, lambda i: str(i % 3))
    run(made)
    assert made.state.labels[id] == id % 3
