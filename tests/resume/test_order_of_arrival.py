"""A run is what its answers make of it: when each of them came in, and with which others, makes no difference."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from al_lightning import WarmStart
from al_lightning.cli.main import main
from al_lightning.oracles import FileOracle
from al_lightning.run.store import read_run
from tests.formats import as_format
from tests.helpers import NAMES, fill, ids_in, ids_of, learner, net, pool_of, quiet, truth

FITS = {
    "reset": {},
    "new records and old ones": {"fit": WarmStart("resume", epochs=1)},
    "a part of the old ones": {"fit": WarmStart("shrink_perturb", epochs=1)},
}
"""How rounds train; what is new to a fit makes a difference in the last two."""


class Trace:
    """What a run did: the records of each batch, and what it came to."""

    def __init__(self, folder: Path, fit: str, oracle: Any = None) -> None:
        self.folder, self.settings, self.oracle = folder, FITS[fit], oracle or FileOracle(classes=NAMES)
        self.trained: list[int] = []

    def start(self) -> Any:
        pool, model = pool_of(), net()
        made = learner(self.folder, oracle=self.oracle, trainer=quiet(max_epochs=1), **self.settings)
        result = made.fit(model, datamodule=pool)
        self.trained += ids_in(model.batches, pool.training_data)
        return result

    def look(self) -> None:
        """Start where something is open still: the answers there are come in, and nothing is trained."""
        if read_run(self.folder).open_ids:
            self.start()

    @property
    def open(self) -> Path:
        return self.folder / "queries" / f"round-{len(read_run(self.folder).queries):03d}.csv"

    def end(self) -> tuple[Any, ...]:
        """Where it is now, with nothing left open."""
        result = self.start()
        weights = torch.cat([p.detach().flatten() for p in result.model.parameters()])
        saved = read_run(self.folder)
        return result.labelled.tolist(), saved.queries, self.trained, weights.tolist(), dict(saved.answers)


def bring(folder: Path, answers: dict[int, str], rng: random.Random, own: float = 0.5) -> None:
    """One person's answers, in the query's own file with this probability, or in another one by the command."""
    path = folder / "queries" / f"round-{len(read_run(folder).queries):03d}.csv"
    if rng.random() < own and set(answers) <= set(ids_of(path)):
        fill(path, answers.get)
        return
    rows = "".join(f"{i},{answers[i]}\n" for i in rng.sample(sorted(answers), len(answers)))
    file = folder.parent / f"{folder.name}-{rng.randrange(10**9)}.csv"
    file.write_text(f"id,label\n{rows}")
    assert main(["label", str(folder), str(file)]) == 0


def parts(ids: list[int], rng: random.Random) -> list[list[int]]:
    """The ids in any order and any number of portions."""
    mixed = rng.sample(ids, len(ids))
    cuts = sorted(rng.sample(range(1, len(ids)), rng.randint(1, 4)))
    return [mixed[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("seed", range(3))
def test_answers_in_any_order_and_any_portions_make_the_same_run(
    tmp_path: Path, seed: int, fit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, whole, pieces = random.Random(seed), Trace(tmp_path / "whole", fit), Trace(tmp_path / "pieces", fit)
    whole.start()
    pieces.start()
    before: list[int] = []
    for round in range(1, 4):
        ids = ids_of(whole.open)
        assert ids == ids_of(pieces.open)
        refused = ids[round]
        # Of the round before, what was refused is labelled now, and what was labelled refused: late, in any order.
        late = dict(zip(before, ("skip", truth(before[1])), strict=True)) if before else {}
        before = [ids[0], refused]
        said = {**{i: truth(i) for i in ids if i != refused}, refused: "skip", **late}
        bring(whole.folder, said, random.Random(0))
        for portion in parts(list(said), rng):
            if rng.random() < 0.5:  # they change their minds before anything is trained on it
                first = {i: rng.choice([*NAMES, "skip"]) for i in portion}
                bring(pieces.folder, first, rng, own=0)
            bring(pieces.folder, {i: said[i] for i in portion}, rng)
            pieces.look()
        whole.start()
        pieces.start()
    assert pieces.end() == whole.end()
    capsys.readouterr()


def test_labels_stand_in_the_order_of_the_fits_and_then_of_the_queries(tmp_path: Path) -> None:
    run = Trace(tmp_path / "run", "reset")
    run.start()
    first = ids_of(run.open)
    fill(run.open, lambda i: truth(i) if i in first[6:] else None)
    run.start()
    fill(run.open, lambda i: "skip" if i == first[0] else truth(i))
    assert run.start().labelled.tolist() == first[1:]
    second = ids_of(run.open)
    fill(tmp_path / "run" / "queries" / "round-001.csv", lambda i: truth(i) if i == first[0] else None)
    fill(run.open)
    assert run.start().labelled.tolist() == [*first[1:], first[0], *second], "a late label is a new one"


def test_a_folder_that_had_labels_in_the_order_of_arrival_goes_on_in_it(tmp_path: Path) -> None:
    run = Trace(tmp_path / "run", "new records and old ones")
    run.start()
    first = ids_of(run.open)
    fill(run.open)
    run.start()
    second = ids_of(run.open)
    fill(run.open, lambda i: truth(i) if i in second[3:] else None)
    run.start()
    arrived = [*first[6:], *first[:6], *reversed(second[3:])]
    as_format(tmp_path / "run", 3)
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as db:  # as the version before left it
        db.execute("DELETE FROM meta WHERE key = 'fits'")
        db.execute("INSERT OR REPLACE INTO meta VALUES ('withdrawn', '0')")
        db.executemany("UPDATE label SET seq = ? WHERE id = ?", [(k + 1, i) for k, i in enumerate(arrived)])
    fill(run.open)
    run.trained.clear()
    assert run.start().labelled.tolist() == [*arrived, *second[:3]]
    assert len(run.trained) == 2 * len(second), "an old record for each new one"
    assert set(run.trained) >= set(second), "what no fit had seen is new to this one"
    assert run.start().labelled.tolist() == [*arrived, *second[:3]]
