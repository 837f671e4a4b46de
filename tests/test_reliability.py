"""docs/reliability.md promises nothing without a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / "reliability.md").read_text())))


@pytest.mark.parametrize("name", NAMED)
def test_every_test_it_names_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    assert not function or f"def {function}(" in (ROOT / path).read_text()


def test_every_row_names_one() -> None:
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert not [row for row in rows[1:] if "`tests/" not in row]
