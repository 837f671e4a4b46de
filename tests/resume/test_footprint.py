"""A run folder holds what going on needs and what the user's own checkpoints ask for, says so first, and no more."""

from __future__ import annotations

import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from al_lightning.errors import CannotWrite
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.query import Margin
from al_lightning.run.store import Change, Store, read_run
from tests.helpers import learner, net, pool_of, quiet


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_default_trainer_keeps_one_checkpoint_the_delivered_one(tmp_path: Path) -> None:
    trainer = quiet(enable_checkpointing=True)
    result = learner(tmp_path, trainer).fit(net(), datamodule=pool_of())
    kept = [name for name in files(tmp_path) if name.endswith(".ckpt")]
    assert len(kept) == 1
    saved = torch.load(tmp_path / kept[0], weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in result.model.state_dict().items())


def test_a_checkpoint_that_monitors_keeps_what_it_was_asked_to_keep(tmp_path: Path) -> None:
    trainer = quiet(enable_checkpointing=True, callbacks=[ModelCheckpoint(monitor="val_acc", mode="max")])
    learner(tmp_path, trainer).fit(net(), datamodule=pool_of())
    assert [name.split("/")[0] for name in sorted(files(tmp_path)) if name.endswith(".ckpt")] == [
        "round-001",
        "round-002",
        "round-003",
    ]


def test_what_kills_left_is_cleared_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def commit(self: Store, change: Change) -> None:
        if change.record is not None and change.round == 2:
            raise Killed
        whole(self, change)

    whole = Store.commit
    monkeypatch.setattr(Store, "commit", commit)
    with pytest.raises(Killed):
        learner(tmp_path, stop_set=6).fit(net(), datamodule=pool_of())
    monkeypatch.undo()
    left = ["initial-2.pt", ".run.part", "round-002/.weights.pt.part", "scores-009.npz", "final/weights.pt"]
    own = ["notes.txt", "round-001/plot.png", "mine.pt", "elsewhere/weights.pt"]
    for name in (*left, *own):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    committed = set(read_run(tmp_path).files.values())
    store_files = {"run.lock", "run.pid", "run.sqlite", "journal.jsonl"}
    learner(tmp_path, stop_set=6, query=Margin()).fit(net(), datamodule=pool_of())
    after = files(tmp_path)
    assert after >= set(own)
    named = set(read_run(tmp_path).files.values())
    assert named != committed
    assert after - named - set(own) <= store_files


def test_scratch_of_a_finished_run_is_cleared(tmp_path: Path) -> None:
    learner(tmp_path).fit(net(), datamodule=pool_of())
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "fit.pt").write_bytes(b"x" * 1000)
    learner(tmp_path).fit(net(), datamodule=pool_of())
    assert not (tmp_path / "scratch").exists()


def test_it_says_what_the_folder_will_take(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = quiet(enable_checkpointing=True, callbacks=[ModelCheckpoint(monitor="val_acc", mode="max")])
    model = net()
    weights = sum(value.nbytes for value in model.state_dict().values())
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        learner(tmp_path, trainer).fit(model, datamodule=pool_of())
    (said,) = [r.message for r in caplog.records if "will take" in r.message]
    assert str(tmp_path) in said
    assert f"weights of {weights} B" in said
    assert f"{3 * weights} B a round that ModelCheckpoint keeps" in said


def test_a_disk_without_room_is_refused_before_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 100))
    with pytest.raises(CannotWrite, match=r"it will hold about .* and 100 B are free"):
        learner(tmp_path, oracle=FunctionOracle(asked.append)).fit(net(), datamodule=pool_of())
    assert asked == []
