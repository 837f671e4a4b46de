"""The loggers' step axis over rounds, and active-learning metrics in them."""

from __future__ import annotations

import csv
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from wandb.proto import wandb_internal_pb2

from tests.helpers import learner, net, pool_of, quiet


class Spy(Logger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    name, version = "spy", 0
    experiment = None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def never_back(steps: list[int]) -> bool:
    return steps == sorted(steps)


def test_the_step_axis_goes_on_over_rounds(tmp_path: Path) -> None:
    spy = Spy()
    trainer = quiet(max_epochs=2, logger=spy, log_every_n_steps=1)
    result = learner(tmp_path, trainer).fit(net(), datamodule=pool_of())
    steps = [step for step, _ in spy.rows if step is not None]
    assert len(steps) == len(spy.rows)
    assert never_back(steps)
    total = 2 * (2 + 3 + 3)  # epochs times batches of 8 among 12, 18 and 24 labels
    rounds = [(step, row) for step, row in spy.rows if "al/labels" in row]
    assert [step for step, _ in rounds] == [4, 10, total]
    assert [row["al/labels"] for _, row in rounds] == [12, 18, 24]
    assert [row["al/val_acc"] for _, row in rounds] == [r.metrics["val_acc"] for r in result.history]
    assert [row["al/candidates"] for _, row in rounds] == [0, 48, 42]
    assert rounds[-1][1]["al/rho"] == pytest.approx(result.rho)


def test_the_step_axis_goes_on_after_a_restart_of_the_program(tmp_path: Path) -> None:
    spy = Spy()

    class Killed(Exception): ...

    def die(record: Any, module: Any) -> None:
        if record.round == 2:
            raise Killed

    with pytest.raises(Killed):
        learner(tmp_path, quiet(logger=spy, log_every_n_steps=1), on_round=die).fit(net(), datamodule=pool_of())
    learner(tmp_path, quiet(logger=spy, log_every_n_steps=1)).fit(net(), datamodule=pool_of())
    steps = [step for step, _ in spy.rows if step is not None]
    assert never_back(steps)
    assert [row["al/labels"] for _, row in spy.rows if "al/labels" in row] == [12, 18, 24]


def test_csv_logger(tmp_path: Path) -> None:
    trainer = quiet(max_epochs=2, logger=CSVLogger(tmp_path / "csv", name="", version=""), log_every_n_steps=1)
    result = learner(tmp_path / "run", trainer).fit(net(), datamodule=pool_of())
    with open(tmp_path / "csv" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert never_back([int(row["step"]) for row in rows])
    rounds = [row for row in rows if row["al/labels"]]
    assert [float(row["al/labels"]) for row in rounds] == [12, 18, 24]
    for row, record in zip(rounds, result.history, strict=True):
        assert float(row["al/val_acc"]) == pytest.approx(record.metrics["val_acc"], abs=1e-6)
    assert len([row for row in rows if row["train_loss"]]) == 6


def log_records(data: bytes) -> Iterator[bytes]:
    """Records of an offline run file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def offline_run(path: Path) -> list[Any]:
    """Records of an offline run, once it is finished: its writer is a process of its own."""
    records: list[Any] = []
    deadline = time.monotonic() + 20
    while not any(r.WhichOneof("record_type") == "exit" for r in records):
        assert time.monotonic() < deadline, "the offline run was not written"
        time.sleep(0.05)
        records = [wandb_internal_pb2.Record.FromString(data) for data in log_records(path.read_bytes())]
    return records


def history_of(records: list[Any]) -> list[dict[str, Any]]:
    """What an offline run has logged."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def read_offline(folder: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """History rows and metric definitions of the one offline run in a folder."""
    (path,) = folder.rglob("*.wandb")
    records = offline_run(path)
    return history_of(records), [record.metric for record in records if record.WhichOneof("record_type") == "metric"]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    logger = WandbLogger(project="p", save_dir=tmp_path, offline=True)
    try:
        trainer = quiet(max_epochs=2, logger=logger, log_every_n_steps=1)
        result = learner(tmp_path / "run", trainer).fit(net(), datamodule=pool_of())
    finally:
        wandb.finish()
    rows, definitions = read_offline(tmp_path)
    steps = [row["trainer/global_step"] for row in rows if "trainer/global_step" in row]
    assert never_back(steps)
    assert steps[-1] == 2 * (2 + 3 + 3)
    rounds = [row for row in rows if "al/labels" in row]
    assert [row["al/labels"] for row in rounds] == [12, 18, 24]
    assert [row["al/val_acc"] for row in rounds] == pytest.approx([r.metrics["val_acc"] for r in result.history])
    assert len([row for row in rows if "train_loss" in row]) == 6
    axes = {m.name or m.glob_name: m.step_metric for m in definitions}
    assert axes["al/*"] == "al/labels"
