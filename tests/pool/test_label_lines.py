"""Files that somebody is writing, links, and files so large that they must not be in memory at once."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from al_lightning.errors import BadLabelFile
from al_lightning.oracles import label_lines
from al_lightning.oracles.label_cell import Language
from al_lightning.oracles.label_file import Reader, texts
from al_lightning.oracles.oracle import SKIP

Row = tuple[int, str, Any]
ROWS: list[Row] = [(1, "plain", "2"), (2, 'two\n"lines"\r\nof é', "12"), (3, "", "skip"), (4, "🙂", "0")]


def reader(task: str = "multiclass", **kwargs: Any) -> Reader:
    language = Language(task=task, classes=kwargs.pop("classes", None))
    return Reader(**{"language": language, "queried": range(10), "key": str, "size": 10, "task": task, **kwargs})


def table(rows: list[Row], end: str, label_last: bool = True) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(["id", "text", "label"] if label_last else ["label", "id", "text"])
    writer.writerows((i, text, label) if label_last else (label, i, text) for i, text, label in rows)
    return out.getvalue()


def json_lines(rows: list[Row], end: str) -> str:
    return "".join(json.dumps({"id": i, "text": t, "label": v}, ensure_ascii=False) + end for i, t, v in rows)


NUMBERS = [(1, "a", "0.25"), (2, "b", "-1.5e-3;2.25"), (3, "c", "12")]
SETS = [(1, "a", "1;12"), (2, "b", "none"), (3, "c", "10;1")]
NAMED = [(1, "a", "cat,fish"), (2, "b", "cat"), (3, "c", "ca\nt")]
FILES: dict[str, tuple[str, bytes, Reader]] = {
    "csv": ("csv", table(ROWS, "\n").encode(), reader()),
    "csv, CRLF": ("csv", table(ROWS, "\r\n").encode("utf-8-sig"), reader()),
    "csv, CR": ("csv", table(ROWS[:1] + ROWS[2:], "\r").encode(), reader()),
    "csv, label first": ("csv", table(ROWS, "\n", label_last=False).encode(), reader()),
    "csv, numbers": ("csv", table(NUMBERS, "\n").encode(), reader("regression")),
    "csv, sets": ("csv", table(SETS, "\r\n").encode(), reader("multilabel", classes=20)),
    "csv, names": ("csv", table(NAMED, "\n").encode(), reader(classes=["cat", "cat,fish", "ca\nt", "ca"])),
    "json": ("jsonl", json_lines(ROWS, "\n").encode(), reader()),
    "json, CRLF": ("jsonl", json_lines(ROWS, "\r\n").encode(), reader()),
    "json, numbers": ("jsonl", json_lines([(1, "a", 0.25), (2, "b", [1.5, 22])], "\n").encode(), reader("regression")),
}
"""Whole files, of each form."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused_or_holds_fewer_labels_and_no_others(tmp_path: Path, name: str) -> None:
    kind, data, read = FILES[name]
    path = tmp_path / f"answers.{kind}"
    path.write_bytes(data)
    whole = {s.id: s.value for s in read.read(path)}
    assert len(whole) >= 2
    os.utime(path, (0, 0))
    taken = 0
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        try:
            found = {s.id: s.value for s in read.read(path)}
        except BadLabelFile:
            continue
        assert found.items() <= whole.items(), data[:cut]
        taken += 1
    assert taken <= 2 * (data.count(b"\n") + data.count(b"\r")), "only where a row has ended"


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [("csv", "id,label\n1,0.25\n2,0.2", 3), ("csv", "id,label", 1), ("jsonl", '{"id": 1, "label": 0.2}', 1)],
)
def test_a_last_row_without_a_line_end_is_refused_with_what_to_do(
    tmp_path: Path, kind: str, data: str, line: int
) -> None:
    path = tmp_path / f"answers.{kind}"
    path.write_text(data)
    with pytest.raises(BadLabelFile, match=rf"line {line}: the last row has no line end.*Enter after the last row"):
        reader("regression").read(path)
    path.write_text(f"{data}\n")
    reader("regression").read(path)


# ---- written meanwhile ------------------------------------------------------------------------------------------


class Meanwhile:
    """The key of a record, while somebody writes the file: at each look, until they are done."""

    def __init__(self, write: Any, times: int) -> None:
        self.write, self.left = write, times

    def __call__(self, id: int) -> str:
        if self.left:
            self.left -= 1
            self.write()
        return str(id)


