"""A label that was bought for a record stands where the dataset's own would."""

from __future__ import annotations

import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from al_lightning.errors import PoolError
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.views import IndexedCollate, IndexedTensors, IndexedView, LabelledView, for_scoring
from tests.helpers import Records, blobs, pool_of

Named = namedtuple("Named", "image weight label")


def tensor_target(i: int) -> Any:
    return torch.full((2,), float(i)), torch.tensor(i % 3)


FORMS: dict[str, tuple[Any, ItemFormat]] = {
    "tuple of int": (lambda i: (torch.full((2,), float(i)), i % 3), ItemFormat()),
    "tuple of tensor": (tensor_target, ItemFormat()),
    "list": (lambda i: [torch.full((2,), float(i)), i % 3], ItemFormat()),
    "three": (lambda i: (torch.full((2,), float(i)), i / 2, np.int64(i % 3)), ItemFormat()),
    "numpy": (lambda i: (np.full(2, float(i)), np.array(i % 3, dtype=np.int16)), ItemFormat()),
    "namedtuple": (lambda i: Named(torch.full((2,), float(i)), i / 2, i % 3), ItemFormat()),
    "dict": (lambda i: {"x": torch.full((2,), float(i)), "y": i % 3, "name": f"n{i}"}, ItemFormat("y")),
    "float target": (lambda i: (torch.full((2,), float(i)), torch.tensor(float(i % 3))), ItemFormat()),
    "vector target": (
        lambda i: (torch.full((2,), float(i)), torch.tensor([i % 3, 1], dtype=torch.int32)),
        ItemFormat(),
    ),
}
IDS = [7, 2, 9, 2]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray | np.generic):
        return (
            isinstance(b, np.ndarray | np.generic)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and bool((a == b).all())
        )
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("form", FORMS)
def test_with_the_datasets_own_labels_items_and_batches_are_its_own(form: str) -> None:
    make, items = FORMS[form]
    data = Records([make(i) for i in range(10)])
    view = LabelledView(data, IDS, [items.target(data[i]) for i in IDS], items)
    for made in (view, pickle.loads(pickle.dumps(view))):
        assert len(made) == 4
        assert all(equal(made[p], data[i]) for p, i in enumerate(IDS))
        assert equal(made.__getitems__([0, 3]), [data[7], data[2]])
    (batch,) = list(DataLoader(view, batch_size=4))
    assert equal(batch, default_collate([data[i] for i in IDS]))


def test_a_bought_label_stands_in_for_the_datasets_own() -> None:
    data = blobs()
    view = LabelledView(data, [3, 5], [2, 0], ItemFormat())
    assert [int(view[p][1]) for p in (0, 1)] == [2, 0]
    assert torch.equal(view[0][0], data[3][0])
    assert int(data[3][1]) == 0  # the dataset's own is left alone


def test_a_datasets_own_batched_reading_is_used() -> None:
    class Batched(Records):
        calls = 0

        def __getitems__(self, ids: list[int]) -> list[Any]:
            self.calls += 1
            return [self.items[i] for i in ids]

    data = Batched([tensor_target(i) for i in range(10)])
    assert len(list(DataLoader(LabelledView(data, IDS, [1, 1, 1, 1], ItemFormat()), batch_size=2))) == 2
    assert data.calls == 2
    ids, _ = next(iter(DataLoader(IndexedView(data), batch_size=3, sampler=[9, 0, 4], collate_fn=IndexedCollate(None))))
    assert ids.tolist() == [9, 0, 4]
    assert data.calls == 3


def test_tensors_are_scored_a_batch_at_a_time_and_the_batches_are_the_same() -> None:
    data = TensorDataset(torch.randn(10, 2, 3), torch.arange(10), torch.randn(10).double())
    ids = [9, 0, 4, 4]
    batched, plain = for_scoring(data, None), (IndexedView(data), IndexedCollate(None))
    assert type(batched[0]) is IndexedTensors
    (found, batch), (_, expected) = (
        next(iter(DataLoader(view, batch_size=4, sampler=ids, collate_fn=collate)))
        for view, collate in (batched, plain)
    )
    assert found.tolist() == ids
    assert type(batch) is type(expected)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(batch, expected, strict=True))


def test_what_may_serve_other_items_is_scored_item_by_item() -> None:
    class Scaled(TensorDataset):
        def __getitem__(self, i: int) -> Any:
            return tuple(10 * tensor[i] for tensor in self.tensors)

    data = Scaled(torch.arange(4.0), torch.arange(4))
    view, collate = for_scoring(data, None)
    _, (x, _) = next(iter(DataLoader(view, batch_size=2, sampler=[3, 1], collate_fn=collate)))
    assert x.tolist() == [30, 10]
    assert type(for_scoring(TensorDataset(torch.ones(2)), lambda items: items)[0]) is IndexedView


def test_target_and_without_target() -> None:
    plain, by_key = ItemFormat(), ItemFormat("y")
    assert plain.target((1, 2, torch.tensor(3))) == 3
    assert plain.without_target((1, 2, 3)) == (1, 2)
    assert plain.without_target([1, 2]) == 1
    assert plain.without_target((1,)) == 1
    assert by_key.without_target({"x": 1, "y": 2}) == {"x": 1}
    assert by_key.target({"x": 1, "y": np.float32(2)}) == 2.0
    with pytest.raises(PoolError, match="the dataset holds no labels"):
        by_key.target({"x": 1})
    with pytest.raises(PoolError, match=r"attach= is custom.*infer\(batch\)"):
        ItemFormat(attach=lambda item, label: item).without_target((1, 2))


def test_keys_and_targets_reach_the_oracle() -> None:
    pool = pool_of(keys=[f"image-{i}.png" for i in range(60)])
    request = pool.request(np.array([4, 2]), 3)
    assert (request.round, request.keys) == (3, ("image-4.png", "image-2.png"))
    assert [request.target(4), request.target(2)] == [1, 2]


def test_a_view_of_the_pool_is_a_snapshot() -> None:
    pool = pool_of()
    view = pool.view()
    pool.label([0], {0: 1})
    assert len(view.unlabelled) == 60
    assert len(pool.view().unlabelled) == 59
