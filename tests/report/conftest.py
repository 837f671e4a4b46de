"""Runs to report on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from al_lightning import Prices, WarmStart
from al_lightning.query import Random
from al_lightning.report import panels
from al_lightning.report.page import write_report
from tests.helpers import learner, net, pool_of
from tests.report.reading import Page


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without its charts, which take a quarter of a second each."""
    monkeypatch.setattr(panels, "svg", lambda panel: "<svg></svg>")
    monkeypatch.setattr(panels, "png", lambda *_: b"")


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A finished run of three rounds and a final fit, with prices of its own."""
    folder = tmp_path_factory.mktemp("report") / "run"
    prices = Prices(label=0.5, hour=20.0, currency="EUR")
    parts = {"fit": WarmStart("keep", final="previous"), "stop_set": 10, "prices": prices, "initial": Random()}
    return learner(folder, **parts).fit(net(), datamodule=pool_of()), folder


@pytest.fixture(scope="package")
def whole(run: tuple[Any, Path]) -> tuple[Page, Path]:
    made = write_report([run[1]], run[1].parent / "whole")
    return Page(made.page), made.page.parent
