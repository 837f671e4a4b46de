"""One of two processes is killed: the other ends with an error instead of waiting, and the next start goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers import start_program

pytestmark = pytest.mark.ddp
NOBODY = -1


def start(folder: Path, rank: int, phase: str) -> subprocess.CompletedProcess[str]:
    return start_program(Path(__file__).with_name("killed_rank.py"), folder, str(rank), phase)


@pytest.mark.parametrize(("rank", "phase"), [(1, "fit"), (1, "epoch"), (0, "scoring")])
def test_the_other_process_ends_and_the_next_start_goes_on_to_the_same_ids(
    tmp_path: Path, rank: int, phase: str
) -> None:
    killed = start(tmp_path, rank, phase)
    assert killed.returncode != 0
    assert not (tmp_path / "report.json").exists()
    again = start(tmp_path, NOBODY, phase)
    assert again.returncode == 0, again.stderr[-4000:]
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["killed"] == found["whole"]
    assert found["trained"]["whole"] == [0, 1, 2] * 3
    # Killed in a later epoch of the second round's fit, both processes go on from the epoch before.
    assert found["trained"]["killed"] == {"fit": [0, 1, 2] * 2, "epoch": [2, 0, 1, 2], "scoring": [0, 1, 2]}[phase]
