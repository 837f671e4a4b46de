"""What is exported can be brought in again: in every task, with any class names, labels are the same afterwards."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from al_lightning.cli.main import main
from al_lightning.errors import ActiveLearningError, BadLabelFile
from al_lightning.oracles import FileOracle, FunctionOracle
from al_lightning.oracles.label_cell import Language, check_classes
from al_lightning.oracles.label_file import Reader
from al_lightning.pool.label_codec import encode
from al_lightning.query import Random
from al_lightning.report.labels import Labelled, write_csv, write_json_lines
from al_lightning.run.store import read_run
from tests.helpers import NAMES, blobs, fill, ids_of, learner, net, pool_of, truth

WRITERS: dict[str, Callable[[Labelled, Any], None]] = {"csv": write_csv, "jsonl": write_json_lines}
HARD = ["0", "1", "01", "1.0", "-1", "a,b", 'q"uo"te', "two\nlines", "cr\rlf\r\n.", "cr\ralone", "=cmd()", "'=x",
        "'", "@", "+", "É", "e\u0301", "🙂", "nul", "null", "true", "nan", "\u2028", "id", "None of them"]  # fmt: skip


@st.composite
def class_names(draw: Callable[..., Any]) -> list[str]:
    """Class names that are allowed."""
    one = st.one_of(st.sampled_from(HARD), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5))
    names = draw(st.lists(one, min_size=2, max_size=6, unique=True))
    try:
        check_classes(names)
    except ValueError:
        assume(False)
    return names


def labels_of(task: str, count: int) -> st.SearchStrategy[Any]:
    """Labels of a task as runs hold them."""
    number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
    return {
        "multiclass": st.integers(0, count - 1),
        "binary": st.integers(0, 1)
        | st.booleans()
        | st.sampled_from([0.0, 1.0])
        | st.integers(0, 1).map(lambda v: [v]),
        "multilabel": st.lists(st.sampled_from([0, 1, 0.0, 1.0, True, False]), min_size=count, max_size=count),
        "regression": number | st.lists(number, min_size=1, max_size=4),
    }[task]


def brought_back(labels: list[Any], task: str, classes: Any, kind: str) -> list[Any]:
    """The labels once they were written and read."""
    language = Language(task=task, classes=classes)
    rows = [
        {"id": i, "key": f"=k{i}", "label": label, "round": 1, "score": None, "when": "", "who": "", "source": ""}
        for i, label in enumerate(labels)
    ]
    reader = Reader(language=language, queried=range(len(rows)), key=lambda i: f"=k{i}", size=len(rows))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"labels.{kind}"
        with path.open("wb") as file:
            WRITERS[kind](Labelled(rows=rows, task=task, language=language), file)
        return [s.value for s in reader.read(path)]


def plain(label: Any) -> Any:
    return label[0] if isinstance(label, list) and len(label) == 1 else label


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel", "regression"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_labels_are_the_same_after_export_and_label(task: str, kind: str, data: Any) -> None:
    classes = data.draw(st.one_of(class_names(), st.integers(2, 12)))
    if task == "binary":
        classes = classes[:2] if isinstance(classes, list) else 2
    count = classes if isinstance(classes, int) else len(classes)
    labels = data.draw(st.lists(labels_of(task, count), min_size=1, max_size=6))
    found = brought_back(labels, task, None if task == "regression" else classes, kind)
    assert list(map(plain, found)) == list(map(plain, labels))


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=100, deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_the_same_bit_for_bit(kind: str, numbers: list[float]) -> None:
    found = brought_back([*numbers, -0.0, 5e-324], "regression", None, kind)
    assert struct.pack(f"{len(found)}d", *found) == struct.pack(f"{len(found)}d", *numbers, -0.0, 5e-324)


# ---- through the command ----------------------------------------------------------------------------------------


def dataset(task: str) -> Any:
    x, y = blobs().tensors
    target = {
        "multiclass": y,
        "binary": (y > 0).float()[:, None],
        "multilabel": torch.stack([y != 0, y == 1, y == 2], 1).float(),
        "regression": torch.stack([y * 0.1, -y / 3], 1),
    }[task]
    return TensorDataset(x, target)


def committed(folder: Path) -> tuple[Any, ...]:
    saved = read_run(folder)
    return {i: encode(label) for i, label in saved.answers.items()}, saved.places, saved.step


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel", "regression"])
def test_a_run_by_the_dataset_takes_its_export_for_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, kind: str
) -> None:
    folder, out = tmp_path / "run", tmp_path / f"labels.{kind}"
    pool = pool_of(dataset(task), task=task, val=None)
    oracle = FunctionOracle(lambda i: pool.items.target(pool.eval_data[i]) if i % 5 else None)  # it waits for a fifth
    learner(folder, oracle=oracle, query=Random(), preflight=False).fit(net(), datamodule=pool)  # it never trains
    before = committed(folder)
    assert len(before[0]) > 5
    assert main(["export", str(folder), "--format", kind, "-o", str(out)]) == 0
    assert main(["label", str(folder), str(out)]) == 0
    assert committed(folder) == before
    assert f"{len(before[0])} further answers" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", WRITERS)
def test_class_names_go_out_and_come_in(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    names, folder, out = ["=b", "1", "0"], tmp_path / "run", tmp_path / f"labels.{kind}"
    oracle = FileOracle(classes=names)
    learner(folder, oracle=oracle).fit(net(), datamodule=pool_of())
    path = folder / "queries" / "round-001.csv"
    fill(path, lambda i: names[i % 3] if i != ids_of(path)[0] else None)
    learner(folder, oracle=oracle).fit(net(), datamodule=pool_of())
    before = committed(folder)
    assert main(["export", str(folder), "--format", kind, "-o", str(out)]) == 0
    assert main(["label", str(folder), str(out)]) == 0
    assert committed(folder) == before
    said = out.read_text()
    assert "'=b" in said if kind == "csv" else '"label": "=b"' in said
    capsys.readouterr()


def test_labels_that_fit_no_cell_go_as_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    oracle = FunctionOracle(lambda i: {"box": torch.tensor([[0.5, i]]), "of": (1, 0.0)} if i % 5 else None)
    pool = pool_of(task="regression", val=None, attach=lambda item, label: item)
    learner(folder, oracle=oracle, query=Random(), preflight=False).fit(net(), datamodule=pool)  # it never trains
    before = committed(folder)
    assert main(["export", str(folder)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the label of id" in said
    assert "has no cell for it: export --format jsonl has it as it is" in said
    out = tmp_path / "labels.jsonl"
    assert main(["export", str(folder), "--format", "jsonl", "-o", str(out)]) == 0
    assert main(["label", str(folder), str(out)]) == 0
    assert committed(folder) == before
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    (tmp_path / "labels.csv").write_text(f"id,label\n{rows[0]['id']},1\n")
    assert main(["label", str(folder), str(tmp_path / "labels.csv")]) == 1
    assert "do not fit a cell: bring them in as JSON Lines" in capsys.readouterr().err
    rows[0]["label"] = {"box": float("nan")}
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["label", str(folder), str(out)]) == 1
    assert "line 1: the label of id" in capsys.readouterr().err
    assert committed(folder) == before


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "classes", "label"),
    [
        ("csv", 3, "0;0"),
        ("csv", 3, "1; 0 ;1"),
        ("csv", NAMES, "a;b;a"),
        ("jsonl", 3, "2;2"),
        ("jsonl", 3, [1, 1]),
        ("jsonl", 3, [0, 1, 1]),
        ("jsonl", NAMES, ["a", "b", "a"]),
        ("jsonl", NAMES, "c;c"),
    ],
)
def test_a_class_named_twice_in_a_cell_is_refused(tmp_path: Path, kind: str, classes: Any, label: Any) -> None:
    language = Language(task="multilabel", classes=classes)
    path = tmp_path / f"answers.{kind}"
    path.write_text(json.dumps({"id": 1, "label": label}) + "\n" if kind == "jsonl" else f"id,label\n1,{label}\n")
    with pytest.raises(BadLabelFile, match="label is "):
        Reader(language=language, queried=[1], key=str, size=2).read(path)


def test_a_number_of_json_that_is_two_classes_is_refused() -> None:
    language = Language(task="multiclass", classes=["1", "0"])
    assert (language.read("1"), language.read_json("1")) == (0, 0)
    with pytest.raises(ValueError, match="1"):
        language.read_json(1)
    assert Language(task="multiclass", classes=["0", "1"]).read_json(1) == 1


@pytest.mark.parametrize("names", [["=a", "'=a"], ["a\0"], ["\ud800"], ["a;b"], ["NONE"], ["Skip"], ["a "]])
def test_names_that_could_not_be_told_apart_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="class name"):
        check_classes(names)


def test_labels_no_cell_can_hold_are_refused_by_their_id() -> None:
    language = Language(task="multilabel", classes=2)
    row = dict.fromkeys(("key", "round", "score", "when", "who", "source"), "") | {"id": 7, "label": [0.25, 0.75]}
    with pytest.raises(ActiveLearningError, match=r"the label of id 7 is \[0.25, 0.75\], and"):
        write_csv(Labelled(rows=[row], task="multilabel", language=language), io.BytesIO())


def test_keys_of_any_type_come_back_in_the_run_s_own_files(tmp_path: Path) -> None:
    keys: list[Any] = [("a", i) if i % 2 else None if i == 2 else i * 0.5 for i in range(60)]
    for kind in WRITERS:
        folder = tmp_path / kind
        oracle = FileOracle(classes=NAMES)
        learner(folder, oracle=oracle).fit(net(), datamodule=pool_of(keys=keys))
        path = folder / "queries" / f"round-001.{kind}"
        if kind == "csv":
            fill(path)
        else:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps({**x, "label": truth(x["id"])}) + "\n" for x in lines))
        result = learner(folder, oracle=oracle).fit(net(), datamodule=pool_of(keys=keys))
        assert len(result.labelled) == 12
