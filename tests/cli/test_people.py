"""The command as people who label use it: run, fill, status, label, approve, export, doubt."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from al_lightning import Prices
from al_lightning.cli.main import VERBS, main
from al_lightning.oracles import FileOracle
from al_lightning.run.store import Store, read_run
from tests.formats import as_format
from tests.helpers import NAMES, fill, ids_of, learner, net, pool_of, truth
from tests.resume.test_people import start


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command printed, blanks evened out."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    done = capsys.readouterr()
    return " ".join((done.err if code else done.out).split())


def exported(capsys: pytest.CaptureFixture[str], folder: Path) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["export", str(folder)]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that waits for its second query, with one refusal."""
    keys = [f"=img {i}" for i in range(60)]
    path = tmp_path / "run" / "queries" / "round-001.csv"
    start(tmp_path / "run", keys=keys)
    fill(path, lambda i: "skip" if i == ids_of(path)[0] else truth(i), annotator="ann")
    start(tmp_path / "run", keys=keys)
    return tmp_path / "run"


@pytest.mark.filterwarnings("ignore:classes .* have no labelled record")  # ten labels a round
def test_run_ends_with_what_to_do_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["run", "oracle=file", "labels=20", "round_size.rounds=2", "trainer.max_epochs=32", "run_dir=runs/x"]
    said = run(capsys, *command)
    assert said.endswith("waiting for 10 labels: fill runs/x/queries/round-001.csv, then run the same command")
    fill(tmp_path / "runs/x/queries/round-001.csv", lambda i: str(i % 10))
    assert "waiting for 10 labels: fill runs/x/queries/round-002.csv" in run(capsys, *command)
    fill(tmp_path / "runs/x/queries/round-002.csv", lambda i: str(i % 10))
    assert "ended: labels: 20 of 20 spent" in run(capsys, *command)


def test_status_of_a_run_that_waits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "queries" / "round-002.csv"
    said = run(capsys, "status", str(folder))
    for row in ("round 2", "labelled 11", "waiting 6", "refused 1", "FLOPs", "after round 1", "val_acc"):
        assert row in said
    assert f"next waiting for 6 labels: fill {path}, then run the same command" in said
    assert "in the files" not in said
    fill(path, lambda i: truth(i) if i in ids_of(path)[:4] else None)
    assert "in the files 4 new labels, not taken in yet" in run(capsys, "status", str(folder))
    fill(path, lambda i: "d")
    assert "line 2: label is 'd'" in run(capsys, "status", str(folder))


