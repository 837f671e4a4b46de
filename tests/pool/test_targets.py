"""What is trained on is what the user's own DataLoader gives, whatever a target is made of and wherever it was kept."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, SequentialSampler, Subset

from al_lightning import DatasetOracle, PoolDataModule
from al_lightning.errors import PoolError
from al_lightning.oracles import FunctionOracle
from al_lightning.pool.label_codec import decode, encode
from tests.helpers import Records
from tests.pool.test_views import equal

IDS = [3, 17, 4, 20, 9, 11]
X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
Pose = namedtuple("Pose", "joints visible")


class Sized(Tensor):
    """A tensor that keeps an attribute, as torchvision's boxes keep the size of their image."""


def sized(i: int) -> Any:
    made = torch.full((2,), float(i)).as_subclass(Sized)
    made.size_of_image = (i, i)  # type: ignore[attr-defined]
    return made


def lists(rows: list[Any]) -> Any:
    return [row[0] for row in rows], [row[1] for row in rows]


def padded(rows: list[Any]) -> Any:
    return torch.stack([x for x, _ in rows]), pad_sequence([y for _, y in rows], batch_first=True, padding_value=-100)


# name: id -> target, collate function
TARGETS: dict[str, tuple[Callable[[int], Any], Any]] = {
    "int": (lambda i: i % 3, None),
    "float": (lambda i: i / 7, None),
    "text": (lambda i: f"caption {i}", None),
    "tensor": (lambda i: X[i, 0], None),
    **{f"scalar {d}": (lambda i, d=d: torch.tensor(i % 3).to(d), None) for d in (
        torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64)},
    **{f"vector {d}": (lambda i, d=d: X[i, :3].to(d), None) for d in (torch.float16, torch.bfloat16, torch.float32)},
    **{f"numpy {d}": (lambda i, d=d: np.dtype(d).type(i % 2), None) for d in ("?", "u1", "i4", "i8", "f2", "f4", "f8")},
    "array": (lambda i: X[i, :3].numpy(), None),
    "array of none dimensions": (lambda i: np.array(i, dtype=np.int16), None),
    "list of numbers": (lambda i: [i, i + 1], None),
    "list of float32": (lambda i: [np.float32(i), np.float32(i + 1)], None),
    "tuple of float32": (lambda i: (X[i, 0], X[i, 1]), None),
    "tuple of a class and float32": (lambda i: (torch.tensor(i % 3), X[i, 1]), None),
    "tuple of numbers": (lambda i: (i % 3, i / 7), None),
    "named tuple": (lambda i: Pose(X[i, :4].reshape(2, 2), torch.tensor([True, i % 2 == 0])), None),
    "dict of float32": (lambda i: {"angle": X[i, 0], "scale": X[i, :2]}, None),
    "dict of numpy": (lambda i: {"angle": np.float32(i), "scale": X[i, :2].numpy()}, None),
    "dict of a class and half": (lambda i: {"class": torch.tensor(i % 3), "size": X[i, :1].half()}, None),
    "dict of numbers and text": (lambda i: {"class": i % 3, "size": i / 7, "name": f"n{i}"}, None),
    "dict of a mask": (lambda i: {"mask": (X[i, :4] > 0).to(torch.uint8).reshape(2, 2)}, None),
    "ordered dict": (lambda i: OrderedDict(flags=X[i, :2] > 0), None),
    "nest": (lambda i: {"a": {"b": (X[i, 0], [i, X[i, 1]])}}, None),
    "large mask": (lambda i: (X[i].repeat(20, 20) > 0).to(torch.uint8), None),
    "detection": (lambda i: {"boxes": torch.rand(i % 3, 4), "labels": torch.ones(i % 3, dtype=torch.int64)}, lists),
    "detection in lists": (lambda i: [{"box": [i, 1, 2, 3.5], "class": i % 3}] * (i % 3), lists),
    "sequence": (lambda i: torch.arange(i % 5 + 1), padded),
    "int beside a collate function": (lambda i: i % 3, lists),
    "with an attribute": (sized, lists),
}  # fmt: skip


def dataset(target: Callable[[int], Any], form: str = "tuple") -> Records:
    items: list[Any] = [(X[i], target(i)) for i in range(len(X))]
    return Records([{"x": x, "y": y} for x, y in items] if form == "dict" else items)


def pool_of(data: Any, task: str = "regression", collate: Any = None, **more: Any) -> PoolDataModule:
    loader = {} if collate is None else {"collate_fn": collate}
    return PoolDataModule(data, task=task, batch_size=4, loader=loader, **more)


