"""Cards say what a method costs and when it pays; their code runs here, so that they cannot rot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CARDS = sorted((Path(__file__).parents[2] / "docs" / "cards").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_exported_method_has_a_card(table):
    titles = [card.read_text().splitlines()[0] for card in CARDS]
    named = {word for title in titles for word in re.findall(r"\w+", title)}
    missing = {method.__name__ for _, _, methods in table for method in methods} - named
    assert not missing, f"no card in docs/cards is titled {missing}"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_code_of_the_card_runs(card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = card.read_text()
    blocks = list(BLOCK.finditer(text))
    assert blocks, f"{card.name} shows no python code"
    namespace: dict[str, object] = {"__name__": f"card_{card.stem}"}
    for block in blocks:
        above = text[: block.start(1)].count("\n")  # so that a traceback shows the card's own line numbers
        exec(compile("\n" * above + block.group(1), str(card), "exec"), namespace)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
@pytest.mark.parametrize("says", ["What it costs", "When it pays", "Source"])
def test_card_says_what_it_must(card, says):
    assert re.search(rf"^## {says}$", card.read_text(), re.MULTILINE), f"{card.name} has no section '## {says}'"
