"""Training on two processes and scoring on a cluster: rank 0 asks, and all ranks go on with its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import start_program

pytestmark = [pytest.mark.ddp, pytest.mark.xdist_group("ray")]


def test_two_ranks_query_what_they_would_have_scored_themselves(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="scoring on Ray needs the extra: pip install -e '.[ray]'")
    done = start_program(Path(__file__).with_name("two_ranks.py"), tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert len(set(first["there"]["labelled"])) == 24
    for name in ("here", "there"):
        assert first[name] == second[name]
    assert first["there"] == first["here"]
    assert (first["asked"], second["asked"]) == (2, 0)  # of three rounds, the last has no query
