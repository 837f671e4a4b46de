"""A damaged run folder is refused by name, left as it is, and made whole again from what is left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from al_lightning import WarmStart
from al_lightning.cli.main import main
from al_lightning.errors import ActiveLearningError, CannotWrite, DamagedFile, PoolError, RunLocked
from al_lightning.oracles import FileOracle
from al_lightning.oracles.oracle import SKIP
from al_lightning.query import Margin
from al_lightning.report.labels import labelled_rows
from al_lightning.round_size import Listed
from al_lightning.run.changes import Change
from al_lightning.run.recover import recover
from al_lightning.run.store import Query, Store, read_run
from tests.formats import as_format
from tests.helpers import NAMES, fill, learner, net, pool_of, truth
from tests.resume.damaged import DATABASE, JOURNAL, flip, sql


def start(folder: Path, model: Any = None) -> Any:
    parts: dict[str, Any] = {
        "query": Margin(),
        "fit": WarmStart("keep", stable=True, final="previous"),
        "round_size": Listed([6, 6]),
        "stop_set": 5,
    }
    return learner(folder, oracle=FileOracle(classes=NAMES), **parts).fit(model or net(), datamodule=pool_of())


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for the labels of its second round, with a refusal, a correction and two people's answers."""
    folder = tmp_path_factory.mktemp("waiting") / "run"
    start(folder)
    path = folder / "queries" / "round-001.csv"
    fill(path, lambda i: "skip" if i % 5 == 0 else truth(i), annotator="ann")
    start(folder)
    fill(path, lambda i: truth(i + 1) if i % 4 == 0 else "skip" if i % 5 == 0 else truth(i), annotator="bob")
    assert start(folder).reason.kind == "waiting"
    return folder


@pytest.fixture
def folder(waiting: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(waiting, tmp_path / "run"))


def finished(folder: Path) -> tuple[list[int], list[Any], Any]:
    fill(folder / "queries" / "round-002.csv", truth)
    result = start(folder)
    assert result.reason.kind == "exhausted"
    return result.labelled.tolist(), [r.metrics for r in result.history], result.model.net[0].weight


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith("run.pid")}


# ---- the database and the journal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DATABASE)
def test_a_damaged_database_is_refused_left_as_it_is_and_rebuilt_from_the_journal(folder: Path, damage: str) -> None:
    saved, rows = read_run(folder), labelled_rows(folder)
    DATABASE[damage](folder)
    before = content(folder)
    for look in (read_run, start, Store):
        with pytest.raises(DamagedFile, match=rf"run.sqlite.*al-lightning recover {folder}"):
            look(folder)
    with suppress(DamagedFile):
        assert labelled_rows(folder) == rows, "where it needs none of what is damaged"
    assert content(folder) == before
    found = recover(folder)
    assert not found.lost
    assert found.saved == read_run(folder) == saved
    assert labelled_rows(folder) == rows


@pytest.mark.parametrize("damage", JOURNAL)
def test_a_damaged_journal_is_refused_and_written_anew_from_the_database(folder: Path, damage: str) -> None:
    saved, rows = read_run(folder), labelled_rows(folder)
    JOURNAL[damage](folder)
    with pytest.raises(DamagedFile, match=r"journal.jsonl cannot be read back"):
        start(folder)
    assert recover(folder).saved == saved
    DATABASE["gone"](folder)  # what was written anew holds it all
    assert recover(folder).saved == saved
    assert labelled_rows(folder) == rows


def test_what_was_rebuilt_goes_on_as_if_nothing_had_been(folder: Path, waiting: Path, tmp_path: Path) -> None:
    whole = finished(Path(shutil.copytree(waiting, tmp_path / "whole")))
    (folder / "run.sqlite").unlink()
    out = tmp_path / "out"
    before = content(folder)
    assert not recover(folder, out).lost
    assert content(folder) == before
    labelled, metrics, weight = finished(out)
    assert (labelled, metrics) == whole[:2]
    assert torch.equal(weight, whole[2])