def through_the_store(pool: PoolDataModule) -> None:
    pool.state.labels = {i: decode(encode(label)) for i, label in pool.state.labels.items()}


def trained_on(pool: PoolDataModule) -> list[Any]:
    """What a fit gets, in the order of :data:`IDS`."""
    pool.train_ids, pool.train_sampler = np.array(IDS), SequentialSampler(IDS)
    return list(pool.train_dataloader())


@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_batch_is_the_users_own(name: str, form: str) -> None:
    target, collate = TARGETS[name]
    if form == "dict" and collate is not None:
        pytest.skip("its collate function takes tuples")
    data = dataset(target, form)
    task = "structured" if name == "text" else "regression"
    pool = pool_of(data, task, collate, target_key="y" if form == "dict" else None)
    pool.label(IDS, DatasetOracle())
    through_the_store(pool)
    assert equal(trained_on(pool), list(DataLoader(Subset(data, IDS), batch_size=4, collate_fn=collate)))


def test_attributes_of_a_tensors_class_are_those_of_the_record() -> None:
    pool = pool_of(dataset(sized), collate=lists)
    pool.label(IDS, DatasetOracle())
    through_the_store(pool)
    (_, first), _ = trained_on(pool)
    assert [type(y) for y in first] == [Sized] * 4
    assert [y.size_of_image for y in first] == [(i, i) for i in IDS[:4]]


