"""Ctrl-C and SIGTERM: a clean stop, the exit code people expect, a word on how to go on, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from al_lightning.errors import Interrupted
from al_lightning.interrupts import stoppable
from tests.helpers import Net, learner, net, pool_of

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "tests" / "resume" / "interrupted.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    result = learner(tmp_path_factory.mktemp("whole")).fit(net(), datamodule=pool_of())
    return result.labelled.tolist()


@pytest.mark.parametrize("point", ["fit", "scoring"])
@pytest.mark.parametrize("number", CODES, ids=NAMES.get)
def test_a_signal_ends_the_program_which_then_goes_on(
    tmp_path: Path, whole: list[int], number: signal.Signals, point: str
) -> None:
    command = [*PROGRAM, str(tmp_path / "run"), point]
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "here").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == CODES[number], said
    assert f"Interrupted by {NAMES[number]}. The same command goes on from here: {tmp_path / 'run'}" in said
    assert said.count("The same command") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "result.json").exists()
    again = subprocess.run(
        [*PROGRAM, str(tmp_path / "run"), "nowhere"], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "result.json").read_text()) == whole


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