def test_status_and_export_only_read_also_while_the_run_is_in_use(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    run(capsys, "status", str(folder))
    exported(capsys, folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    store = Store(folder)
    try:
        store.note("something", 1)  # in the write-ahead log
        assert "labelled 11" in run(capsys, "status", str(folder))
        assert len(exported(capsys, folder)) == 11
        assert "RunLocked" in run(capsys, "label", str(folder), "x.csv", code=1)
    finally:
        store.close()


def test_status_of_a_run_by_the_dataset_and_of_an_older_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner(tmp_path).fit(net(), datamodule=pool_of())
    said = run(capsys, "status", str(tmp_path))
    assert "nothing; the run ended: no further round: 24 labelled, 36 unlabelled records left" in said
    rows = exported(capsys, tmp_path)
    assert [rows[0]["source"], rows[0]["round"], rows[-1]["round"]] == ["DatasetOracle", "1", "3"]
    as_format(tmp_path, 1)
    assert run(capsys, "status", str(tmp_path)) == said
    older = exported(capsys, tmp_path)
    assert [(r["id"], r["label"], r["when"]) for r in older] == [(r["id"], r["label"], "") for r in rows]


@pytest.mark.parametrize("verb", VERBS[3:])
def test_what_is_no_run_folder_is_said_and_not_made_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    more = ["x.csv"] if verb in ("label", "doubt") else []
    assert "is no run folder: it has no run.sqlite" in run(capsys, verb, str(tmp_path / "no"), *more, code=1)
    assert not (tmp_path / "no").exists()
    (tmp_path / "run.sqlite").write_text("this is no database, it only has its name" * 100)
    assert "cannot be read as the database of a run" in run(capsys, verb, str(tmp_path), *more, code=1)


def test_label_takes_a_file_in_without_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flops = sum(e.flops for e in read_run(folder).entries)
    first, second = (ids_of(folder / "queries" / f"round-00{k}.csv") for k in (1, 2))
    wrong = first[3]
    answers = folder.parent / "answers.csv"
    rows = [f"{i},{truth(i)},ann" for i in second[:4]] + [f"{wrong},{NAMES[(wrong + 1) % 3]},ann", f"{second[4]},skip,"]
    answers.write_text("id,label,annotator\n" + "\n".join(rows) + "\n")
    said = run(capsys, "label", str(folder), str(answers))
    assert "4 new labels, 1 refusals, 1 corrections. Next: waiting for 1 labels" in said
    saved = read_run(folder)
    assert saved.answers[wrong] == (wrong + 1) % 3
    assert saved.step == "label"
    assert sum(e.flops for e in saved.entries) == flops
    assert "nothing new" in run(capsys, "label", str(folder), str(answers))
    (row,) = (r for r in exported(capsys, folder) if int(r["id"]) == wrong)
    assert (row["label"], row["who"], row["source"]) == (NAMES[(wrong + 1) % 3], "ann", str(answers))
    answers.write_text(f"id,label\n{second[5]},{truth(second[5])}\n")
    assert "Next: train on the labels there are: run the same command" in run(
        capsys, "label", str(folder), str(answers)
    )
    result = start(folder, keys=[f"=img {i}" for i in range(60)])
    assert [r.labelled for r in result.history] == [11, 16]


def test_label_refuses_a_bad_file_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id = ids_of(folder / "queries" / "round-002.csv")[0]
    answers, before = folder.parent / "answers.csv", read_run(folder)
    answers.write_text(f"id,label\n{id},a\n1000,a\n")
    said = run(capsys, "label", str(folder), str(answers), code=1)
    assert "line 3: id 1000 is unknown; ids of this pool are 0 to 59" in said
    answers.write_text(f"id,key,label\n{id},=img 0,a\n")
    assert "rows were mixed up" in run(capsys, "label", str(folder), str(answers), code=1)
    assert "allowed are .csv and .jsonl" in run(capsys, "label", str(folder), str(folder / "initial.pt"), code=1)
    assert read_run(folder) == before


def test_a_correction_by_label_trains_a_finished_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = learner(tmp_path / "run").fit(net(), datamodule=pool_of())
    id = int(made.labelled[0])
    answers = tmp_path / "fixes.csv"
    answers.write_text(f"id,label\n{id},{(id + 1) % 3}\n")
    said = run(capsys, "label", str(tmp_path / "run"), str(answers))
    assert "1 corrections. Next: train on the labels there are: run the same command" in said
    result = learner(tmp_path / "run").fit(net(), datamodule=pool_of())
    assert result.bill.flops > made.bill.flops
    assert result.labelled.tolist() == made.labelled.tolist()


def test_approve_lets_a_query_out_and_notes_who_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oracle, prices = FileOracle(classes=NAMES, approve=True, repeat=0.25), Prices(label=0.5, currency="EUR")
    start(tmp_path, oracle, prices=prices)
    waits = "waiting for approval: 12 labels, price 7.50 EUR"
    assert waits in run(capsys, "status", str(tmp_path))
    said = run(capsys, "approve", str(tmp_path))
    assert "approved: 12 labels, 7.50 EUR. waiting for 12 labels: fill" in said
    ((approval),) = read_run(tmp_path).meta["approvals"]
    assert (approval["round"], approval["price"], bool(approval["who"])) == (1, 7.5, True)
    assert run(capsys, "approve", str(tmp_path)) == said, "given again, since it was killed or out of doubt"
    assert len(read_run(tmp_path).meta["approvals"]) == 1
    fill(tmp_path / "queries" / "round-001.csv")
    assert start(tmp_path, oracle, prices=prices).reason.kind == "approval"


def test_approve_says_what_is_next_where_nothing_waits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no query waits for approval. Next: waiting for" in run(capsys, "approve", str(folder), code=1)


def test_export_has_where_each_label_is_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = exported(capsys, folder)
    assert len(rows) == 11
    assert all(r["label"] == truth(int(r["id"])) and r["key"] == f"'=img {r['id']}" for r in rows)
    assert {(r["round"], r["who"], r["source"]) for r in rows} == {("1", "ann", "queries/round-001.csv")}
    assert all(r["when"].endswith("+00:00") for r in rows)
    out = folder.parent / "labels.csv"
    assert f"11 labelled records: {out}" in run(capsys, "export", str(folder), "-o", str(out))
    assert list(csv.DictReader(io.StringIO(out.read_text()))) == rows
    assert "give the file, -o labels.parquet" in run(capsys, "export", str(folder), "--format", "parquet", code=1)
    monkeypatch.setattr("al_lightning.report.labels.find_spec", lambda name: None)
    said = run(capsys, "export", str(folder), "--format", "parquet", "-o", str(folder.parent / "x"), code=1)
    assert "al_lightning[parquet]" in said
    assert not (folder.parent / "x").exists()


def test_export_to_parquet_is_the_same_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    out = folder.parent / "labels.parquet"
    run(capsys, "export", str(folder), "--format", "parquet", "-o", str(out))
    frame = pandas.read_parquet(out)
    rows = exported(capsys, folder)
    assert frame["id"].tolist() == [int(r["id"]) for r in rows]
    assert frame["label"].tolist() == [r["label"] for r in rows]
    assert frame["key"].tolist() == [r["key"][1:] for r in rows], "what is no spreadsheet needs no guard"


# ---- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:classes .* have no labelled record")  # ten labels a round
def test_no_secret_of_the_environment_reaches_folder_log_or_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "0123456789abcdef0123456789abcdef01234567"
    for name in ("WANDB_API_KEY", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of an earlier test's W&B run, in this process
    monkeypatch.chdir(tmp_path)
    command = ["run", "oracle=file", "logger=wandb", "labels=20", "round_size.rounds=2", "trainer.max_epochs=32"]
    command.append("run_dir=runs/x")
    assert main(command) == 0
    fill(tmp_path / "runs/x/queries/round-001.csv", lambda i: str(i % 10))
    program = [sys.executable, "-m", "al_lightning.cli.main"]  # W&B starts a process of its own
    trained = subprocess.run([*program, *command], capture_output=True, text=True, timeout=240, check=False)
    assert trained.returncode == 0, trained.stderr
    assert list((tmp_path / "runs" / "x" / "wandb").rglob("*.wandb")), "W&B did log"
    with pytest.raises(SystemExit):
        main([*command, "seed=5"])
    assert main(["status", "runs/x"]) == 0
    said = capsys.readouterr()
    assert "another configuration" in said.err
    assert secret not in trained.stdout + trained.stderr + said.out + said.err
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 10
    assert not [p for p in files if secret.encode() in p.read_bytes()]


# ---- doubt -------------------------------------------------------------------------------------------------------


def test_labels_that_a_model_contradicts_are_answered_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ids_of(folder / "queries" / "round-001.csv")
    wrong, unseen = first[3:5]
    answers = tmp_path / "answers.csv"
    other = NAMES[(wrong + 1) % 3]
    answers.write_text(f"id,label,annotator\n{wrong},{other},ann\n{unseen},{NAMES[(unseen + 1) % 3]},ann\n")
    run(capsys, "label", str(folder), str(answers))
    p = np.full((60, 3), 0.05, np.float32)
    p[np.arange(60), np.arange(60) % 3] = 0.9
    p[unseen] = np.nan
    np.save(tmp_path / "p.npy", p)
    doubted = folder / "doubted.csv"
    said = run(capsys, "doubt", str(folder), str(tmp_path / "p.npy"))
    assert "1 of 10 labels are contradicted: type better labels into" in said
    with doubted.open(newline="") as file:
        assert [(r["id"], r["label"], r["was"], r["model"]) for r in csv.DictReader(file)] == [
            (str(wrong), "", other, truth(wrong))
        ]
    assert "is there already, perhaps with answers" in run(
        capsys, "doubt", str(folder), str(tmp_path / "p.npy"), code=1
    )
    fill(doubted)
    assert "1 corrections" in run(capsys, "label", str(folder), str(doubted))
    assert read_run(folder).answers[wrong] == wrong % 3
    again = tmp_path / "again.csv"
    said = run(capsys, "doubt", str(folder), str(tmp_path / "p.npy"), "-o", str(again))
    assert "0 of 10 labels are contradicted" in said


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.ones((5, 3)) / 3, "float64 of shape (5, 3); allowed: floating-point numbers of shape (60, classes)"),
        (np.ones((60, 3), np.int64), "int64 of shape (60, 3); allowed"),
        (np.array([{}]), "cannot be read as an array of NumPy"),
        (np.ones((60, 3)), None),
        (np.full((60, 3), 2.0), "softmax"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], p: np.ndarray, message: str | None
) -> None:
    np.save(tmp_path / "p.npy", p, allow_pickle=True)
    said = run(capsys, "doubt", str(folder), str(tmp_path / "p.npy"), code=0 if message is None else 1)
    assert message is None or message in said
