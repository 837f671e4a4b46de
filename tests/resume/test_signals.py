"""Ctrl-C and SIGTERM: a clean stop, the exit code people expect, a word on how to go on, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from al_lightning.errors import Interrupted
from al_lightning.run.interrupts import stoppable
from tests.helpers import Net, learner, pool_of

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("signals")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "resume" / "interrupted.py"), str(folder)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert (folder / "report.json").exists(), done.stderr[-4000:]
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return loaded


@pytest.mark.parametrize("point", ["fit", "scoring"])
@pytest.mark.parametrize("number", CODES, ids=NAMES.get)
def test_a_signal_ends_the_program_which_then_goes_on(
    report: dict[str, Any], number: signal.Signals, point: str
) -> None:
    found = report[f"{point} {number.name}"]
    assert found["code"] == CODES[number], found["said"]
    assert f"Interrupted by {NAMES[number]}. The same command goes on from here: {found['folder']}" in found["said"]
    assert found["said"].count("The same command") == 1
    assert "Traceback" not in found["said"]
    assert not found["early"]
    assert found["labelled"] == report["whole"]["labelled"]


@pytest.mark.parametrize("number", CODES, ids=NAMES.get)
def test_an_interrupted_fit_is_both_kinds_of_exception_and_leaves_handlers_as_they_were(
    tmp_path: Path, number: signal.Signals
) -> None:
    class Stopped(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            signal.raise_signal(number)
            return super().training_step(batch, batch_idx)

    before = [signal.getsignal(n) for n in CODES]
    with pytest.raises(Interrupted) as error:
        learner(tmp_path).fit(Stopped(), datamodule=pool_of())
    assert isinstance(error.value, KeyboardInterrupt)
    assert isinstance(error.value, SystemExit)
    assert error.value.code == CODES[number]
    assert [signal.getsignal(n) for n in CODES] == before


def test_a_handler_of_the_users_own_stays_in_force() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with stoppable("runs/x"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_other_exits_pass_through() -> None:
    with pytest.raises(SystemExit) as stop, stoppable("runs/x"):
        sys.exit(3)
    assert stop.value.code == 3
    assert not isinstance(stop.value, Interrupted)


def test_another_thread_may_run_too() -> None:
    done: list[bool] = []

    def work() -> None:
        with stoppable("runs/x"):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
