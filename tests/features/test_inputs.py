"""What may be brought as features: taken as it is, or refused by name before anything is bought."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from torch.utils.data import TensorDataset

from al_lightning import PoolDataModule
from al_lightning.candidates import SEALS, EveryK, Representatives
from al_lightning.errors import BadScores, FeaturesMissing, OutputMismatch, PoolError
from al_lightning.features import Layer, RawInputs
from al_lightning.features.inputs import LazyRows
from al_lightning.query import (
    BADGE,
    ClusterMargin,
    DistanceWeighted,
    KCenterGreedy,
    KMeans,
    Margin,
    ProbCover,
    Stratified,
    TypiClust,
)
from al_lightning.round_size import Listed
from tests.helpers import Records, blobs, learner, net, pool_of

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
HALF = X.astype(np.float16)
WHOLE = np.random.default_rng(0).integers(0, 99, size=(60, 5))
ROUNDED = torch.tensor(X).to(torch.bfloat16)


class OnDisk:
    """As h5py has it: rows by slices and by ascending positions, once each."""

    shape, dtype = X.shape, X.dtype

    def __getitem__(self, at: Any) -> np.ndarray:
        if not isinstance(at, slice):
            assert (np.diff(at) > 0).all(), "Indexing elements must be in increasing order"
        return X[at]


def trained() -> torch.Tensor:
    return torch.nn.Parameter(torch.tensor(X))


ACCEPTED: dict[str, tuple[Any, np.ndarray]] = {
    "float32": (X, X),
    "float64": (X.astype(np.float64), X),
    "long double": (X.astype(np.longdouble), X),
    "big-endian": (X.astype(">f4"), X),
    "Fortran order": (np.asfortranarray(X), X),
    "reversed": (X[::-1], X[::-1]),
    "float16": (HALF, HALF),
    "int64": (WHOLE, WHOLE),
    "uint8": (WHOLE.astype(np.uint8), WHOLE),
    "bool": (X > 0, X > 0),
    "unmasked": (np.ma.masked_array(X), X),
    "numbers as objects": (X.astype(object), X),
    "list of lists": (X.tolist(), X),
    "list of arrays": (list(X), X),
    "tuple of tensors": (tuple(torch.tensor(X)), X),
    "object array of rows": (pd.Series(list(X)).to_numpy(), X),
    "tensor": (torch.tensor(X), X),
    "float64 tensor": (torch.tensor(X, dtype=torch.float64), X),
    "bfloat16 tensor": (ROUNDED, ROUNDED.float().numpy()),
    "float16 tensor": (torch.tensor(HALF), HALF),
    "bool tensor": (torch.tensor(X > 0), X > 0),
    "transposed tensor": (torch.tensor(X.T.copy()).T, X),
    "DataFrame": (pd.DataFrame(X, index=np.arange(60)[::-1]), X),
    "DataFrame of several types": (pd.DataFrame({"a": WHOLE[:, 0], "b": X[:, 1], "c": X[:, 2] > 0}), None),
    "nullable DataFrame": (pd.DataFrame(WHOLE).astype("Int64"), WHOLE),
    "Series of rows": (pd.Series(list(X)), X),
    "csr": (sparse.csr_matrix(X), X),
    "coo array": (sparse.coo_array(X), X),
    "on disk": (OnDisk(), X),
}  # fmt: skip
ACCEPTED["DataFrame of several types"] = (
    ACCEPTED["DataFrame of several types"][0],
    np.stack([WHOLE[:, 0], X[:, 1], X[:, 2] > 0], axis=1),
)


@pytest.mark.parametrize(("given", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_holds_a_row_of_numbers_per_record_is_taken_as_it_is(given, expected):
    features = pool_of(blobs(), features=given).features
    ids = np.array([7, 2, 59, 7])
    assert features.shape == expected.shape
    assert np.array_equal(np.asarray(features[ids], np.float32), expected[ids].astype(np.float32))
    assert np.array_equal(np.asarray(features[10:20], np.float32), expected[10:20].astype(np.float32))


@pytest.mark.parametrize(
    "kind", ["bfloat16 tensor", "DataFrame", "csr", "list of lists", "on disk", "bool", "reversed"]
)
@pytest.mark.parametrize("query", [KMeans(), KCenterGreedy(), TypiClust(), ProbCover()], ids=lambda q: type(q).__name__)
def test_a_run_on_it_is_that_on_the_plain_array(kind, query, tmp_path):
    given, expected = ACCEPTED[kind]
    runs = [
        learner(tmp_path / name, query=query, round_size=Listed([8, 4]), initial=KCenterGreedy())
        .fit(net(), datamodule=pool_of(blobs(), features=features))
        .labelled.tolist()
        for name, features in (("given", given), ("plain", np.ascontiguousarray(expected, np.float32)))
    ]
    assert runs[0] == runs[1]


def test_features_do_not_change_with_the_weights_they_were_taken_from():
    weight = trained()
    features = pool_of(blobs(), features=weight).features
    with torch.no_grad():
        weight.zero_()
    assert np.array_equal(features, X)


def masked() -> Any:
    return np.ma.masked_array(X, mask=np.arange(300).reshape(60, 5) == 37)


REFUSED: dict[str, tuple[Any, str]] = {
    "class": (RawInputs, r"features=RawInputs is a class: pass an instance, RawInputs\("),
    "text": ("embeddings.npy", "features are a str. Allowed"),
    "number": (3.0, "features are a float. Allowed"),
    "dict": ({"a": X}, "features are a dict. Allowed"),
    "generator": ((row for row in X), "features are a generator. Allowed"),
    "1-D": (X[:, 0], r"shape \(60,\); expected \(60, d\).*reshape\(-1, 1\)"),
    "list of numbers": (X[:, 0].tolist(), r"shape \(60,\)"),
    "0-D": (np.float32(1), r"shape \(\)"),
    "3-D": (X[:, :, None], r"shape \(60, 5, 1\).*reshape\(len\(features\), -1\)"),
    "too few": (X[:59], r"shape \(59, 5\); expected \(60, d\)"),
    "no columns": (X[:, :0], r"shape \(60, 0\): no number per record"),
    "empty list": ([], r"shape \(0,\)"),
    "complex": (X.astype(complex), "of type complex128"),
    "complex tensor": (torch.tensor(X).to(torch.complex64), "a tensor of torch.complex64"),
    "sparse tensor": (torch.tensor(X).to_sparse(), r"layout torch.sparse_coo.*\.to_dense\(\)"),
    "meta tensor": (torch.empty(60, 5, device="meta"), "on meta"),
    "complex sparse": (sparse.csr_matrix(X.astype(complex)), "of type complex128"),
    "strings": (X.astype(str), "of type <U"),
    "rows of strings": (X.astype(str).tolist(), "of type <U"),
    "bytes": (X.astype("S8"), "of type |S8"),
    "dates": (WHOLE.astype("datetime64[D]"), "of type datetime64"),
    "records": (np.zeros(60, dtype=[("a", float)]).reshape(60, 1), "of type"),
    "text among numbers": (pd.DataFrame({"a": X[:, 0], "b": ["x"] * 60}), r"features hold 'x' \(str\)"),
    "None among numbers": ([[1.0, None]] * 60, r"features hold None \(NoneType\)"),
    "missing among objects": (pd.DataFrame({"a": [pd.NA, *range(59)], "b": X[:, 0]}), "features hold <NA>"),
    "Nones": ([None] * 60, r"features hold None"),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x", "y"] * 30)}), "features hold 'x'"),
    "rows of several lengths": ([[1.0], *[[1.0, 2.0]] * 59], "rows of different shapes"),
    "arrays of several lengths": ([X[0, :1], *X[1:]], "rows of different shapes"),
    "masked": (masked(), r"masked for ids \[7\]"),
    "1e17": (X * 1e17, r"above 1e\+16 in size"),
    "float32 1e19": (X * np.float32(1e19), r"above 1e\+16 in size"),
    "float64 1e50": (X.astype(float) * 1e50, r"above 1e\+16 in size"),
    "float64 1e300": (X.astype(float) * 1e300, r"above 1e\+16 in size"),
    "int64 2**62": (np.where(np.eye(60, 5) > 0, 2**62, WHOLE), r"ids \[0, 1, 2, 3, 4\] \(5 in all\) are above"),
    "bfloat16 1e30": (ROUNDED * 1e30, r"above 1e\+16 in size"),
    "sparse 1e30": (sparse.csr_matrix(X * np.float32(1e30)), r"above 1e\+16 in size"),
    "1e-20": (X * 1e-20, "vanish in float32; allowed: 1e-15 or more"),
    "float64 1e-200": (X.astype(float) * 1e-200, "vanish in float32"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(given, message, tmp_path):
    asked, model = [], net()
    with pytest.raises(PoolError, match=message):
        learner(tmp_path, query=KMeans(), oracle=Asked(asked)).fit(model, datamodule=pool_of(blobs(), features=given))
    assert not asked
    assert not model.batches


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_that_are_none_are_refused_with_their_ids(value, dtype):
    features = X.astype(dtype)
    features[[41, 7], 2] = value
    with pytest.raises(BadScores, match="ids 7, 41"):
        pool_of(blobs(), features=features)


class Asked:
    """An oracle that notes what it is asked, and has no answer."""

    def __init__(self, asked: list[Any]) -> None:
        self._asked = asked

    def ask(self, request: Any) -> None:
        self._asked.append(request)

    def collect(self) -> dict[int, Any]:
        return {}


# ---- what is larger than memory, and what is read from the records ------------------------------------------------


def mapped(folder: Path, values: np.ndarray) -> np.ndarray:
    np.save(folder / "features.npy", values)
    return np.load(folder / "features.npy", mmap_mode="r")


def test_a_memory_map_is_neither_read_nor_copied_before_it_is_used(tmp_path):
    """Three terabytes, none of which are there."""
    n, path = 10_000_000, tmp_path / "features"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(4 * n * 768)

    class Many(torch.utils.data.Dataset):
        def __len__(self):
            return n

        def __getitem__(self, i):
            return torch.zeros(2), 0

    features = np.memmap(path, np.float32, "r", shape=(n, 768))
    pool = PoolDataModule(Many(), task="multiclass", features=features)
    assert pool.features is features
    assert np.asarray(pool_of(blobs(), features=mapped(tmp_path, X)).features).base is not None
    assert isinstance(pool_of(blobs(), features=sparse.csr_matrix(X)).features, LazyRows)


BAD = {"large": 1e20, "NaN": np.nan}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("source", ["memory map", "RawInputs", "RawInputs item by item", "on disk"])
def test_bad_numbers_in_the_last_record_are_found_before_a_label_is_asked_for(bad, source, tmp_path):
    values, y = X[:, :4].copy(), blobs().tensors[1]
    values[59, 1] = bad
    data: Any = TensorDataset(torch.tensor(values), y) if source.startswith("Raw") else blobs()
    if source == "RawInputs item by item":
        data = Records(list(data))
    given = {"memory map": mapped(tmp_path, values), "on disk": LazyRows(values)}.get(source, RawInputs())
    asked, model = [], net()
    settings = {"query": Margin(), "candidates": Representatives(0.5), "oracle": Asked(asked)}
    with pytest.raises((PoolError, BadScores), match=r"59"):
        learner(tmp_path / "run", **settings).fit(model, datamodule=pool_of(data, features=given))
    assert not asked
    assert not model.batches


def records(value: Any) -> Records:
    return Records([(value(x), int(y)) for x, y in zip(X, blobs().tensors[1], strict=True)])


def picture(x: np.ndarray) -> Any:
    return Image.fromarray((x[None] > 0).astype(np.uint8))


RAW = {
    "picture": (picture, X > 0),
    "bfloat16": (lambda x: torch.tensor(x).to(torch.bfloat16), ROUNDED.float().numpy()),
    "with a gradient": (lambda x: torch.tensor(x, requires_grad=True), X),
    "float64": (lambda x: x.astype(float), X),
    "list": (lambda x: x.tolist(), X),
    "number": (lambda x: float(x[0]), X[:, :1]),
    "0-D": (lambda x: torch.tensor(x[0]), X[:, :1]),
    "3-D": (lambda x: torch.tensor(x)[None, None], X),
    "dict of one": (lambda x: {"x": torch.tensor(x)}, X),
}


@pytest.mark.parametrize(("value", "expected"), RAW.values(), ids=RAW)
def test_raw_inputs_of_any_numbers(value, expected):
    found = RawInputs().compute(pool_of(records(value), features=RawInputs()))
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("inputs", [torch.tensor(X)[:, 0], torch.tensor(X).to(torch.bfloat16), trained()], ids=str)
def test_raw_inputs_of_a_tensor_dataset(inputs):
    found = RawInputs().compute(pool_of(TensorDataset(inputs, blobs().tensors[1])))
    assert np.array_equal(found, inputs.detach().float().reshape(60, -1).numpy())


@pytest.mark.parametrize("value", [str, lambda x: {"a": x, "b": x}, lambda x: None], ids=["text", "dict", "None"])
def test_raw_inputs_that_are_no_numbers_are_refused_as_the_pool_is_made(value):
    with pytest.raises(FeaturesMissing, match=r"RawInputs\(\) needs inputs that are tensors or arrays"):
        pool_of(records(value), features=RawInputs())


@pytest.mark.parametrize(
    "value", [lambda x: x.astype(complex), lambda x: torch.tensor(x).to_sparse()], ids=["complex", "sparse"]
)
def test_raw_inputs_that_would_be_cut_are_refused_as_the_pool_is_made(value):
    with pytest.raises(PoolError, match="the inputs"):
        pool_of(records(value), features=RawInputs())


OUTPUTS = {
    "complex": (lambda h: h.to(torch.complex64), "torch.complex64"),
    "dict": (lambda h: {"h": h}, "dict"),
    "another first dimension": (lambda h: h.T, "for a batch of"),
    "one number": (lambda h: h.mean(), "for a batch of"),
}


class Shaped(torch.nn.Module):
    """Makes something else of a layer's output, and of that its output again."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> Any:
        return self.shape(x)


