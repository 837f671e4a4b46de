"""Which room of the package may import from which: docs/architecture.md draws it, and this holds it."""

from __future__ import annotations

import pytest

from benchmarks import house

ALLOWED = {
    ".": "callbacks candidates checks cost features fit oracles planning pool preflight query run scoring steps stop",
    "callbacks": ". fit pool stop",
    "candidates": ". cost features pool",
    "checks": ". callbacks candidates cost features fit oracles pool query scoring stop",
    "cli": ". callbacks candidates cost features fit oracles planning pool report run scoring steps",
    "contrib": ". callbacks cost fit pool",
    "cost": ". candidates fit pool query stop",
    "features": ". contrib cost fit pool run scoring",
    "fit": ". callbacks checks contrib cost pool run steps",
    "oracles": ". cost pool run",
    "planning": ". callbacks candidates cost fit",
    "pool": ". candidates checks cost features oracles scoring shards",
    "preflight": ". callbacks candidates checks cost features fit oracles pool query run scoring stop",
    "query": ". candidates cost features pool scoring",
    "report": ". cost oracles planning pool run",
    "run": ". cost fit oracles planning pool preflight scoring stop",
    "scoring": ". cost fit planning pool query run",
    "shards": ". pool run",
    "steps": ". callbacks candidates checks cost features fit oracles planning pool preflight query run scoring stop",
    "stop": ". features",
}
"""Room -> rooms it may import from, for type checkers or at run time. Taking a name out is progress."""
AS_IT_STANDS = {
    "functions that take a Turn, which is all of a run but the commit": 30,
    "two-way folders": 19,
}
"""Measures of benchmarks/house.py that are not at their aims yet, and may only fall."""
HELD = (
    "loose modules",
    "long files",
    "functions that take Run",
    "Any in signatures of steps",
    "commit calls outside learner.py",
    "circles of modules",
    "docstrings that begin with a question word",
)


def test_rooms_import_only_what_the_floor_plan_allows() -> None:
    found = house.arrows()
    assert found.keys() == ALLOWED.keys(), "a room was added or is gone: draw it in docs/architecture.md, too"
    wrong = {room: sorted(targets - set(ALLOWED[room].split())) for room, targets in found.items()}
    assert not {room: targets for room, targets in wrong.items() if targets}


def test_the_floor_plan_allows_nothing_that_nobody_needs() -> None:
    found = house.arrows()
    idle = {room: sorted(set(targets.split()) - found[room]) for room, targets in ALLOWED.items()}
    assert not {room: targets for room, targets in idle.items() if targets}


@pytest.mark.parametrize("measure", HELD)
def test_a_measure_is_at_its_aim(measure: str) -> None:
    counted = house.measures()[measure]
    assert len(counted) <= house.AIMS[measure], counted


@pytest.mark.parametrize("measure", AS_IT_STANDS)
def test_a_measure_only_falls(measure: str) -> None:
    counted = house.measures()[measure]
    assert len(counted) <= AS_IT_STANDS[measure], counted


def test_a_circle_of_imports_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import ast

    sources = {
        "a.one": "from al_lightning.b.two import x",
        "b.two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from al_lightning.a import one",
        "b.three": "from al_lightning.b.two import x",
    }
    parsed = {name: ast.parse(source) for name, source in sources.items()}
    monkeypatch.setattr(house, "modules", lambda: parsed)
    assert house.circles() == [["a.one", "b.two"]]
    assert house.circles(typing=False) == []
