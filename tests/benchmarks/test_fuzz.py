"""The fuzz of label files finds nothing, and would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from al_lightning.oracles.label_file import Reader
from al_lightning.oracles.statements import Statement
from benchmarks import fuzz


@pytest.mark.parametrize("name", fuzz.CASES)
def test_every_file_goes_in_whole_or_is_refused_by_name(name: str, tmp_path: Path) -> None:
    row = fuzz.fuzz(name, 240, tmp_path)
    assert row["inputs"] == row["taken"] + row["refused"] == 240
    assert row["taken"] > 5
    assert row["answers"] > 2
    assert (row["uncaught"], row["half_imports"], row["files_changed"], row["failures"]) == (0, 0, 0, [])


class Loses(Reader):
    def read(self, path: Path, **where: Any) -> list[Statement]:
        return super().read(path, **where)[1:]


class Breaks(Reader):
    def read(self, path: Path, **where: Any) -> list[Statement]:
        path.write_text("broken")
        raise KeyError("label")


def test_an_importer_that_loses_an_answer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("al_lightning.cli.labelling.Reader", Loses)
    row = fuzz.fuzz("class numbers", 240, tmp_path)
    assert row["half_imports"] > 2
    assert row["uncaught"] == 0


def test_an_importer_that_breaks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("al_lightning.cli.labelling.Reader", Breaks)
    row = fuzz.fuzz("class numbers", 40, tmp_path)
    assert row["uncaught"] > 5
    assert row["files_changed"] == row["uncaught"]
    assert row["failures"][0]["why"] == "KeyError('label')"
