"""A label comes back from its text as it went in: type, dtype, shape and every element; nothing is executed."""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from al_lightning.errors import PoolError
from al_lightning.pool.label_codec import decode, encode, same
from tests.pool.test_views import equal

Pose = namedtuple("Pose", "joints visible")
MASK = torch.zeros(1000, 1000, dtype=torch.uint8)
MASK[200:500, 300:700] = 3

LABELS: dict[str, Any] = {
    "int": 3,
    "float": 0.1,
    "text": "a cat – 猫",
    "bool": True,
    "list": [1, 2.5, [3]],
    "empty list": [],
    "dict": {"class": 1, "box": [0.5, 1.0]},
    "nothing": None,
    "tuple": (1, (2.0, "a")),
    "named tuple": Pose(torch.ones(2, 2), [True, False]),
    "dict of tensors": {"boxes": torch.rand(3, 4), "labels": torch.tensor([1, 2, 3])},
    "no boxes": {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    "keys that are numbers": {1: "a", (2, 3): "b"},
    "a key of ours": {"$type": "tensor", "dtype": 1},
    "bytes": b"\x00\xff",
    "scalar tensor": torch.tensor(2),
    "not contiguous": torch.arange(12).reshape(3, 4).T,
    "column-major": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "with a gradient": torch.ones(2, requires_grad=True),
    "mask": MASK,
    "many floats": torch.randn(9, 50),
    "array of text": np.array(["a", "bc"]),
    "numpy bool": np.bool_(True),
    **{f"tensor {d}": torch.tensor([0, 1, 1]).to(d) for d in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
        torch.float32, torch.float64, torch.complex64)},
    **{f"large {d}": torch.arange(200).to(d) for d in (torch.bool, torch.float16, torch.bfloat16, torch.float64)},
    **{f"array {d}": np.array([[0, 1]], dtype=d) for d in ("?", "u1", "<i2", ">i4", "u8", "f2", "f4", ">f8", "c8")},
    **{f"number {d}": np.dtype(d).type(1.5) for d in ("u1", "i8", "f2", "f4", "f8")},
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_a_label_comes_back_exactly(name: str) -> None:
    label = LABELS[name]
    text = encode(label)
    assert "\n" not in text
    assert equal(decode(text), label)
    assert same(decode(text), label)
    assert same(label, None) == (label is None)


@pytest.mark.parametrize("label", [0, -3, 1.5, "a", "skip", [1, 0, 1], [[0.5], []], {"a": [1], "b": {"c": "d"}}, True])
def test_plain_labels_are_plain_json_as_they_always_were(label: Any) -> None:
    assert encode(label) == json.dumps(label)
    assert decode(json.dumps(label)) == label


@pytest.mark.parametrize("bits", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [60, 600])
def test_every_bit_of_a_float_survives(bits: torch.dtype, n: int) -> None:
    values = (torch.randn(n, generator=torch.Generator().manual_seed(0)) * 1e-3).to(bits)
    values[:2] = torch.tensor([-0.0, torch.finfo(bits).tiny]).to(bits)
    back = decode(encode(values))
    assert torch.equal(back.view(torch.uint8), values.view(torch.uint8))


def test_a_large_mask_is_small_and_a_small_array_is_readable() -> None:
    assert len(encode(MASK)) < 20_000
    assert json.loads(encode(torch.tensor([[1.5, 2.0]]))) == {
        "$type": "tensor", "dtype": "float32", "shape": [1, 2], "values": [1.5, 2.0],
    }  # fmt: skip


def test_a_named_tuple_of_a_program_that_is_gone_keeps_its_names() -> None:
    text = encode(Pose(1, 2)).replace(__name__, "a_program_that_is_gone")
    back = decode(text)
    assert back == (1, 2)
    assert (back.joints, back.visible) == (1, 2)


def test_a_mapping_is_a_dict() -> None:
    assert decode(encode(OrderedDict(a=torch.ones(1)))) == {"a": torch.ones(1)}


@pytest.mark.parametrize("label", [object(), {1, 2}, np.array([object()]), torch.ones(2).to_sparse(), [lambda: 1]])
def test_what_would_have_to_be_executed_is_refused(label: Any) -> None:
    with pytest.raises(PoolError, match=r"the label of id 3 is .*not JSON.*tensors, arrays"):
        encode(label, "the label of id 3")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"$type": "pickle", "items": []}',
        '{"$type": "tensor", "dtype": "load", "shape": [1], "values": [1]}',
        '{"$type": "array", "dtype": "O", "shape": [1], "values": [1]}',
        '{"$type": "tensor", "dtype": "uint8", "shape": [9], "zlib": "eJxjYGAAAAADAAE="}',
        '{"$type": "tensor", "dtype": "uint8", "shape": [3], "zlib": "!"}',
        '{"$type": "tuple"}',
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no label"):
        decode(text)


def test_a_text_is_one_cell_of_a_database() -> None:
    db = sqlite3.connect(":memory:")
    (text,) = db.execute("SELECT ?", (encode(LABELS["no boxes"]),)).fetchone()
    assert equal(decode(text), LABELS["no boxes"])


def test_labels_are_the_same_if_their_numbers_are() -> None:
    assert same(1, 1.0)
    assert same([1, 0], [1.0, 0.0])
    assert not same([1, 0], [1])
    assert not same(torch.ones(2), torch.ones(2, dtype=torch.float64))
    assert not same("1", 1)
