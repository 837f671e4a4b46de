"""A disk that is full, or cannot be written: one error that names it, nothing lost, and the run goes on later."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from al_lightning.cli.main import main
from al_lightning.errors import CannotWrite
from al_lightning.run.leftovers import Footprint
from al_lightning.run.store import read_run
from tests.helpers import learner, net, pool_of


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Options of a small disk -> its folder, mounted with them, or again with them."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        again = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            if mounted:
                raise
            pytest.skip("mounting a small disk takes root's rights")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def start(folder: Path) -> Any:
    return learner(folder / "run").fit(net(hidden=2000), datamodule=pool_of())  # weights of 64 kB


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    return start(tmp_path_factory.mktemp("whole")).labelled.tolist()


@pytest.mark.parametrize("kilobytes", [16, 120, 200, 250, 300, 350, 400])
def test_a_full_disk_is_said_and_with_more_room_the_run_goes_on(
    disk: Callable[[str], Path], whole: list[int], kilobytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Footprint, "check", lambda *arguments: None)  # somebody else takes the room while it runs
    folder = disk(f"size={kilobytes}k")
    with pytest.raises(
        CannotWrite, match=r"disk.*cannot be written: .*(full|No space|I/O).*Make room.*goes on from there"
    ):
        start(folder)
    assert not list(folder.rglob("*.part")), "what was half-written is not in the way"
    disk("size=8m")
    assert start(folder).labelled.tolist() == whole


def test_a_disk_that_cannot_be_written_is_said_and_the_run_can_be_looked_at(
    disk: Callable[[str], Path], whole: list[int]
) -> None:
    folder = disk("size=8m")
    assert start(folder).labelled.tolist() == whole
    disk("ro")
    with pytest.raises(CannotWrite, match=r"run cannot be written: .*[Rr]ead-only.*or make it writable"):
        start(folder)
    assert list(read_run(folder / "run").answers) == whole
    disk("rw,size=8m")
    assert start(folder).labelled.tolist() == whole


def test_the_command_says_it_in_one_sentence(
    disk: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (disk("size=1m") / "run").mkdir()
    folder = disk("ro")
    for run_dir in (tmp_path / "file", folder / "run", folder / "new"):
        with pytest.raises(SystemExit) as ended:
            main(["run", f"run_dir={run_dir}", "labels=20"])
        assert ended.value.code == 1
        assert f"CannotWrite: {run_dir} cannot be written: " in capsys.readouterr().err
