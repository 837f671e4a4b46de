"""People answer later: in part, not at all, in several voices, twice, wrongly, and then better."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from al_lightning import Budget, Prices, WarmStart
from al_lightning.candidates import RotatingSubset
from al_lightning.errors import ActiveLearningError, BadLabelFile, PoolError
from al_lightning.oracles import FileOracle, file_oracle
from al_lightning.query import KCenterGreedy
from al_lightning.report.read import read
from al_lightning.round_size import Listed
from al_lightning.run import store as store_module
from al_lightning.run.store import Store, read_run
from tests.formats import as_format
from tests.helpers import NAMES, fill, ids_of, learner, net, pool_of, quiet, truth


def start(folder: Path, oracle: FileOracle | None = None, keys: Any = None, **kwargs: Any) -> Any:
    made = learner(folder, oracle=oracle or FileOracle(classes=NAMES), **kwargs)
    return made.fit(net(), datamodule=pool_of(keys=keys))


def to_the_end(folder: Path, oracle: FileOracle | None = None, **kwargs: Any) -> Any:
    for round in range(1, 10):
        result = start(folder, oracle, **kwargs)
        if result.reason.kind != "waiting":
            return result
        fill(folder / "queries" / f"round-{round:03d}.csv")
    raise AssertionError("it waits for ever")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same run, answered at once by the dataset."""
    return learner(tmp_path_factory.mktemp("whole") / "run").fit(net(), datamodule=pool_of())


def audit(folder: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "run.sqlite") as db:
        return db.execute("SELECT id, who, source, old, new FROM audit ORDER BY seq").fetchall()


# ---- the round trip ---------------------------------------------------------------------------------------------


def test_files_filled_by_people_end_as_the_same_run(tmp_path: Path, whole: Any) -> None:
    folder, keys = tmp_path / "run", [f"img-{i:03d}.png" for i in range(60)]
    oracle = FileOracle(classes=NAMES, columns=lambda i: {"text": f"record {i}"})
    first = start(folder, oracle, keys=keys)
    path = folder / "queries" / "round-001.csv"
    assert first.reason.kind == "waiting"
    assert str(first.reason) == f"waiting for 12 labels: fill {path}, then run the same command"
    assert first.history == ()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values()) for row in rows[:1]] == [[rows[0]["id"], f"img-{int(rows[0]['id']):03d}.png",
                                                         f"record {rows[0]['id']}", ""]]  # fmt: skip
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids_of(path)
    assert lines[0]["label"] is None
    result = to_the_end(folder, oracle, keys=keys)
    assert result.labelled.tolist() == whole.labelled.tolist()
    assert torch.equal(result.model.net[0].weight, whole.model.net[0].weight)
    assert result.bill.labels == whole.bill.labels


def test_json_lines_can_be_filled_instead(tmp_path: Path, whole: Any) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "label": truth(line["id"])}) + "\n" for line in lines))
    assert start(tmp_path).labelled.tolist() == whole.labelled[:12].tolist()


