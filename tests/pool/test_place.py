"""Whatever a collate function does with the target, that is what a model is not shown, and everything else it is."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence
from torch.utils.data import default_collate

from al_lightning import PoolDataModule
from al_lightning.errors import OutputMismatch
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.place import Place, place_of
from al_lightning.scoring.infer import arguments
from tests.helpers import Records
from tests.pool.test_views import equal

Rows = list[Any]
Sample = namedtuple("Sample", "image size label")


def sequence(i: int) -> Tensor:
    return torch.randn(2 + i % 4, 3, generator=torch.Generator().manual_seed(i))


def tuples() -> Records:
    return Records([(sequence(i), i % 3) for i in range(12)])


def dicts() -> Records:
    return Records([{"ids": [1 + i, 2, 3][: 1 + i % 3], "label": i % 3} for i in range(12)])


def tagged() -> Records:
    """A class for every token."""
    return Records([{"ids": [4, 5, 6][: 1 + i % 3], "label": [i % 3, 1, 2][: 1 + i % 3]} for i in range(12)])


def images() -> Records:
    """Detection, in some images of nothing."""
    return Records([
        (torch.rand(3, 4, 4), {"boxes": torch.rand(i % 3, 4), "labels": torch.ones(i % 3, dtype=torch.int64)})
        for i in range(12)
    ])  # fmt: skip


def several() -> Records:
    return Records([(sequence(i).sum(0), {"class": i % 3, "angle": i / 7}) for i in range(12)])


def captioned() -> Records:
    return Records([(sequence(i).sum(0), ["cat", "dog", "owl"][i % 3]) for i in range(12)])


def x_of(rows: Rows) -> Tensor:
    return pad_sequence([x for x, *_ in rows], batch_first=True)


def y_of(rows: Rows) -> Tensor:
    return torch.tensor([y for *_, y in rows])


def n_of(rows: Rows) -> Tensor:
    return torch.tensor([len(x) for x, *_ in rows])


def with_lengths(rows: Rows) -> Any:
    return x_of(rows), y_of(rows), n_of(rows)


def padded(rows: Rows) -> dict[str, Tensor]:
    ids = pad_sequence([torch.tensor(row["ids"]) for row in rows], batch_first=True)
    return {"ids": ids, "mask": (ids > 0).long(), "labels": torch.tensor([row["label"] for row in rows])}


def padded_tags(rows: Rows) -> dict[str, Tensor]:
    ids = pad_sequence([torch.tensor(row["ids"]) for row in rows], batch_first=True)
    tags = [row["label"] + [-100] * (ids.shape[1] - len(row["label"])) for row in rows]
    return {"ids": ids, "labels": torch.tensor(tags), "mask": (ids > 0).long()}


def shifted(rows: Rows) -> dict[str, Tensor]:
    """As collate functions for sequence-to-sequence models do, the decoder's inputs are the labels, shifted."""
    batch = padded_tags(rows)
    return {**batch, "decoder_ids": batch["labels"].roll(1, dims=1).clamp(min=0)}


def one_hot(rows: Rows) -> dict[str, Any]:
    y = y_of(rows)
    return {"x": x_of(rows), "y": y, "hot": nn.functional.one_hot(y, 3), "n": n_of(rows), "task": "classify"}


@dataclass
class Batch:
    x: Tensor
    y: Tensor
    n: Tensor


