"""Runs of many rounds: what reads them takes longer by as much as there is more of them, not by its square."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from al_lightning.cli.labelling import Labelling
from al_lightning.cli.people import status
from al_lightning.report import charts
from al_lightning.report.labels import labelled_rows
from al_lightning.report.page import _rounds
from al_lightning.report.people import voices
from al_lightning.report.read import read
from al_lightning.run.store import read_run
from benchmarks.long_runs import long_run

ROUNDS, MORE = 40, 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, and one of four times as many rounds, which are all alike."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)  # nobody's labels are lost here
        return [long_run(place / str(rounds), rounds, per_round=20) for rounds in (ROUNDS, MORE * ROUNDS)]


def draw_all(folder: Path) -> None:
    from matplotlib.figure import Figure

    run = read(folder)
    for panel in (*charts.bills(run), charts.picks(run)):
        axes = Figure().subplots()
        panel.draw(axes)
        assert len(axes.get_children()) < 1_000, "one mark is drawn for many"


PARTS: dict[str, Callable[[Path], Any]] = {
    "status": lambda folder: status(Labelling(folder, read_run(folder))),
    "export": lambda folder: [labelled.cell(row) for labelled in [labelled_rows(folder)] for row in labelled.rows],
    "rounds": lambda folder: _rounds(read(folder)),
    "people": lambda folder: voices(read(folder)),
    "charts": draw_all,
}


@pytest.mark.parametrize("part", PARTS)
def test_four_times_the_rounds_take_about_four_times_as_long(folders: list[Path], part: str) -> None:
    def seconds(folder: Path) -> float:
        took = []
        for _ in range(3):
            began = time.process_time()
            PARTS[part](folder)
            took.append(time.process_time() - began)
        return min(took)

    small, large = map(seconds, folders)
    assert large < 2.5 * MORE * small, "four times as much that is compared with itself takes sixteen times as long"


def test_the_page_of_a_long_run_has_its_rounds(folders: list[Path]) -> None:
    run = read(folders[1])
    rows = _rounds(run)
    assert [row["answered"] for row in rows] == [20] * MORE * ROUNDS + [0]
    found = voices(run)
    assert found is not None
    assert sum(voice.labels for voice in found.voices) >= 20 * MORE * ROUNDS