def test_asking_again_never_overwrites_what_people_typed(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    fill(path, lambda i: truth(i) if i % 2 else None)
    typed = path.read_bytes()
    for _ in range(2):
        result = start(tmp_path)
        assert path.read_bytes() == typed
    odd = sum(i % 2 for i in ids_of(path))
    assert result.reason.numbers["labels"] == 12 - odd
    assert len(result.labelled) == odd
    assert result.bill.labels == odd + 9


def test_refused_records_are_neither_trained_on_nor_asked_again(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    refused = ids_of(path)[:3]
    fill(path, lambda i: "skip" if i in refused else truth(i))
    result = start(tmp_path)
    assert len(result.labelled) == 9
    assert not {*refused} & {*result.labelled.tolist(), *ids_of(tmp_path / "queries" / "round-002.csv")}


def test_in_a_loop_by_hand_the_oracle_needs_a_folder(tmp_path: Path) -> None:
    pool = pool_of()
    with pytest.raises(PoolError, match=r"pass folder=\."):
        pool.label([1, 2], FileOracle(classes=NAMES))
    oracle = FileOracle(folder=tmp_path, classes=NAMES)
    assert pool.label([1, 2], oracle) == 0
    fill(tmp_path / "round-000.csv")
    assert oracle.collect() == {1: 1, 2: 2}


def test_multilabel_and_numbers_come_as_the_task_says(tmp_path: Path) -> None:
    pool = pool_of(task="multilabel")
    oracle = FileOracle(folder=tmp_path / "sets", classes=NAMES)
    pool.label([4, 5], oracle)
    fill(tmp_path / "sets" / "round-000.csv", lambda i: "c;a" if i == 4 else "none")
    assert oracle.collect() == {4: [1, 0, 1], 5: [0, 0, 0]}
    with pytest.raises(PoolError, match="pass classes="):
        pool.label([6], FileOracle(folder=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    pool, oracle = pool_of(task="regression"), FileOracle(folder=tmp_path / "numbers")
    pool.label([4], oracle)
    fill(tmp_path / "numbers" / "round-000.csv", lambda i: "2.5")
    assert oracle.collect() == {4: 2.5}


@pytest.mark.parametrize(
    "settings", [{"annotators": 0}, {"repeat": 1.5}, {"repeat": -0.1}, {"adjudicator": ""}, {"classes": ["a", "a"]}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings)).rstrip("es")):
        FileOracle(**settings)


# ---- corrections ------------------------------------------------------------------------------------------------


def test_a_changed_cell_of_an_older_round_corrects_the_label(tmp_path: Path, whole: Any) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    wrong = ids_of(path)[4]
    fill(path, lambda i: "b" if i == wrong and truth(i) != "b" else "a" if i == wrong else truth(i))
    start(tmp_path)
    before = read_run(tmp_path).answers[wrong]
    fill(path, lambda i: truth(i) if i == wrong else None, annotator="eve")
    fill(tmp_path / "queries" / "round-002.csv")
    result = start(tmp_path)
    saved = read_run(tmp_path)
    assert before != wrong % 3
    assert saved.answers[wrong] == wrong % 3
    assert result.labelled[:12].tolist() == whole.labelled[:12].tolist(), "it keeps its place"
    assert (wrong, "eve", "queries/round-001.csv", str(before), str(wrong % 3)) in audit(tmp_path)
    assert len(audit(tmp_path)) == 12 + 6 + 1
    assert all(s.at for s in saved.statements)


def test_a_row_in_a_later_file_corrects_an_earlier_label(tmp_path: Path) -> None:
    start(tmp_path)
    first, second = (tmp_path / "queries" / f"round-00{k}.csv" for k in (1, 2))
    fill(first)
    start(tmp_path)
    fill(second)
    id = ids_of(first)[0]
    other = NAMES[(id + 1) % 3]
    with second.open("a") as file:
        file.write(f"{id},{id},{other}\n")
    start(tmp_path)
    assert read_run(tmp_path).answers[id] == (id + 1) % 3
    start(tmp_path)  # the older file still says the other thing, which is no news
    assert read_run(tmp_path).answers[id] == (id + 1) % 3


def test_a_label_can_be_withdrawn_and_come_late(tmp_path: Path) -> None:
    fit = {"fit": WarmStart("resume", epochs=1)}
    start(tmp_path, **fit)
    path = tmp_path / "queries" / "round-001.csv"
    late, gone = ids_of(path)[:2]
    fill(path, lambda i: "skip" if i == late else truth(i))
    start(tmp_path, **fit)
    fill(path, lambda i: truth(i) if i == late else "skip" if i == gone else None)
    fill(tmp_path / "queries" / "round-002.csv")
    result = start(tmp_path, **fit)
    assert late in result.labelled
    assert gone not in result.labelled
    again = start(tmp_path, **fit)
    assert again.labelled.tolist() == result.labelled.tolist(), "in memory and on disk it is the same order"
    assert [r.labelled for r in result.history] == [11, 17]


def test_a_finished_run_trains_again_on_what_was_corrected(tmp_path: Path) -> None:
    end = {"round_size": Listed([12, 6]), "stop": [Budget(labels=18)]}
    to_the_end(tmp_path / "right", **end)
    right = start(tmp_path / "right", **end)
    folder = tmp_path / "wrong"
    start(folder, **end)
    first = folder / "queries" / "round-001.csv"
    fill(first)
    start(folder, **end)
    second = folder / "queries" / "round-002.csv"
    wrong = ids_of(second)[0]
    fill(second, lambda i: NAMES[(i + 1) % 3] if i == wrong else truth(i))
    done = start(folder, **end)
    assert done.reason.kind == "budget"
    fill(second)
    corrected = start(folder, **end)
    assert corrected.bill.flops > done.bill.flops
    assert torch.equal(corrected.model.net[0].weight, right.model.net[0].weight)
    assert [r.round for r in corrected.history] == [1, 2]
    assert start(folder, **end).bill.flops == corrected.bill.flops, "and that once"


def test_an_emptied_or_deleted_file_loses_no_label(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    fill(path, lambda i: truth(i) if i % 2 else None)
    known = start(tmp_path).labelled.tolist()
    path.unlink()
    again = start(tmp_path)
    assert again.labelled.tolist() == known
    assert set(ids_of(path)) == set(read_run(tmp_path).open_ids), "what is open is asked again"


def test_a_link_is_known_by_its_own_name_wherever_it_leads(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    fill(path)
    for version in ("first", "second"):
        shutil.copy(path, tmp_path / f"{version}.csv")
    path.unlink()
    path.symlink_to(tmp_path / "first.csv")
    start(tmp_path)
    id = ids_of(path)[0]
    fixes = tmp_path / "queries" / "round-002.csv"
    fixes.write_text(fixes.read_text() + f"{id},{id},{NAMES[(id + 1) % 3]}\n")
    start(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "second.csv")  # it says what the first one said, which is no news
    start(tmp_path)
    assert read_run(tmp_path).answers[id] == (id + 1) % 3
    assert {s.source for s in read_run(tmp_path).statements} == {"queries/round-001.csv", "queries/round-002.csv"}


# ---- several people ---------------------------------------------------------------------------------------------


def test_several_annotators_decide_by_majority_and_ties_are_named(tmp_path: Path, whole: Any) -> None:
    oracle = FileOracle(classes=NAMES, annotators=2, adjudicator="eve")
    assert "as 2 people, each in a copy round-001.NAME.csv" in str(start(tmp_path, oracle).reason)
    path = tmp_path / "queries" / "round-001.csv"
    split = ids_of(path)[2]
    for who in ("ann", "bob"):
        shutil.copy(path, path.with_suffix(f".{who}.csv"))
    fill(path.with_suffix(".ann.csv"))
    assert start(tmp_path, oracle).reason.numbers["labels"] == 12, "one of two has answered"
    fill(path.with_suffix(".bob.csv"), lambda i: NAMES[(i + 1) % 3] if i == split else truth(i))
    result = start(tmp_path, oracle)
    assert len(result.labelled) == 11
    assert result.reason.numbers["ties"] == [split]
    said = f"id {split} (ann: {truth(split)}, bob: {NAMES[(split + 1) % 3]})"
    assert f"1 are ties until eve settles them: {said}" in str(result.reason)
    assert result.agreement[0].between == ("ann", "bob")
    assert result.agreement[0].equal == pytest.approx(11 / 12)
    path.with_suffix(".eve.csv").write_text(f"id,label\n{split},{truth(split)}\n")
    assert set(start(tmp_path, oracle).labelled.tolist()) == set(whole.labelled[:12].tolist())
    assert (split, "eve", "queries/round-001.eve.csv", None, str(split % 3)) in audit(tmp_path)
    assert audit(tmp_path)[0][1:3] == ("ann+bob", "queries/round-001.ann.csv+queries/round-001.bob.csv")


def test_one_person_has_one_voice_at_a_time(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    id = ids_of(path)[0]
    fill(path, lambda i: "a" if i == id else None)
    path.with_suffix(".jsonl").write_text(json.dumps({"id": id, "label": "b"}) + "\n")
    with pytest.raises(PoolError, match=rf"id {id} has two labels by one person at once: queries/round-001.csv line 2"):
        start(tmp_path)
    assert read_run(tmp_path).statements == []


# ---- meanwhile ------------------------------------------------------------------------------------------------------


def scored(folder: Path) -> tuple[int, Any]:
    """Records that were inferred to select by, and the round of each record's score."""
    saved = read_run(folder)
    rounds = np.load(folder / saved.files["scores"])["rounds"] if "scores" in saved.files else None
    return sum(entry.records for entry in saved.entries if entry.phase == "score"), rounds


def test_the_next_candidates_are_scored_while_people_answer(tmp_path: Path) -> None:
    settings = {"oracle": FileOracle(classes=NAMES, score_ahead=True), "candidates": RotatingSubset(0.25)}
    start(tmp_path, **settings)
    assert scored(tmp_path) == (0, None), "no model knows anything yet"
    fill(tmp_path / "queries" / "round-001.csv")
    start(tmp_path, **settings)
    records, rounds = scored(tmp_path)
    assert records == 12 + 11, "a quarter of 48 for the query, a quarter of the 42 that it left"
    assert np.count_nonzero(rounds == 1) == 12 + 11 - 2, "stale ones to the next round; two were looked at again"
    start(tmp_path, **settings)
    assert scored(tmp_path)[0] == records, "once a round, however often it is looked whether people have answered"
    fill(tmp_path / "queries" / "round-002.csv")
    start(tmp_path, **settings)
    records, rounds = scored(tmp_path)
    assert records == 23 + 11, "no query follows the last one"
    assert np.count_nonzero(rounds == 2) == 11


def test_scoring_ahead_keeps_within_a_budget_and_needs_a_score(tmp_path: Path) -> None:
    ahead = FileOracle(classes=NAMES, score_ahead=True)
    start(tmp_path, ahead)
    fill(tmp_path / "queries" / "round-001.csv")
    start(tmp_path)
    spent = read_run(tmp_path).entries
    start(tmp_path, ahead, stop=[Budget(flops=1.0 + sum(entry.flops for entry in spent))])
    assert read_run(tmp_path).entries == spent
    with pytest.raises(ValueError, match=r"FileOracle\(score_ahead=True\) .* KCenterGreedy gives no score"):
        learner(tmp_path / "other", oracle=ahead, query=KCenterGreedy())


# ---- quality control and approval -------------------------------------------------------------------------------


def test_a_share_is_asked_twice_paid_twice_and_compared(tmp_path: Path, whole: Any) -> None:
    oracle = FileOracle(classes=NAMES, repeat=0.25)
    start(tmp_path, oracle)
    path = tmp_path / "queries" / "round-001.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ask"] for row in rows] == ["1"] * 12 + ["2"] * 3
    twice = [int(row["id"]) for row in rows[12:]]
    assert len(set(twice)) == 3
    fill(path)
    text = path.read_text().splitlines()
    text[-1] = text[-1][:-1] + NAMES[(twice[-1] + 1) % 3]
    path.write_text("\n".join(text) + "\n")
    result = start(tmp_path, oracle)
    assert result.labelled.tolist() == whole.labelled[:12].tolist()
    assert read_run(tmp_path).answers[twice[-1]] == twice[-1] % 3
    assert result.bill.labels == 12 + 3 + 9
    assert result.agreement[0].records == 3
    assert result.agreement[0].equal == pytest.approx(2 / 3)


def test_a_query_waits_for_approval_with_its_price(tmp_path: Path) -> None:
    oracle, prices = FileOracle(classes=NAMES, approve=True), Prices(label=0.6)
    for _ in range(2):
        result = start(tmp_path, oracle, prices=prices)
        assert result.reason.kind == "approval"
        assert "waiting for approval: 12 labels, price 7.20 USD" in str(result.reason)
        assert f"al-lightning approve {tmp_path}" in str(result.reason)
        assert {p.name for p in (tmp_path / "queries").iterdir()} == {
            "round-001.pending.csv",
            "round-001.pending.jsonl",
        }
    file_oracle.release(tmp_path / "queries", 1)
    result = start(tmp_path, oracle, prices=prices)
    assert result.reason.kind == "waiting"
    assert {p.name for p in (tmp_path / "queries").iterdir()} == {"round-001.csv", "round-001.jsonl"}
    fill(tmp_path / "queries" / "round-001.csv")
    assert start(tmp_path, oracle, prices=prices).reason.kind == "approval"
    assert start(tmp_path, FileOracle(classes=NAMES), prices=prices).reason.kind == "waiting", "nobody need approve now"


# ---- nothing half-done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["round-001 (1).csv", "answers.csv", "round-1.csv", "Round-001.csv"])
def test_a_file_whose_name_says_nothing_is_pointed_out(tmp_path: Path, name: str) -> None:
    start(tmp_path)
    (tmp_path / "queries" / name).write_text("id,label\n")
    with pytest.raises(BadLabelFile, match=r"its name says nothing; allowed: round-003.csv"):
        start(tmp_path)
    (tmp_path / "queries" / name).rename(tmp_path / "queries" / f".~lock.{name}")
    start(tmp_path)


def test_one_bad_cell_and_nothing_of_any_file_goes_in(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    fill(path)
    start(tmp_path)
    second = tmp_path / "queries" / "round-002.csv"
    bad = ids_of(second)[-1]
    fill(second, lambda i: "d" if i == bad else truth(i))
    fill(path, lambda i: "a")  # corrections, too
    before = read_run(tmp_path)
    with pytest.raises(BadLabelFile, match=r"round-002\.csv.*\n.*line 7: label is 'd'; allowed: a, b, c or skip"):
        start(tmp_path)
    after = read_run(tmp_path)
    assert (after.answers, after.statements, after.step) == (before.answers, before.statements, before.step)
    fill(second)
    assert len(start(tmp_path).labelled) == 18


class Died(BaseException):
    """The process was killed here."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_every_write_of_a_run_that_people_answer(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Each commit, each file of a query, and each rename of an approved one, in turn."""
    writes = {(Store, "commit"): Store.commit, (os, "replace"): os.replace}
    count = stop_at = 0

    def dying(write: Any) -> Any:
        def wrapped(*args: Any) -> None:
            nonlocal count
            count += 1
            if count == stop_at and when == "before":
                raise Died
            write(*args)
            if count == stop_at:
                raise Died

        return wrapped

    for (place, name), write in writes.items():
        monkeypatch.setattr(place, name, dying(write))

    def run(folder: Path) -> tuple[Any, int]:
        oracle, died = FileOracle(classes=NAMES, approve=True), 0
        while True:
            try:
                result = start(folder, oracle, round_size=Listed([4]), trainer=quiet(max_epochs=1))
                if result.reason.kind == "approval":
                    file_oracle.release(folder / "queries", len(read_run(folder).queries))
                elif result.reason.kind == "waiting":
                    path = Path(result.reason.numbers["file"])
                    first = not read_run(folder).statements
                    now = ids_of(path)[: 2 if first else None]
                    fill(path, lambda i, now=now: truth(i) if i in now else None)
                else:
                    return result, died
            except Died:
                died += 1

    expected, _ = run(tmp_path / "expected")
    total, labels = count, expected.labelled.tolist()
    assert total >= 12
    for stop in range(1, total + 1):
        count, stop_at = 0, stop
        result, died = run(tmp_path / str(stop))
        assert died == 1
        assert result.labelled.tolist() == labels, stop
        saved = read_run(tmp_path / str(stop))
        assert sorted(saved.answers) == sorted(i for q in saved.queries for i in q)
        assert len(saved.statements) == len(saved.answers) == 4
        assert saved.answers == {i: i % 3 for i in saved.answers}
        shutil.rmtree(tmp_path / str(stop))


# ---- older folders ----------------------------------------------------------------------------------------------


def test_the_bill_of_a_folder_without_bytes_is_read_as_it_was(tmp_path: Path) -> None:
    start(tmp_path)
    fill(tmp_path / "queries" / "round-001.csv")
    before = start(tmp_path)
    as_format(tmp_path, 2)
    assert read(tmp_path).bill.lines == before.bill.lines  # nothing is written to look at it
    assert len(read_run(tmp_path).entries) > 0
    again = start(tmp_path)
    assert again.bill.lines == before.bill.lines


def test_a_folder_of_the_version_before_goes_on(tmp_path: Path) -> None:
    start(tmp_path)
    path = tmp_path / "queries" / "round-001.csv"
    fill(path, lambda i: truth(i) if i % 2 else None)
    start(tmp_path)
    as_format(tmp_path, 1)
    assert len(read_run(tmp_path).answers) > 0
    fill(path)
    result = start(tmp_path)
    assert len(result.labelled) == 12
    assert len(read_run(tmp_path).statements) == 12
    assert len(audit(tmp_path)) == 12 - sum(i % 2 for i in ids_of(path))


def test_a_folder_of_a_later_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    start(tmp_path)
    with sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None) as db:
        db.execute("PRAGMA user_version=99")
    for look in (lambda: start(tmp_path), lambda: read_run(tmp_path)):
        with pytest.raises(ActiveLearningError, match=r"run format 99, this version reads up to 4. Go on with"):
            look()
    assert store_module.FORMAT == 4
