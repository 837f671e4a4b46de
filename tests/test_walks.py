"""The two walks of docs/architecture.md, followed through a real run by its calls."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from al_lightning.query import Margin
from al_lightning.round_size import Listed
from tests.helpers import learner, net, pool_of

DOC = Path(__file__).parents[1] / "docs" / "architecture.md"
WALKS = ("An id, from the pool to the bill", "A model, from fit to the optimiser")
PACKAGE = "al_lightning."


def stations(title: str) -> list[str]:
    """The functions that a walk names, in its order."""
    part = DOC.read_text().split(f"### {title}\n")[1].split("\n#")[0]
    return [name for line in part.splitlines() if re.match(r"\d\.", line) for name in re.findall(r"`([\w.]+)`", line)]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every call of a function of the package during a small run, in order."""
    seen: list[str] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith(PACKAGE):
            seen.append(f"{frame.f_globals['__name__'].removeprefix(PACKAGE)}.{frame.f_code.co_qualname}")

    run = learner(tmp_path_factory.mktemp("run"), query=Margin(), round_size=Listed([8, 8]))
    model, pool = net(), pool_of()
    sys.setprofile(note)
    try:
        run.fit(model, datamodule=pool)
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_is_what_a_run_does(title: str, calls: list[str]) -> None:
    at = 0
    for station in stations(title):
        assert station in calls[at:], f"{station} is not called after the station before it"
        at = calls.index(station, at) + 1


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_takes_at_most_six_modules(title: str) -> None:
    named = stations(title)
    modules = {re.sub(r"(\.[A-Z]\w*)?\.\w+$", "", name) for name in named}
    assert len(named) >= 5
    assert len(modules) <= 6, sorted(modules)


def test_rooms_of_the_document_are_those_there_are() -> None:
    rooms = {path.parent.name for path in (DOC.parents[1] / "al_lightning").glob("*/__init__.py")}
    table = DOC.read_text().split("## Rooms")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)/`", table))
    assert named == rooms


def test_files_that_the_document_names_exist() -> None:
    text = DOC.read_text().split("## What Lightning does")[1]
    names = re.findall(r"`(\w+/\w+\.py)`", text)
    assert len(names) > 10
    assert not [name for name in names if not (DOC.parents[1] / "al_lightning" / name).exists()]
