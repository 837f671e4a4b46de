"""kill -9 anywhere, start the same command again: the run goes on to the same labelled ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.resume.kills import PEOPLE, POINTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kills")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "resume" / "kills.py"), str(folder)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert (folder / "report.json").exists(), done.stderr[-4000:]
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return loaded


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_goes_on_to_the_same_ids_and_weights(report: dict[str, Any], point: str) -> None:
    whole, resumed = report["whole"], report[point]
    assert resumed["killed"]
    assert not whole["killed"]
    assert resumed["labelled"] == whole["labelled"]
    assert len(set(resumed["labelled"])) == 24
    assert resumed["labels"] == whole["labels"]
    assert resumed["weight"] == whole["weight"]
    assert resumed["epochs"] == whole["epochs"] == [2, 2, 2]  # the last query goes straight into the final fit


def test_a_fit_that_is_killed_after_an_epoch_goes_on_from_it(report: dict[str, Any]) -> None:
    assert report["whole"]["trained"] == [0, 1] * 3
    assert report["validation"]["trained"] == [1, 0, 1]  # of its round's fit the second epoch, and the last fit
    assert report["training"]["trained"] == [0, 1, 0, 1]  # nothing was finished


@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_asked_for_twice_once_its_answer_is_in_the_folder(report: dict[str, Any], point: str) -> None:
    asked = report[point]["asked"]
    assert set(asked) == set(report["whole"]["asked"])
    # Only the query that was being answered when the process died is asked again.
    assert len(asked) == 24 + (3 if point == "answering" else 0)


@pytest.mark.parametrize("point", PEOPLE)
def test_no_label_of_people_is_lost_and_none_is_asked_for_twice(report: dict[str, Any], point: str) -> None:
    whole, resumed = report["answered"], report[point]
    assert resumed == {**whole, "killed": 1}
    assert whole["killed"] == 0
    assert whole["labelled"] == report["whole"]["labelled"]
    assert whole["statements"] == len(whole["answers"]) == 24


def test_the_folder_belongs_to_one_process_which_is_named(report: dict[str, Any]) -> None:
    assert f"in use by process {report['locked']['pid']}." in report["locked"]["message"]
