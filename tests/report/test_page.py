"""The page stands alone, reads well, and runs nothing that a run folder holds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from al_lightning.errors import ActiveLearningError
from al_lightning.oracles import FileOracle
from al_lightning.report import panels
from al_lightning.report.page import write_report
from tests.formats import as_format
from tests.helpers import learner, net, pool_of
from tests.report.reading import Page, sql, written
from tests.resume.test_people import NAMES, fill, start, truth

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}} $\\frac{x}$ ]]>&amp;"


def test_the_page_stands_alone(whole: tuple[Page, Path]) -> None:
    assert not [tag for tag, _ in whole[0].tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
    for tag, attributes in whole[0].tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in whole[0].source
    assert "url(http" not in whole[0].source
    assert "default-src 'none'" in whole[0].source


def test_it_can_be_read_without_eyes_and_in_the_dark(whole: tuple[Page, Path]) -> None:
    ids = [attributes["id"] for _, attributes in whole[0].tags if "id" in attributes]
    assert {link["href"][1:] for tag, link in whole[0].tags if tag == "a"} <= set(ids)
    pictures = [a for tag, a in whole[0].tags if tag == "img" or a.get("role") == "img"]
    assert len(pictures) == 9
    assert all(a.get("alt") or a.get("aria-label") for a in pictures)
    light, dark = re.findall(r":root \{(.*?)\}", whole[0].source, re.DOTALL)
    for name in set(re.findall(r"var\(--(\w+)\)", whole[0].source)):
        assert f"--{name}:" in light
        assert f"--{name}:" in dark
    assert not re.search(r"(fill|stroke): #[0-9a-f]{6}", whole[0].source), "a colour the dark page does not change"


def test_pictures_stand_beside_it(whole: tuple[Page, Path]) -> None:
    from matplotlib.image import imread

    names = {path.name for path in whole[1].iterdir()}
    assert names == {"report.html", "accuracy.png", "bill.png", "picks.png", "classes.png"}
    for path in whole[1].glob("*.png"):
        assert len(np.unique((imread(path)[::4, ::4, :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 20


def test_the_run_is_only_read_and_the_page_is_the_same_again(
    run: tuple[Any, Path], whole: tuple[Page, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in run[1].rglob("*") if p.is_file()}
    monkeypatch.setattr(panels, "png", lambda *_: b"")
    assert Page(write_report([run[1]], tmp_path).page).source == whole[0].source
    assert {p: p.read_bytes() for p in run[1].rglob("*") if p.is_file()} == before


# ---- what somebody else's run folder may hold ------------------------------------------------------------


def test_nothing_from_a_run_folder_is_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "png", lambda *_: b"")
    folder, keys = tmp_path / EVIL.replace("/", "|"), [f"{EVIL} {i}" for i in range(60)]
    oracle = FileOracle(classes=[f"{EVIL.replace(';', ',')} {c}" for c in NAMES], columns=lambda i: {EVIL: EVIL})
    start(folder, oracle, keys=keys)
    for round in (1, 2):
        rows = folder / "queries" / f"round-{round:03d}.csv"
        fill(rows, lambda i: f"{EVIL.replace(';', ',')} {truth(i)}", annotator=EVIL)
        start(folder, oracle, keys=keys)
    as_format(folder, 3)  # which had no sums to be found out by
    sql(folder, "INSERT INTO reason (round, kind, sentence, numbers) VALUES (1, ?, ?, ?)", EVIL, EVIL, f'"{id}"')
    (record,) = sql(folder, "SELECT record FROM round WHERE round = 1")[0]
    changed = json.loads(record)
    changed["metrics"] = {EVIL: 0.5, f"_{EVIL}": 0.25}
    changed["start"] = EVIL
    sql(folder, "UPDATE round SET record = ?", json.dumps(changed))
    found = written(folder)
    assert not [tag for tag, _ in found.tags if tag in ("script", "img")]
    assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
    for place in ("annotator", "picked by"):
        assert place in found.text
    assert found.text.count("<script>alert(1)</script>") > 30
    assert "{{7*7}} $\\frac{x}$ ]]>&amp;" in found.text, "neither template nor formula nor entity"
    other = tmp_path / "other"
    learner(other).fit(net(), datamodule=pool_of())
    compared = Page(write_report([folder, other], tmp_path / "compared").page)
    assert not [tag for tag, _ in compared.tags if tag in ("script", "img")]
    assert compared.text.count("<script>alert(1)<|script>") > 3


def harmless(home: Path, damage: str, value: Any) -> bool:
    """Whether a report comes of a damaged copy of a run, rather than an error that names it."""
    folder = home / "copy"
    folder.mkdir()
    shutil.copyfile(home / "run" / "run.sqlite", folder / "run.sqlite")
    sql(folder, damage, value)
    try:
        assert "script" not in [tag for tag, _ in written(folder).tags]
        return True
    except ActiveLearningError as error:
        assert str(folder) in str(error)  # noqa: PT017
        return False
    finally:
        shutil.rmtree(folder)


COLUMNS = {
    "meta": ("value",),
    "query": ("round", "id"),
    "label": ("value", "skipped"),
    "round": ("record",),
    "ledger": ("phase", "round", "records", "flops", "seconds"),
    "reason": ("round", "kind", "sentence", "numbers"),
    "record_key": ("key",),
    "statement": ("id", "ask", "who", "at", "value"),
}


@pytest.mark.usefixtures("undrawn")
def test_what_no_run_wrote_is_refused_by_name_or_harmless(tmp_path: Path) -> None:
    start(tmp_path / "run", keys=[str(i) for i in range(60)])
    fill(tmp_path / "run" / "queries" / "round-001.csv", annotator="ann")
    start(tmp_path / "run", keys=[str(i) for i in range(60)])
    as_format(tmp_path / "run", 3)  # which had no sums to be found out by
    metas = [key for (key,) in sql(tmp_path / "run", "SELECT key FROM meta")]
    places = [(t, c, "") for t, columns in COLUMNS.items() if t != "meta" for c in columns]
    places += [("meta", "value", f"WHERE key = '{key}'") for key in metas]
    values = ('{"<script>": "<script>"}', b"\0\xff", -(2**40), 2**40)
    refused = [
        column
        for table, column, where in places
        for value in values
        if not harmless(tmp_path, f"UPDATE OR IGNORE {table} SET {column} = ? {where}", value)
    ]
    assert len(refused) > len(places)


@pytest.mark.usefixtures("undrawn")
def test_what_is_no_run_is_said_with_the_way_out(run: tuple[Any, Path], tmp_path: Path) -> None:
    for folder in (tmp_path / "no", tmp_path):
        with pytest.raises(ActiveLearningError, match=r"is no run folder.*Give the run_dir of a run, or the folder"):
            written(folder)
    shutil.copytree(run[1], tmp_path / "copy")
    sql(tmp_path / "copy", "PRAGMA user_version=99")
    with pytest.raises(ActiveLearningError, match="run format 99"):
        written(tmp_path / "copy")
    sql(tmp_path / "copy", "PRAGMA user_version=0")
    with pytest.raises(ActiveLearningError, match="holds no run, and the folder does"):
        written(tmp_path / "copy")
    (tmp_path / "copy" / "run.sqlite").write_text("no database" * 100)
    with pytest.raises(ActiveLearningError, match="cannot be read"):
        written(tmp_path / "copy")
    with pytest.raises(ActiveLearningError, match=r"'f1' was not logged; allowed: val_acc"):
        written(run[1], metric="f1")
