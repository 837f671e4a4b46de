"""Files of answers: what a cell means, and what every kind of damage is told. docs/reliability.md lists these tests."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from al_lightning.errors import BadLabelFile, PoolError
from al_lightning.oracles import label_file
from al_lightning.oracles.label_cell import Language, check_classes
from al_lightning.oracles.label_file import Reader, Row, as_csv, as_json_lines
from al_lightning.oracles.oracle import SKIP

QUERIED = (2, 3, 5, 7, 11)


def reader(task: str = "multiclass", classes: Any = None, **kwargs: Any) -> Reader:
    settings: dict[str, Any] = {"queried": QUERIED, "key": lambda i: f"k{i}", "size": 20}
    return Reader(language=Language(task=task, classes=classes), **{**settings, **kwargs})


def read(folder: Path, data: str | bytes, name: str = "answers.csv", **kwargs: Any) -> dict[int, Any]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    said = reader(**kwargs).read(path)
    return {s.id: s.value for s in said}


# ---- cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "classes", "cell", "value"),
    [
        ("multiclass", None, "2", 2),
        ("multiclass", None, " 2.0 ", 2),
        ("multiclass", 3, "skip", SKIP),
        ("multiclass", ["cat", "dog"], "dog", 1),
        ("multiclass", ["cat", "dog"], "  cat ", 0),
        ("multiclass", ["0", "1"], "1", 1),
        ("binary", None, "1", 1),
        ("binary", ["no", "yes"], "yes", 1),
        ("multilabel", 4, "0;3", [1, 0, 0, 1]),
        ("multilabel", ["a", "b", "c"], "c; a", [1, 0, 1]),
        ("multilabel", 2, "none", [0, 0]),
        ("regression", None, "-1.5e3", -1500.0),
        ("regression", None, "1;2.5", [1.0, 2.5]),
        ("regression", None, "Skip", SKIP),
    ],
)
def test_a_cell_is_read_in_the_language_of_the_task(task: str, classes: Any, cell: str, value: Any) -> None:
    language = Language(task=task, classes=classes)
    assert language.read(cell) == value
    assert language.read(language.write(value)) == value
    assert language.read("  ") is None


@pytest.mark.parametrize(
    ("task", "classes", "cells", "allowed"),
    [
        (
            "multiclass",
            None,
            ["-1", "1.5", "cat", "1e3", "²", "٣", "1 2", "=1", "1" * 10],
            "class numbers 0, 1, ",
        ),
        ("multiclass", 3, ["3", "99"], "class numbers 0 to 2 or skip"),
        ("multiclass", ["cat", "dog"], ["Cat", "1", "bird", "cat;dog"], "cat, dog or skip"),
        ("binary", None, ["2", "True"], "class numbers 0 to 1 or skip"),
        ("multilabel", 2, ["2", "0,1", ";", "0;", "skip;1"], "class numbers 0 to 1, several separated by ;, none or"),
        ("regression", None, ["1,5", "nan", "inf", "1e999", "0x1", "1_0", "one"], "a number"),
    ],
)
def test_labels_out_of_range_are_told_what_is_allowed(
    tmp_path: Path, task: str, classes: Any, cells: list[str], allowed: str
) -> None:
    for cell in cells:
        data = f'id,label\n2,\n3,"{cell}"\n'
        with pytest.raises(BadLabelFile, match="line 3: label is ") as error:
            read(tmp_path, data, task=task, classes=classes)
        assert ascii(cell) in str(error.value)
        assert allowed in str(error.value)


@pytest.mark.parametrize("classes", [0, [""], ["a", "a"], ["skip"], ["None"], ["a;b"], [" a"], "ab", [1, 2]])
def test_class_names_a_cell_could_not_tell_apart_are_refused(classes: Any) -> None:
    with pytest.raises(ValueError, match="class"):
        check_classes(classes)


@pytest.mark.parametrize("task", ["segmentation", "tokens"])
def test_tasks_whose_labels_fit_no_cell_are_refused(task: str) -> None:
    with pytest.raises(PoolError, match=rf"task='{task}' do not fit .* FunctionOracle"):
        Language(task=task)
    with pytest.raises(PoolError, match="pass classes="):
        Language(task="multilabel")


# ---- damage -----------------------------------------------------------------------------------------------------

DAMAGED: dict[str, tuple[str | bytes, str]] = {
    "wrong columns": ("id,answer\n2,1\n", r"line 1: no column label; there are 'id', 'answer', separated by commas"),
    "semicolons": ("id;label\n2;1\n", r"line 1: no column id and no column label; there are 'id;label'"),
    "a column twice": ("id,label,label\n2,1,1\n", r"line 1: column label is there twice"),
    "unknown id": ("id,label\n2,1\n20,1\n", r"line 3: id 20 is unknown; ids of this pool are 0 to 19"),
    "id not queried": ("id,label\n4,1\n", r"line 2: id 4 was not queried"),
    "path as id": ("id,label\n../../etc/passwd,1\n", r"line 2: id is '\.\./\.\./etc/passwd'; allowed: numbers"),
    "negative id": ("id,label\n-1,1\n", r"line 2: id is '-1'"),
    "formula as id": ("id,label\n=2+1,1\n", r"line 2: id is '=2\+1'"),
    "formula as label": ('id,label\n2,"=cmd()"\n', r"line 2: label is '=cmd\(\)'; allowed: class numbers"),
    "rows mixed up": ("id,key,label\n2,k3,1\n", r"line 2: id 2 has key 'k2' in this run, and the file says 'k3'"),
    "duplicates that disagree": ("id,label\n2,1\n3,0\n2,2\n", r"line 4: id 2 has another label in line 2"),
    "empty": (b"", r"it is empty"),
    "nothing but a BOM": (b"\xef\xbb\xbf\r\n", r"it is empty"),
    "half-written row": ("id,key,label\n2,k2,1\n3,k", r"line 3: 2 cells where the first line has 3 columns; is the f"),
    "half-written text": ('id,label\n2,1\n3,"1', r"line 3: unexpected end of data; is the file whole\?"),
    "wrong encoding": (
        b"id,text,label\n2,ok,1\n3,caf\xe9,1\n",
        r"line 3: byte 0xe9 is not UTF-8; save the file as UTF",
    ),
    "UTF-16": ("id,label\n2,1\n".encode("utf-16"), r"line 1: it is UTF-16; save it as UTF-8"),
    "NUL bytes": (b"id,label\n2,1\n3,\x00\n", r"line 3: it has a NUL byte"),
    "too many cells": ("id,label\n2,1,1\n", r"line 2: 3 cells where the first line has 2 columns"),
    "bad ask": ("id,ask,label\n2,3,1\n", r"line 2: ask is '3'; allowed: 1 or 2"),
    "control characters in a name": ("id,annotator,label\n2,\x1b[31mann,1\n", r"line 2: annotator is '\\x1b\[31mann'"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, damage: str) -> None:
    data, message = DAMAGED[damage]
    with pytest.raises(BadLabelFile, match=message) as error:
        read(tmp_path, data)
    path = tmp_path / "answers.csv"
    assert str(path) in str(error.value)
    assert "nothing was taken in" in str(error.value)
    assert "\x1b" not in str(error.value)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data), "the file is left as it is"


def test_a_file_too_large_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # 1 GB, none of it on the disk
    with pytest.raises(BadLabelFile, match=r"1,073,741,824 bytes are too many .* allowed: 268,435,456"):
        reader().read(path)


def test_a_cell_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadLabelFile, match="line 2: field larger than field limit"):
        read(tmp_path, f"id,text,label\n2,{'x' * 200_000},1\n")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadLabelFile, match="cannot be read: No such file"):
        reader().read(tmp_path / "nothing.csv")
    with pytest.raises(BadLabelFile, match="cannot be read"):
        reader().read(tmp_path)


def test_all_problems_are_told_at_once_up_to_ten(tmp_path: Path) -> None:
    rows = "".join(f"{i},bird\n" for i in range(20))
    with pytest.raises(BadLabelFile) as error:
        read(tmp_path, "id,label\n" + rows)
    assert len(error.value.problems) == 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"id": 2, "label": 1}\n{"id": 3, "la', "line 2: it is not JSON; is the file whole"),
        ('{"id": 2}\n', "line 1: it is no object with id and label"),
        ("[]\n", "line 1: it is no object"),
        ('{"id": [[2]], "label": 1}\n', r"line 1: id is '\[\[2\]\]'; allowed: text, or a number"),
        ('{"id": 2, "label": [[1]]}\n', r"line 1: label is '\[\[1\]\]'; allowed: a label, or a list of them"),
        ('{"id": 2, "label": 1, "annotator": NaN}\n', "line 1: annotator is 'NaN'; allowed: text"),
        ('{"id": 2, "label": 1, "annotator": true}\n', "line 1: annotator is 'true'; allowed: text"),
        ('{"id": "../x", "label": 1}\n', r"line 1: id is '\.\./x'"),
        ('{"id": 2, "label": {"a": 1}}\n', "line 1: label is"),
        ('{"id": 2, "label": true}\n', "line 1: label is 'true'"),
        ("[" * 100_000, "line 1: it is not JSON"),
        ('{"id": 2, "label": ' + "1" * 5000 + "}", "line 1: "),
    ],
)
def test_damaged_json_lines_are_refused_with_their_line(tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(BadLabelFile, match=message):
        read(tmp_path, data, name="answers.jsonl")


def test_what_spreadsheets_do_to_a_file_is_understood(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,key,text,label\r\n2.0,k2,"two\r\nlines",1.0\r\n3,k3,,\r\n,,,\r\n\r\n5,k5,x, skip\r\n'
    assert read(tmp_path, data) == {2: 1, 5: SKIP}


def test_lines_are_counted_through_cells_of_several_lines(tmp_path: Path) -> None:
    with pytest.raises(BadLabelFile, match="line 4: label is 'bird'"):
        read(tmp_path, 'id,text,label\n2,"two\nlines",1\n3,x,bird\n')


def test_the_same_answer_twice_is_one(tmp_path: Path) -> None:
    assert read(tmp_path, "id,label\n2,1\n2,1\n2,\n") == {2: 1}


def test_rows_of_annotators_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("id,annotator,label\n2,ann,1\n2,bob,2\n3,,0\n")
    said = reader().read(path, who="file")
    assert [(s.id, s.who, s.value, s.line) for s in said] == [(2, "ann", 1, 2), (2, "bob", 2, 3), (3, "file", 0, 4)]


def test_json_labels_are_numbers_names_or_lists(tmp_path: Path) -> None:
    data = '{"id": 2, "label": 1}\n{"id": 3, "label": null}\n{"id": 5, "label": "skip"}\n'
    assert read(tmp_path, data, name="a.jsonl") == read(tmp_path, data, name="A.JSONL") == {2: 1, 5: SKIP}
    data = '{"id": 2, "label": [0, 2]}\n{"id": 3, "label": []}\n'
    assert read(tmp_path, data, name="a.jsonl", task="multilabel", classes=3) == {2: [1, 0, 1], 3: [0, 0, 0]}
    data = '{"id": 2, "label": [0.5, 2]}\n{"id": 3, "label": -1}\n'
    assert read(tmp_path, data, name="a.jsonl", task="regression") == {2: [0.5, 2.0], 3: -1.0}


# ---- out --------------------------------------------------------------------------------------------------------


def test_no_cell_is_a_formula_and_everything_can_be_read_back(tmp_path: Path) -> None:
    keys = {2: "=cmd()", 3: "@x", 5: "-1+1", 7: "plain, with comma", 11: 'quo"te\nline'}
    texts = ["+1", "\tx", "é\0", -5, None]
    rows = [Row(id=i, key=key, columns={"=text": text}) for (i, key), text in zip(keys.items(), texts, strict=True)]
    written = as_csv(rows, asks=False)
    table = list(csv.reader(io.StringIO(written)))
    assert table[0] == ["id", "key", "'=text", "label"]
    cells = [cell for row in table[1:] for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+@\t\r" and cell]
    assert table[4][2] == "-5", "a number is no formula"
    filled = io.StringIO(newline="")
    csv.writer(filled).writerows([table[0], *([*row[:-1], "1"] for row in table[1:])])
    assert read(tmp_path, filled.getvalue(), key=keys.get) == dict.fromkeys(keys, 1)
    lines = [json.loads(line) for line in as_json_lines(rows, asks=True).splitlines()]
    assert lines[0] == {"id": 2, "key": "=cmd()", "=text": "+1", "ask": 1, "label": None}


def test_columns_with_a_name_of_ours_or_too_much_text_are_refused() -> None:
    with pytest.raises(PoolError, match=r"column 'label'.*rename it"):
        as_csv([Row(id=2, key=2, columns={"label": 1})], asks=False)
    with pytest.raises(PoolError, match="column 'text' of id 2 has 200,000 characters; a cell holds 131,071"):
        as_csv([Row(id=2, key=2, columns={"text": "x" * 200_000})], asks=False)


# ---- anything ---------------------------------------------------------------------------------------------------


def test_random_damage_is_an_error_of_ours_or_labels_that_were_asked_for(tmp_path: Path) -> None:
    rng = random.Random(0)
    whole = 'id,key,text,ask,annotator,label\n2,k2,"a ""b""\nc",1,ann,1\n3,k3,,1,,skip\n5,k5,é,2,bob,0\n'.encode()
    alphabet = [b"\0", b'"', b",", b"\n", b"\r", b"\xff", b"=", b";", b"9", b"-", b"\xef\xbb\xbf", b"skip", b"id"]
    path = tmp_path / "answers.csv"
    refused = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.choice((0, 0, 1, 5, 40))] = rng.choice([*alphabet, rng.randbytes(2)])
        path.write_bytes(data)
        try:
            said = reader(classes=3).read(path)
        except BadLabelFile:
            refused += 1
            continue
        assert all(s.id in QUERIED and (s.value is SKIP or s.value in (0, 1, 2)) and s.ask in (1, 2) for s in said)
        assert path.read_bytes() == data
    assert 500 < refused < 2000


def test_the_limit_is_more_than_any_query(tmp_path: Path) -> None:
    assert label_file.LARGEST >= 100_000 * 1_000