@pytest.mark.parametrize("line", range(1, 20, 3))
def test_of_a_journal_alone_a_damaged_line_costs_that_line(folder: Path, line: int) -> None:
    saved = read_run(folder)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    said = json.loads(lines[line - 1])
    (folder / "run.sqlite").unlink()
    (folder / "journal.jsonl").write_bytes(b"".join([*lines[: line - 1], b"{" + lines[line - 1][2:], *lines[line:]]))
    found = recover(folder)
    assert f"line {line} of journal.jsonl is damaged, and what it said is lost" in found.lost
    kept = {i: v for i, v in saved.answers.items() if not (said["kind"] == "label" and i == said["id"])}
    assert {i: found.saved.answers[i] for i in kept} == kept
    if said["kind"] != "query":  # whose file of answers would name ids that nobody has asked for
        start(folder)


def test_the_file_of_a_query_that_is_lost_is_set_aside_and_the_run_goes_on(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    at = max(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "query")
    answers, file = read_run(folder).answers, folder / "queries" / "round-002.csv"
    typed = file.read_bytes()
    (folder / "run.sqlite").unlink()
    (folder / "journal.jsonl").write_bytes(b"".join([*lines[:at], b"{" + lines[at][2:], *lines[at + 1 :]]))
    found = recover(folder)
    said = "the query of queries/round-002.csv; what people typed into it is kept as round-002.csv.damaged"
    assert said in found.lost
    assert file.with_name("round-002.csv.damaged").read_bytes() == typed
    start(folder)
    assert read_run(folder).answers.items() >= answers.items()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_of_what_is_left_of_a_journal_all_labels_come_back(folder: Path, share: float) -> None:
    saved, data = read_run(folder), (folder / "journal.jsonl").read_bytes()
    (folder / "run.sqlite").unlink()
    left = data[int(len(data) * share) :]
    (folder / "journal.jsonl").write_bytes(left)
    lines = [json.loads(line) for line in left.splitlines()[1:]]
    labels = {line["id"]: line for line in lines if line["kind"] == "label"}
    found = recover(folder).saved
    assert found.answers == {i: SKIP if "skip" in line else line["label"] for i, line in labels.items()}
    assert found.answers.items() <= saved.answers.items()


def test_where_both_are_gone_it_says_what_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run.sqlite", "journal.jsonl"):
        (folder / name).unlink()
    with pytest.raises(DamagedFile, match=r"it is gone, and .* is there"):
        start(folder)
    assert main(["recover", str(folder)]) == 1
    assert "What people typed is still in its queries/" in capsys.readouterr().err


def test_the_command_says_what_it_did_and_that_nothing_was_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recover", str(folder)]) == 0
    assert "nothing was damaged" in capsys.readouterr().out
    (folder / "run.sqlite").write_bytes(b"")
    (folder / "initial.pt").unlink()
    assert main(["recover", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "run.sqlite was rebuilt from journal.jsonl (run.sqlite is empty)" in said
    assert "kept as run.sqlite.damaged" in said
    assert "not restored: initial.pt is damaged or gone: the weights your module starts with" in said


# ---- killed between the two, and behind ---------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.fixture
def killed_before_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Change], None]:
    """The process dies when the journal has a change, and the database has not."""

    def kill(folder: Path, change: Change) -> None:
        def dies(*args: Any) -> None:
            raise Killed

        store = Store(folder)
        with monkeypatch.context() as patch:
            patch.setattr("al_lightning.run.store.take_in", dies)
            patch.setattr("al_lightning.run.journal.Journal.undo", lambda *args: None)
            with pytest.raises(Killed):
                store.commit(change)
        store.close()

    return kill


def answers(folder: Path) -> Change:
    saved = read_run(folder)
    return saved.placed(Change(step="train", round=2, answers=dict.fromkeys(saved.open_ids, 1)))


def test_what_was_written_to_the_journal_alone_counts(folder: Path, killed_before_commit: Any) -> None:
    saved, change = read_run(folder), answers(folder)
    killed_before_commit(folder, change)
    saved.apply(change)
    assert read_run(folder) == saved, "also for who only looks"
    with closing(Store(folder)) as store:
        assert store.load() == saved
    assert read_run(folder) == saved


def test_half_a_change_in_the_journal_counts_for_nothing(folder: Path, killed_before_commit: Any) -> None:
    saved = read_run(folder)
    size = (folder / "journal.jsonl").stat().st_size
    killed_before_commit(folder, answers(folder))
    whole = (folder / "journal.jsonl").read_bytes()
    for cut in range(size, len(whole), 101):
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        assert read_run(folder) == saved
    with closing(Store(folder)) as store:
        assert store.load() == saved
        store.commit(answers(folder))
    assert not read_run(folder).open_ids


def test_a_database_that_is_behind_is_refused_and_catches_up(folder: Path) -> None:
    old = (folder / "run.sqlite").read_bytes()
    with closing(Store(folder)) as store:
        store.commit(answers(folder))
        store.note("approvals", [])
    saved = read_run(folder)
    (folder / "run.sqlite").write_bytes(old)
    for look in (read_run, start):
        with pytest.raises(DamagedFile, match=r"it is behind: journal.jsonl has 2 changes more"):
            look(folder)
    assert (folder / "run.sqlite").read_bytes() == old
    assert recover(folder).saved == saved


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_a_byte_in_the_log_of_a_killed_run_loses_no_change(folder: Path, tmp_path: Path, share: float) -> None:
    store = Store(folder)
    store.commit(answers(folder))
    store.note("approvals", [])
    killed = Path(shutil.copytree(folder, tmp_path / "killed"))
    store.close()
    flip(killed / "run.sqlite-wal", int((killed / "run.sqlite-wal").stat().st_size * share) * 8)
    try:
        assert read_run(killed) == read_run(folder)
        with closing(Store(killed)) as store:
            assert store.load() == read_run(folder)
    except DamagedFile:
        assert recover(killed).saved == read_run(folder)


# ---- weights and other files --------------------------------------------------------------------------------------


def committed(folder: Path) -> dict[str, str]:
    return dict(read_run(folder).files)


@pytest.mark.parametrize("name", ["initial", "weights", "moments", "stop_set"])
def test_a_flipped_bit_in_a_file_is_noticed_and_the_run_can_go_on_without_it(folder: Path, name: str) -> None:
    path = folder / committed(folder)[name]
    flip(path)
    fill(folder / "queries" / "round-002.csv", truth)
    with pytest.raises(DamagedFile, match=rf"{path.name} cannot be read back"):
        start(folder)
    found = recover(folder)
    assert any(str(path.relative_to(folder)) in sentence for sentence in found.lost)
    assert len(found.saved.answers) >= 6
    assert start(folder).reason.kind == "exhausted"


def test_a_file_in_the_place_of_another_is_noticed(folder: Path) -> None:
    files = committed(folder)
    shutil.copyfile(folder / files["initial"], folder / files["weights"])
    with pytest.raises(DamagedFile, match=r"weights.pt cannot be read back"):
        start(folder)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_folder_of_an_older_version_gets_a_journal(folder: Path, version: int) -> None:
    answers, queries = read_run(folder).answers, read_run(folder).queries
    as_format(folder, version)
    assert read_run(folder).answers == answers
    Store(folder).close()
    saved = read_run(folder)
    assert (saved.answers, saved.queries) == (answers, queries)
    rows = labelled_rows(folder)
    (folder / "run.sqlite").unlink()
    assert recover(folder).saved == saved
    assert labelled_rows(folder) == rows


# ---- places that lead elsewhere ----------------------------------------------------------------------------------


PLACES = ("run.sqlite", "run.sqlite-wal", "run.pid", "run.lock", "journal.jsonl", "initial.pt", ".run.pid.part",
          "queries", "round-001", "round-002", "round-001/checkpoints", "scratch",
          "scratch/fit.pt", "features", "final")  # fmt: skip


KINDS = [(place, kind) for place in PLACES for kind in ("symlink", "fifo")] + [(place, "link") for place in PLACES[:5]]


@pytest.mark.parametrize(("place", "kind"), KINDS)
def test_no_place_of_a_folder_leads_out_of_it(folder: Path, tmp_path: Path, place: str, kind: str) -> None:
    outside, path = tmp_path / "outside", folder / place
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rename(outside)
    elif path.exists():
        shutil.copyfile(path, outside)
        path.unlink()
    elif "." in place:
        outside.write_text("precious")
    else:
        outside.mkdir()
        (outside / "weights.pt").write_text("precious")
    if kind == "symlink":
        path.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.hardlink_to(outside)
    before = content(tmp_path) if kind != "fifo" else {}
    for look in (start, read_run, Store, recover):
        with pytest.raises(DamagedFile, match=r"it is (a|neither a) .*Put a plain file or folder in its place"):
            look(folder)
    assert kind == "fifo" or content(tmp_path) == before


NAMED = ("/etc/passwd", "../outside", "round-001/../../outside", "", "run.sqlite", "journal.jsonl", "run.lock",
         "queries/round-001.csv", "..")  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_no_name_in_the_database_leads_out_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("precious")
    as_format(folder, 3)  # which had no sums to be found out by
    sql(folder, f"UPDATE file SET path = '{name}'")
    fill(folder / "queries" / "round-002.csv", truth)
    before = content(folder / "queries")
    with pytest.raises(DamagedFile, match=r"it names the file .*, which is (not inside|none of a step)"):
        start(folder)
    assert content(folder / "queries") == before
    assert (tmp_path / "outside").read_text() == "precious"


def test_the_run_folder_itself_may_be_a_link_and_may_move(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    folder.rename(moved)
    (tmp_path / "link").symlink_to(moved)
    assert len(finished(tmp_path / "link")[0]) == len([v for v in read_run(moved).answers.values() if v is not SKIP])


# ---- disks, people and other processes ------------------------------------------------------------------------------


VERBS = ("status", "label", "approve", "export", "report", "doubt", "recover")


@pytest.mark.parametrize("damage", ["cut", "no database", "a label is another"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_is_wrong_with_a_damaged_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str, damage: str
) -> None:
    more = {
        "label": [str(folder / "queries" / "round-001.csv")],
        "report": ["-o", str(folder / "out")],
        "doubt": ["p.npy"],
    }.get(verb, [])
    DATABASE[damage](folder)
    (folder / "journal.jsonl").unlink()
    assert main([verb, str(folder), *more]) == 1
    assert "run.sqlite" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CannotWrite, match="it is a file, and a run needs a folder"):
        start(tmp_path / "run")
    for verb in VERBS:
        more = ["x.csv"] if verb in ("label", "doubt") else []
        assert main([verb, str(tmp_path / "run"), *more]) == 1
        assert "is no run folder" in capsys.readouterr().err


def test_two_processes_where_a_disk_knows_no_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLock:
        def __init__(self, path: Path) -> None:
            pass

        def acquire(self, timeout: float) -> None:
            pass

        def release(self) -> None:
            pass

    monkeypatch.setattr("al_lightning.run.store.FileLock", NoLock)
    first, second = Store(folder), Store(folder)
    first.note("approvals", [1])
    for write in (lambda: second.note("approvals", [2]), lambda: second.commit(answers(folder))):
        with pytest.raises(RunLocked, match="another process has changed the run"):
            write()
    first.note("approvals", [3])
    for store in (first, second):
        store.close()
    assert read_run(folder).meta["approvals"] == [3]


def test_a_change_that_cannot_be_taken_in_leaves_no_trace(folder: Path) -> None:
    saved, before = read_run(folder), content(folder)[str(folder / "journal.jsonl")]
    ids = np.array(saved.queries[0])
    again = Query(ids=ids, scores=np.zeros(len(ids)), score_rounds=np.zeros(len(ids), dtype=int))
    bad = saved.placed(Change(step="label", round=2, answers=dict.fromkeys(saved.open_ids, object())))
    with closing(Store(folder)) as store:
        with pytest.raises(PoolError, match="not JSON"):
            store.commit(bad)
        with pytest.raises(ActiveLearningError, match="UNIQUE"):
            store.commit(Change(step="label", round=1, query=again))
        assert store.load() == saved
    assert (folder / "journal.jsonl").read_bytes() == before