def in_place(path: Path, text: str) -> None:
    with path.open("r+b") as file:
        file.write(text.encode())
        file.truncate()


def by_another(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # as rsync and cp -p do
    os.replace(other, path)


@pytest.mark.parametrize("write", [in_place, by_another])
def test_a_file_that_is_written_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    monkeypatch.setattr(label_lines, "_PAUSE", 0.0)
    path = tmp_path / "answers.csv"
    path.write_text("id,key,label\n1,1,2\n2,2,2\n")
    key = Meanwhile(lambda: write(path, "id,key,label\n1,1,3\n2,2,3\n"), times=2)
    assert [s.value for s in reader(key=key).read(path)] == [3, 3]
    path.write_text("id,key,label\n1,1,2\n2,2,9")
    key = Meanwhile(lambda: write(path, "id,key,label\n1,1,3\n2,2,99\n"), times=1)
    assert [s.value for s in reader(key=key).read(path)] == [3, 99], "what was wrong with it then counts no more"


def test_a_file_that_never_stands_still_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_lines, "_PAUSE", 0.0)
    path = tmp_path / "answers.csv"
    path.write_text("id,key,label\n1,1,2\n")
    key = Meanwhile(lambda: by_another(path, path.read_text()), times=1000)
    with pytest.raises(BadLabelFile, match="it has changed each time it was read: run the same command once"):
        reader(key=key).read(path)


# ---- what is no file --------------------------------------------------------------------------------------------


def test_links_lead_to_files_and_nowhere_else(tmp_path: Path) -> None:
    link, real = tmp_path / "answers.csv", tmp_path / "real.csv"
    real.write_text("id,label\n1,2\n")
    link.symlink_to(real)
    assert [(s.value, s.source) for s in reader().read(link)] == [(2, str(link))]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target, problem in {
        "gone.csv": "No such file",
        "answers.csv": "Too many levels|cannot be read",
        "pipe": "a device or a pipe",  # nobody writes to it: reading it would wait for ever
        "/dev/zero": "a device or a pipe",
        ".": "cannot be read",
    }.items():
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(BadLabelFile, match=problem):
            reader().read(link)


# ---- large ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_no_more_of_a_file_is_in_memory_than_a_line_and_its_labels(tmp_path: Path, kind: str) -> None:
    path, text = tmp_path / f"answers.{kind}", "é🙂" * 2_000
    with path.open("w") as file:
        file.write("" if kind == "jsonl" else "id,text,label\n")
        for i in range(2_000):
            row = json.dumps({"id": i, "text": text, "label": 1}, ensure_ascii=False)
            file.write(f"{row}\n" if kind == "jsonl" else f'{i},"{text}",1\n')
    assert path.stat().st_size > 20 << 20
    tracemalloc.start()
    try:
        said = reader(queried=range(2_000), size=2_000).read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(said) == 2_000
    assert peak < 3 << 20


def test_a_line_longer_than_any_row_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_lines, "_LONGEST", 1000)
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 1, "label": 2}\n{"id": 2, "label": ' + "[" * 5000 + "\n")
    with pytest.raises(BadLabelFile, match="line 2: it has 1,000 bytes or more, and is no row of a query"):
        reader().read(path)


# ---- twice in a line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twice", ['"label": 1, "label": 2', '"label": 2, "id": 1', '"label": {"a": 1, "a": 2}'])
def test_a_name_that_is_twice_in_a_record_is_refused(tmp_path: Path, twice: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 2, "label": 1}\n{"id": 1, ' + twice + "}\n")
    for settings in ({}, {"language": None}):
        with pytest.raises(BadLabelFile, match=r"line 2: '\w+' is there twice; leave one of the two"):
            reader(**settings).read(path)


def test_an_export_of_label_studio_is_no_file_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "project-1.csv"
    path.write_text("annotation_id,annotator,id,key,label,lead_time\n5,1,2,2,1,3.5\n")
    with pytest.raises(BadLabelFile, match="line 1: it is an export of Label Studio, where id is a task's"):
        reader().read(path)


def test_texts_of_a_query_are_read_by_the_line(tmp_path: Path) -> None:
    path = tmp_path / "round-001.csv"
    path.write_text('id,key,text,label\n1,1,"a\nb",\n2,2,c,\n')
    assert texts(path) == {1: {"text": "a\nb"}, 2: {"text": "c"}}
    assert SKIP not in texts(path).values()