def with_layer(shape: Any) -> Any:
    model = net()
    model.side = Shaped(shape)
    plain = type(model).forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        model.side(x)
        return plain(model, x)

    model.forward = forward
    return model


@pytest.mark.parametrize(("shape", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_layer_that_gives_no_row_a_record_is_refused_by_name(shape, message, tmp_path):
    pool = pool_of(blobs(), features=Layer("side", pretrained=True))
    with pytest.raises(FeaturesMissing, match=f"Layer.'side'. gave.*{message}"):
        learner(tmp_path, initial=KMeans(), query=KMeans()).fit(with_layer(shape), datamodule=pool)


@pytest.mark.parametrize(("factor", "error"), [(1e20, PoolError), (torch.nan, BadScores)], ids=["large", "NaN"])
def test_what_a_layer_gives_is_looked_at_too(factor, error, tmp_path):
    pool = pool_of(blobs(), features=Layer("side", pretrained=True))
    with pytest.raises(error, match="features"):
        learner(tmp_path, initial=KMeans(), query=KMeans()).fit(with_layer(lambda x: x * factor), datamodule=pool)


@pytest.mark.parametrize(
    "shape", [lambda x: x[:, 0], lambda x: x.to(torch.bfloat16), lambda x: (x, x)], ids=["number", "bfloat16", "tuple"]
)
def test_a_layer_may_give_one_number_a_narrow_type_or_a_tuple(shape, tmp_path):
    pool = pool_of(blobs(), features=Layer("side", pretrained=True))
    result = learner(tmp_path, initial=KMeans(), query=KMeans()).fit(with_layer(shape), datamodule=pool)
    assert len(result.labelled) == 24


# ---- every strategy -----------------------------------------------------------------------------------------------

PROGRAM = Path(__file__).with_name("extreme_features.py")


def test_no_strategy_crashes_or_says_nonsense_whatever_the_scale(tmp_path):
    """In a process of its own: FAISS ends it where squares overflow."""
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 200


DEGENERATE = {
    "one column constant": np.column_stack([X, np.ones(60, np.float32)]),
    "all the same": np.ones((60, 3), np.float32),
    "all zero": np.zeros((60, 3), np.float32),
    "some rows zero": np.where(np.arange(60)[:, None] % 3 == 0, 0, X),
    "duplicates": X[np.arange(60) % 4],
    "one column": X[:, :1],
    "far from zero": X + np.float32(1e4),
    "the largest allowed": (X / np.abs(X).max() * 9.9e15).astype(np.float32),
    "the smallest allowed": (X / np.abs(X).max() * 1e-14).astype(np.float32),
}
FROM_FEATURES = (KMeans(), KCenterGreedy(), TypiClust(), ProbCover(), Stratified())
PARTS: dict[str, Any] = {
    **{type(q).__name__: {"query": q, "initial": q} for q in FROM_FEATURES},
    "Representatives": {"candidates": Representatives(0.5)},
    "SEALS": {"candidates": SEALS(neighbours=5)},
}  # fmt: skip


@pytest.mark.parametrize("features", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_degenerate_features_make_a_query_all_the_same(parts, features, tmp_path):
    settings = {"round_size": Listed([8, 6]), **parts}
    result = learner(tmp_path, **settings).fit(net(), datamodule=pool_of(blobs(), features=features))
    assert len(set(result.labelled.tolist())) == 14


@pytest.mark.parametrize(
    "parts",
    [
        {"candidates": Representatives(0.5, n_clusters=61)},
        {"candidates": EveryK(Representatives(0.5, n_clusters=61), 2)},
        {"query": Stratified(n_clusters=61)},
        {"query": DistanceWeighted(ClusterMargin(n_clusters=61))},
        {"initial": ProbCover(n_clusters=61)},
    ],
    ids=str,
)
def test_more_clusters_than_records_are_refused_before_a_label_is_asked_for(parts, tmp_path):
    asked: list[Any] = []
    with pytest.raises(PoolError, match=r"n_clusters=61\) of a pool of 60 records; allowed: up to 60"):
        learner(tmp_path, **parts, oracle=Asked(asked)).fit(net(), datamodule=pool_of(blobs(), features=X))
    assert not asked


def test_an_embedding_too_large_for_badge_is_refused_by_name(make_view):
    arrays = {"errors": np.full((3, 2), 0.5), "embedding": np.array([[1.0], [1e20], [2.0]])}
    with pytest.raises(OutputMismatch, match=r"BADGE\(\): embeddings of ids \[8\].*above 1e\+16"):
        BADGE().pick(size=2, view=make_view(10), ids=np.array([7, 8, 9]), arrays=arrays, rng=np.random.default_rng(0))


def test_a_pool_of_one_record():
    pool = pool_of(blobs(3), features=X[:3])
    for strategy in (KMeans(), KCenterGreedy()):
        picked = strategy.pick(size=1, view=pool.view(), ids=np.array([2]), arrays={}, rng=np.random.default_rng(0))
        assert picked.tolist() == [2]