class Graphs:
    """Keyed like a mapping, as batches of graphs are, and none."""

    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def __copy__(self) -> Graphs:
        return Graphs(**self.parts)

    def keys(self) -> list[str]:
        return list(self.parts)

    def __getitem__(self, key: str) -> Any:
        return self.parts[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.parts[key] = value

    def __delitem__(self, key: str) -> None:
        del self.parts[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graphs) and equal(self.parts, other.parts)

    __hash__ = None  # type: ignore[assignment]


def lists(rows: Rows) -> Any:
    return [x for x, _ in rows], [y for _, y in rows]


def noisy(rows: Rows) -> Any:
    x = x_of(rows)
    return x + torch.randn_like(x) + np.random.rand() + random.random(), y_of(rows), n_of(rows)


class Collator:
    """Has a generator of its own."""

    def __init__(self) -> None:
        self.torch, self.numpy = torch.Generator().manual_seed(0), np.random.default_rng(0)
        self.legacy, self.python = np.random.RandomState(0), random.Random(0)

    def __call__(self, rows: Rows) -> Any:
        x = x_of(rows)
        noise = torch.rand(x.shape, generator=self.torch) + self.numpy.random() + self.legacy.rand()
        return {"n": n_of(rows), "y": y_of(rows), "x": x + noise + self.python.random()}


def scaled(rows: Rows, by: float) -> Any:
    return y_of(rows), x_of(rows) * by


def counted(rows: Rows) -> Any:
    """What it knows of the targets is in three places, one of which shows how many there are."""
    boxes = pad_sequence([y["boxes"] for _, y in rows], batch_first=True)
    return {
        "x": torch.stack([x for x, _ in rows]),
        "boxes": boxes,
        "count": torch.tensor([len(y["boxes"]) for _, y in rows]),
    }


VOCABULARY = {"cat": 0, "dog": 1, "owl": 2}

# name: dataset, key of the target, collate function, the batch without the target
COLLATED: dict[str, tuple[Callable[[], Records], str | None, Any, Callable[[Any], Any]]] = {
    "lengths after the target": (tuples, None, with_lengths, lambda b: (b[0], b[2])),
    "the target first": (tuples, None, lambda rows: (y_of(rows), x_of(rows)), lambda b: b[1]),
    "the target in the middle of a list": (
        tuples, None, lambda rows: [x_of(rows), y_of(rows), n_of(rows)], lambda b: (b[0], b[2])),
    "tuple to dict": (tuples, None, lambda rows: {"x": x_of(rows), "y": y_of(rows)}, lambda b: {"x": b["x"]}),
    "dict to tuple": (dicts, "label", lambda rows: tuple(padded(rows).values()), lambda b: b[:2]),
    "renamed": (dicts, "label", padded, lambda b: {"ids": b["ids"], "mask": b["mask"]}),
    "a class for every token": (tagged, "label", padded_tags, lambda b: {"ids": b["ids"], "mask": b["mask"]}),
    "labels shifted for a decoder": (tagged, "label", shifted, lambda b: {"ids": b["ids"], "mask": b["mask"]}),
    "the target twice": (
        tuples, None, one_hot, lambda b: {"x": b["x"], "n": b["n"], "task": "classify"}),
    "nested": (
        tuples, None, lambda rows: ({"x": x_of(rows), "n": n_of(rows)}, {"y": y_of(rows), "id": 3}),
        lambda b: (b[0], {"id": 3})),
    "inputs in a tuple": (tuples, None, lambda rows: ((x_of(rows), n_of(rows)), y_of(rows)), lambda b: b[0]),
    "named tuple": (tuples, None, lambda rows: Sample(x_of(rows), n_of(rows), y_of(rows)), lambda b: (b[0], b[1])),
    "dataclass": (tuples, None, lambda rows: Batch(*with_lengths(rows)), lambda b: Batch(b.x, None, b.n)),
    "ordered dict": (tuples, None, lambda rows: OrderedDict(one_hot(rows)),
                     lambda b: OrderedDict(x=b["x"], n=b["n"], task="classify")),
    "UserDict": (dicts, "label", lambda rows: UserDict(padded(rows)),
                 lambda b: UserDict(ids=b["ids"], mask=b["mask"])),
    "keyed object": (tuples, None, lambda rows: Graphs(**one_hot(rows)),
                     lambda b: Graphs(x=b["x"], n=b["n"], task="classify")),
    "lists of records": (images, None, lists, lambda b: b[0]),
    "the items themselves": (images, None, lambda rows: rows, lambda b: [x for x, _ in b]),
    "the items themselves, as dicts": (dicts, "label", list, lambda b: [{"ids": row["ids"]} for row in b]),
    "parts of a target, spread": (
        several, None,
        lambda rows: {**default_collate([y for _, y in rows]), "x": torch.stack([x for x, _ in rows])},
        lambda b: {"x": b["x"]}),
    "how many boxes there are": (images, None, counted, lambda b: {"x": b["x"]}),
    "names of classes": (
        captioned, None,
        lambda rows: (torch.tensor([VOCABULARY[y] for _, y in rows]), torch.stack([x for x, _ in rows])),
        lambda b: b[1]),
    "packed": (tuples, None, lambda rows: (pack_sequence([x for x, _ in rows], enforce_sorted=False), y_of(rows)),
               lambda b: b[0]),
    "time first": (tuples, None, lambda rows: (x_of(rows).transpose(0, 1), y_of(rows), n_of(rows)),
                   lambda b: (b[0], b[2])),
    "flat": (tuples, None, lambda rows: (torch.cat([x for x, _ in rows]), n_of(rows).cumsum(0), y_of(rows)),
             lambda b: b[:2]),
    "at random": (tuples, None, noisy, lambda b: (b[0], b[2])),
    "an object with generators": (tuples, None, Collator(), lambda b: {"n": b["n"], "x": b["x"]}),
    "partial": (tuples, None, partial(scaled, by=2.0), lambda b: b[1]),
    "a target that is left out": (tuples, None, lambda rows: (x_of(rows), n_of(rows)), lambda b: b),
    "arrays": (tuples, None, lambda rows: (y_of(rows).numpy(), x_of(rows).numpy()), lambda b: b[1]),
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Batch | UserDict):
        return type(a) is type(b) and equal(dict(vars(a)), dict(vars(b)))
    return bool(a == b) if isinstance(a, Graphs) else equal(a, b)


def found(name: str) -> tuple[Any, Any, Any]:
    """The place, a batch of five records and what a model is to be shown of it."""
    make, key, collate, shown = COLLATED[name]
    data = make()
    place = place_of(data, ItemFormat(key, task="multiclass", stacked=False), collate)
    torch.manual_seed(0)
    batch = collate([data[i] for i in (1, 5, 2, 7, 11)])
    return place, batch, shown(batch)


@pytest.mark.parametrize("name", COLLATED)
def test_exactly_the_target_is_withheld(name: str) -> None:
    place, batch, shown = found(name)
    before = pickle.dumps(batch)
    for here in (place, pickle.loads(pickle.dumps(place))):  # as it goes to workers
        assert same(here.withheld(batch), shown), f"withheld: {here}"
    assert pickle.dumps(batch) == before


@pytest.mark.parametrize("blank", [None, -1, float("nan"), "", torch.tensor([]), torch.tensor(-1)], ids=repr)
@pytest.mark.parametrize("name", ["lengths after the target", "renamed", "tuple to dict"])
def test_it_is_found_where_nobody_knows_a_label(name: str, blank: Any) -> None:
    make, key, collate, shown = COLLATED[name]
    full = make()
    empty = Records([{**row, key: blank} if key else (row[0], blank) for row in full.items])
    items = ItemFormat(key, task="multiclass", stacked=False).seen_in(empty, empty[0], stacked=False)
    batch = collate(full.items[:4])
    assert same(place_of(empty, items, collate).withheld(batch), shown(batch))


@pytest.mark.parametrize("label", [[0, 1, 1], {"a": 0.5}, "dog"], ids=repr)
def test_a_label_that_was_bought_is_tried_where_the_dataset_has_none(label: Any) -> None:
    data = Records([(x, None) for x, _ in tuples().items])
    items = ItemFormat(task="multilabel").seen_in(data, data[0], stacked=False)

    def collate(rows: Rows) -> Any:
        assert all(type(y) is type(label) for _, y in rows)
        return [y for _, y in rows], x_of(rows)

    assert place_of(data, items, collate, label).withheld(([label] * 2, 5)) == 5
    assert items.shown(data[0], label)[1] == label


ATTACHED: dict[str, Any] = {
    "bare inputs": (lambda i: sequence(0) + i, lambda x, y: (x, y), None, lambda b: b[0]),
    "the target first": (lambda i: (9, sequence(0)), lambda item, y: (y, item[1]), None, lambda b: b[1]),
    "a dict": (lambda i: {"x": sequence(0), "meta": {"class": 2}},
               lambda item, y: {**item, "meta": {"class": y}}, None, lambda b: {"x": b["x"]}),
    "moved": (lambda i: {"x": sequence(i)}, lambda item, y: (item["x"], y), with_lengths, lambda b: (b[0], b[2])),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACHED)
def test_it_is_found_where_the_user_attaches_labels(name: str) -> None:
    make, attach, collate, shown = ATTACHED[name]
    loader = {} if collate is None else {"collate_fn": collate}
    pool = PoolDataModule(Records([make(i) for i in range(9)]), task="multiclass", attach=attach, loader=loader)
    place = pool.place
    _, batch = next(iter(pool.indexed_dataloader([3, 0, 5], place)))
    trained = (collate or default_collate)([attach(make(i), 1) for i in (3, 0, 5)])
    assert equal(place.withheld(batch), shown(trained))
    if collate is None:  # a model's own infer gets the items as they are
        _, batch = next(iter(pool.indexed_dataloader([3, 0, 5])))
        assert equal(batch, default_collate([make(i) for i in (3, 0, 5)]))


# ---- what cannot be told ---------------------------------------------------------------------------------------------


def mixup(rows: Rows) -> Any:
    x, y = x_of(rows), nn.functional.one_hot(y_of(rows), 3).float()
    other, share = torch.randperm(len(rows)), torch.rand(())
    return share * x + (1 - share) * x[other], share * y + (1 - share) * y[other]


def joined(rows: Rows) -> Any:
    x = x_of(rows)
    return torch.cat([x.flatten(1), y_of(rows)[:, None]], dim=1), n_of(rows)


def fresh_noise(rows: Rows) -> Any:
    return x_of(rows) + np.random.default_rng().random(), y_of(rows)


def fails(rows: Rows) -> Any:
    raise KeyError("width")


UNKNOWN: dict[str, tuple[Any, str]] = {
    "mixup": (mixup, r"mixup mixes the records of a batch at random.* in batch\[0\].*training_step"),
    "target among the inputs": (joined, r"joined mixes inputs and targets, in batch\[0\]"),
    "one tensor of both": (lambda rows: joined(rows)[0], "mixes inputs and targets, in batch"),
    "noise that no seed repeats": (fresh_noise, r"fresh_noise returns another batch each time in batch\[0\]"),
    "a function that fails": (fails, "fails puts the target cannot be tried out: KeyError: 'width'"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_told_is_asked_for_by_name(name: str) -> None:
    collate, message = UNKNOWN[name]
    data = Records([(sequence(0) * (1 + i), i % 3) for i in range(12)])
    place = place_of(data, ItemFormat(task="multiclass"), collate)
    assert Place(problem=place.problem) == pickle.loads(pickle.dumps(place))
    for ask in (place.check, lambda: place.withheld(())):
        with pytest.raises(OutputMismatch, match=rf"{message}.*infer\(batch\)"):
            ask()


@pytest.mark.parametrize("collate", [None, default_collate])
def test_pytorchs_own_collation_leaves_it_where_it_is(collate: Any) -> None:
    assert place_of(several(), ItemFormat(), collate) is None


def test_a_batch_that_hooks_have_rebuilt_is_not_guessed_at() -> None:
    place, _, _ = found("lengths after the target")
    for batch in ({"x": 1, "y": 2}, torch.ones(3), (1,)):
        with pytest.raises(OutputMismatch, match=r"puts the target into batch\[1\].*another structure.*infer\(batch\)"):
            place.withheld(batch)


# ---- what trying costs -----------------------------------------------------------------------------------------------


def test_trying_moves_no_generator_and_reads_few_records() -> None:
    reads: list[int] = []

    class Counting(Records):
        def __getitem__(self, i: int) -> Any:
            reads.append(i)
            random.random(), np.random.rand(), torch.rand(())
            return super().__getitem__(i)

    collate = Collator()
    pool = PoolDataModule(Counting(tuples().items), task="multiclass", loader={"collate_fn": collate})

    def states() -> list[Any]:
        held = [collate.torch.get_state().tolist(), collate.numpy.bit_generator.state, collate.python.getstate()]
        return [
            random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), *held,
            str(collate.legacy.get_state()),
        ]  # fmt: skip

    before, began = states(), len(reads)
    place = pool.place
    assert states() == before
    assert len(reads) - began <= 6
    assert pool.place is place
    assert len(reads) - began <= 6
    pool.loader["collate_fn"] = with_lengths
    assert pool.place is not place


def test_a_pool_of_one_record_has_a_place_for_its_target() -> None:
    data = Records(tuples().items[:1])
    assert str(place_of(data, ItemFormat(task="multiclass"), with_lengths)) == "batch[1]"


# ---- how forward is called -------------------------------------------------------------------------------------------


def model(forward: Any) -> nn.Module:
    return type("Model", (nn.Module,), {"forward": forward})()


B = {"x": torch.ones(2), "n": torch.zeros(2), "labels": torch.ones(2)}
KEYED = Place((found("renamed")[0]).paths)
SECOND = found("lengths after the target")[0]


@pytest.mark.parametrize(
    ("forward", "batch", "place", "positional", "named"),
    [
        (lambda self, x, n: 0, ("x", "y", "n"), SECOND, ("x", "n"), {}),
        (lambda self, *parts: 0, ("x", "y", "n"), SECOND, ("x", "n"), {}),
        (lambda self, batch: 0, ("x", "y", "n"), SECOND, (("x", None, "n"),), {}),
        (lambda self, batch: 0, Sample("x", "y", "n"), SECOND, (Sample("x", None, "n"),), {}),
        (lambda self, x, labels=None: 0, B, KEYED, (), {"x": B["x"]}),
        (lambda self, **parts: 0, B, KEYED, (), {"x": B["x"], "n": B["n"]}),
        (lambda self, batch: 0, B, KEYED, ({"x": B["x"], "n": B["n"]},), {}),
    ],
)  # fmt: skip
def test_forward_gets_what_it_takes(forward: Any, batch: Any, place: Place, positional: Any, named: Any) -> None:
    assert arguments(model(forward), batch, ItemFormat(), place) == (positional, named)


@pytest.mark.parametrize(
    ("forward", "batch", "place", "message"),
    [
        (lambda self, x, y, n: 0, ("x", "y", "n"), SECOND, r"takes x, y, n, .* \(batch\[1\]\) the batch has 2 parts"),
        (lambda self, x, labels: 0, B, KEYED, r"takes x, labels, .*the batch has the keys \['n', 'x'\]"),
        (lambda self: 0, B, KEYED, r"takes nothing"),
    ],
)
def test_a_forward_that_wants_the_target_is_named(forward: Any, batch: Any, place: Place, message: str) -> None:
    with pytest.raises(OutputMismatch, match=rf"Model\.forward {message}.*infer\(batch\)"):
        arguments(model(forward), batch, ItemFormat(), place)