# name: what the dataset holds, what a person or function answers in plain data
ANSWERS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any], Any]] = {
    "numbers": (lambda i: X[i, 0], lambda i: float(X[i, 0]), None),
    "list": (lambda i: X[i, :3], lambda i: X[i, :3].tolist(), None),
    "dict": (lambda i: {"angle": X[i, 0], "scale": X[i, :2]},
             lambda i: {"angle": float(X[i, 0]), "scale": X[i, :2].tolist()}, None),
    "tuple as list": (lambda i: (torch.tensor(i % 3), X[i, 1]), lambda i: [i % 3, float(X[i, 1])], None),
    "named tuple as list": (lambda i: Pose(X[i, :2], torch.tensor([True])),
                            lambda i: [X[i, :2].tolist(), [True]], None),
    "tensors for numbers": (lambda i: {"a": i, "b": i / 7},
                            lambda i: {"a": torch.tensor(i), "b": np.float64(i / 7)}, None),
    "float64 for float32": (lambda i: X[i], lambda i: X[i].double().numpy(), None),
    "no boxes": (lambda i: {"boxes": X[: i % 3, :4]}, lambda i: {"boxes": X[: i % 3, :4].tolist()}, lists),
    "mask": (lambda i: (X[i, :4] > 0).to(torch.uint8), lambda i: (X[i, :4] > 0).int().tolist(), None),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_plain_answers_take_the_types_of_the_datasets_own_targets(name: str) -> None:
    target, answer, collate = ANSWERS[name]
    data = dataset(target)
    pool = pool_of(data, collate=collate)
    pool.label(IDS, FunctionOracle(answer))
    through_the_store(pool)
    assert equal(trained_on(pool), list(DataLoader(Subset(data, IDS), batch_size=4, collate_fn=collate)))


@pytest.mark.parametrize("label", ["a", [[1.0], [2.0, 3.0]], {"x": 1.0}])
def test_a_label_of_another_kind_is_named(label: Any) -> None:
    pool = pool_of(dataset(lambda i: X[i, 0]), collate=lists)
    pool.state.query(IDS)
    pool.state.answer(dict.fromkeys(IDS, label))
    with pytest.raises(PoolError, match=r"the label .* cannot take the form of the dataset's own targets"):
        trained_on(pool)


# ---- pools that nobody has labelled ----------------------------------------------------------------------------------

BLANKS: dict[str, Any] = {
    "None": None, "-1": -1, "-100": -100, "NaN": float("nan"), "text": "", "tensor -1": torch.tensor(-1),
    "int32 -1": torch.tensor(-1, dtype=torch.int32), "tensor NaN": torch.tensor(float("nan")),
    "empty tensor": torch.tensor([]), "empty list": [], "empty array": np.array([]), "numpy -1": np.int64(-1),
    "numpy NaN": np.float32("nan"), "array NaN": np.array(np.nan), "half NaN": torch.tensor(float("nan")).half(),
}  # fmt: skip
MISSING = object()


def blank_pool(blank: Any, form: str, task: str, **more: Any) -> PoolDataModule:
    if form == "dict":
        items: list[Any] = [{"x": x} if blank is MISSING else {"x": x, "y": blank} for x in X]
        return pool_of(Records(items), task, target_key="y", **more)
    return pool_of(Records([(x, blank) for x in X]), task, **more)


@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize("blank", [*BLANKS, "missing"])
@pytest.mark.parametrize("task", ["multiclass", "regression", "multilabel", "tokens"])
def test_no_label_takes_the_dtype_of_a_placeholder(task: str, blank: str, form: str) -> None:
    if (blank, form) == ("missing", "tuple"):
        pytest.skip("a tuple without a target has no place for one")
    answer: Any = {
        "multiclass": lambda i: i % 3,
        "regression": lambda i: i + 0.5,
        "multilabel": lambda i: [i % 2, 1, 0],
        "tokens": lambda i: [i % 3, 1],
    }[task]
    pool = blank_pool(BLANKS.get(blank, MISSING), form, task)
    pool.label(IDS, FunctionOracle(answer))
    through_the_store(pool)
    batch = trained_on(pool)[0]
    labels = batch["y"] if form == "dict" else batch[1]
    assert labels.dtype == torch.int64 if task in ("multiclass", "tokens") else labels.tolist() is not None
    if task == "regression":
        assert labels.is_floating_point()
    assert labels.double().tolist() == [answer(i) for i in IDS[:4]]


@pytest.mark.parametrize("blank", ["None", "tensor -1", "NaN"])
def test_tensors_that_a_function_answers_stay_what_they_are(blank: str) -> None:
    pool = blank_pool(BLANKS[blank], "tuple", "regression")
    pool.label(IDS, FunctionOracle(lambda i: {"boxes": X[i].half(), "n": torch.tensor(i, dtype=torch.uint8)}))
    through_the_store(pool)
    _, labels = trained_on(pool)[0]
    assert (labels["boxes"].dtype, labels["n"].dtype) == (torch.float16, torch.uint8)


def test_a_dataset_that_is_labelled_in_part_gives_its_types_to_all() -> None:
    targets = [torch.tensor(i % 3, dtype=torch.uint8) if i > 6 else None for i in range(24)]
    pool = pool_of(Records([(X[i], targets[i]) for i in range(24)]), "multiclass")
    pool.label(IDS, FunctionOracle(lambda i: i % 3))
    for _, labels in trained_on(pool):
        assert labels.dtype == torch.uint8


@pytest.mark.parametrize("blank", ["None", "NaN", "text", "empty tensor", "missing"])
def test_placeholders_are_no_answers(blank: str) -> None:
    pool = blank_pool(BLANKS.get(blank, MISSING), "dict", "regression")
    with pytest.raises(PoolError, match=r"holds no label.*FunctionOracle"):
        pool.label(IDS, DatasetOracle())
    assert len(pool.labelled) == 0
    assert len(pool.unlabelled) == 24


def test_numbers_that_mean_nothing_are_no_answers_where_every_record_has_them() -> None:
    with pytest.raises(PoolError, match="holds no label of this record, but -1"):
        blank_pool(-1, "tuple", "regression").label(IDS, DatasetOracle())
    pool = pool_of(dataset(lambda i: -1.0 if i < 20 else i / 2))
    pool.label(IDS, DatasetOracle())  # here it is a number like any other
    assert pool.state.labels[3] == -1


def test_targets_that_are_flipped_with_their_images_are_refused() -> None:
    class Flipped(Records):
        def __getitem__(self, i: int) -> Any:
            x, mask = self.items[i]
            turn = torch.rand(()) < 0.5
            return (x.flip(0), mask.flip(0)) if turn else (x, mask)

    data = Flipped([(X[i], (X[i] > 0).to(torch.uint8)) for i in range(24)])
    torch.manual_seed(1)
    with pytest.raises(PoolError, match=r"targets differ from one read to the next.*on_after_batch_transfer"):
        pool_of(data, "segmentation")


def test_inputs_may_differ_from_one_read_to_the_next() -> None:
    class Noisy(Records):
        def __getitem__(self, i: int) -> Any:
            x, y = self.items[i]
            return x + torch.randn_like(x), y

    pool = pool_of(Noisy([(X[i], X[i] > 0) for i in range(24)]), "segmentation")
    assert pool.label(IDS, DatasetOracle()) == len(IDS)
