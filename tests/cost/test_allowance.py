"""WarmStart(rho=) is what a run spends, whatever its Trainer validates, or it is refused before anything is bought."""

from __future__ import annotations

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.pytorch.callbacks import LearningRateFinder

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import EveryK, Representatives, RotatingSubset, WholePool
from al_lightning.contrib import Replay
from al_lightning.errors import RhoTooSmall
from al_lightning.features.source import RawInputs
from al_lightning.query import (
    ClusterMargin,
    DistanceWeighted,
    InformationDensity,
    KCenterGreedy,
    KMeans,
    Margin,
    ProbCover,
    TypiClust,
)
from al_lightning.round_size import EvenRounds
from al_lightning.stop import Coverage
from tests.helpers import Net, blobs, learner, net, pool_of, quiet

ROUNDS: dict[str, Any] = {"first_epochs": 0.36, "epochs": 0.12}
LAST: dict[str, Any] = {"final": "previous", "final_epochs": 0.25, "final_average": 0.5, "stable": True}


class Passes(Net):
    """Notes the batches of every validation pass, by the epoch it came after."""

    def __init__(self) -> None:
        super().__init__(hidden=16)
        self.passes: list[list[tuple[int, int]]] = []

    def on_fit_start(self) -> None:
        self.passes.append([])

    def on_validation_start(self) -> None:
        self.passes[-1].append((self.current_epoch + 1, 0))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        epoch, batches = self.passes[-1].pop()
        self.passes[-1].append((epoch, batches + 1))


CADENCES: dict[str, dict[str, Any]] = {
    "every epoch": {},
    "without a sanity check": {"num_sanity_val_steps": 0},
    "twice an epoch": {"val_check_interval": 0.5},
    "every third epoch": {"check_val_every_n_epoch": 3},
    "on some batches": {"limit_val_batches": 3},
    "on half of the batches": {"limit_val_batches": 0.5},
    "never": {"limit_val_batches": 0},
}
EPOCHS = {"four epochs": 4, "twenty-four epochs": 24}
LABELS = {"sixty labels": 60, "a hundred labels": 100}
CASES = [(cadence, epochs, "sixty labels") for cadence in CADENCES for epochs in EPOCHS]
CASES += [("every epoch", "twenty-four epochs", "a hundred labels")]
HELD_OUT = blobs(60, seed=1)


def run(folder: Path, trainer: L.Trainer, labels: int, **changes: Any) -> tuple[Any, Passes]:
    model = Passes()
    pool = pool_of(blobs(160), val=HELD_OUT, features=RawInputs())
    fit = WarmStart("keep", **{**ROUNDS, **LAST, "rho": 0.98, **changes})
    parts: dict[str, Any] = {
        "query": DistanceWeighted(Margin()),
        "candidates": RotatingSubset(0.3, spend=0.22),
        "fit": fit,
    }
    rounds = EvenRounds(labels=labels, rounds=5)
    return learner(folder, trainer, round_size=rounds, **parts).fit(model, datamodule=pool), model


@pytest.mark.filterwarnings("ignore:WarmStart.*leaves room", "ignore:You defined a `validation_step`")
@pytest.mark.parametrize(("cadence", "epochs", "labels"), CASES)
def test_rho_is_kept_whatever_is_validated(cadence: str, epochs: str, labels: str, tmp_path: Path) -> None:
    trainer = quiet(max_epochs=EPOCHS[epochs], **CADENCES[cadence])
    result, model = run(tmp_path, trainer, LABELS[labels])
    assert 0.25 < result.rho <= 0.98 + 0.02
    last = model.passes[-1]
    assert bool(last) == (cadence != "never")
    every = trainer.check_val_every_n_epoch or 1
    assert not last or last[-1][0] > result.history[-1].epochs - every, "a fit validates at its end"


def test_validation_is_the_trainers_where_there_is_room(tmp_path: Path) -> None:
    result, model = run(tmp_path, quiet(max_epochs=6, num_sanity_val_steps=0), 60, rho=2.5)
    assert [[epoch for epoch, _ in fit] for fit in model.passes] == [
        list(range(1, record.epochs + 1)) for record in result.history
    ]
    assert {batches for fit in model.passes for _, batches in fit} == {8}
    assert result.rho <= 2.52


def test_a_little_room_is_for_a_pass_at_the_end_and_less_for_some_of_its_batches(tmp_path: Path) -> None:
    _, model = run(tmp_path / "long", quiet(max_epochs=24), 60)
    assert all(len(fit) == 1 and fit[0][1] == 8 for fit in model.passes)
    with pytest.warns(UserWarning, match=r"rho=0\.98.* of 8 batches.*check_val_every_n_epoch=.*limit_val_batches="):
        _, model = run(tmp_path / "short", quiet(max_epochs=4), 60)
    assert all(len(fit) == 1 and 1 <= fit[0][1] < 8 for fit in model.passes)


@pytest.mark.parametrize(("changes", "rounds"), [({"rho": 0.4}, 5), ({"epochs": 1.0, "first_epochs": 1.0}, 5)])
def test_a_rho_that_cannot_be_kept_is_refused_before_a_label_is_bought(
    changes: dict[str, Any], rounds: int, tmp_path: Path
) -> None:
    model, pool = net(), pool_of(blobs(160), val=HELD_OUT, features=RawInputs())
    fit = WarmStart("keep", **{**ROUNDS, **LAST, "rho": 0.98, **changes})
    active = learner(tmp_path, quiet(max_epochs=24), round_size=EvenRounds(labels=60, rounds=rounds), fit=fit)
    with pytest.raises(RhoTooSmall, match=r"rho=0\..*Fewer rounds.*eval_batch_size=.*limit_val_batches=0"):
        active.fit(model, datamodule=pool)
    assert len(pool.labelled) == 0
    assert not model.batches
    enough = WarmStart("keep", **{**ROUNDS, **LAST, "rho": 4.0})
    again = learner(tmp_path, quiet(max_epochs=2), round_size=EvenRounds(labels=60, rounds=2), fit=enough)
    assert again.fit(net(), datamodule=pool).rho <= 4.02  # in the same folder


ROW: dict[str, Any] = {"max_epochs": 12, "check_val_every_n_epoch": 3}
DEAR: dict[str, dict[str, Any]] = {
    "candidates from clusters": {"candidates": Representatives(0.3, n_clusters=12)},
    "candidates from as many clusters as usual": {"candidates": Representatives(0.2)},
    "all candidates": {"candidates": WholePool()},
    "candidates every other round": {"candidates": EveryK(WholePool(), 2)},
    "clusters of the query": {"query": ClusterMargin()},
    "a query of centers": {"query": KCenterGreedy()},
    "a query of clusters": {"query": KMeans()},
    "a query of clusters and their neighbours": {"query": TypiClust()},
    "a query of neighbours": {"query": ProbCover()},
    "a query of like records": {"query": InformationDensity(Margin())},
    "a first query of clusters": {"initial": KMeans()},
    "coverage after every fit": {"stop": [Coverage(share=1.0)]},
    "a stop set": {"stop_set": 40},
    "a proxy": {"proxy": Passes(), "fit": {"final": "initial"}},
    "frozen layers": {"fit": {"freeze": ("net.0",)}},
    "activations that are kept": {"fit": {"freeze": ("net.0",), "cached": True}},
    "replay": {"fit": {"mode": "resume"}},
    "distillation": {"fit": {"kind": Replay, "distill": 0.5}},
    "fresh weights": {"fit": {"mode": "reset", "final": "initial"}},
}


@pytest.mark.filterwarnings("ignore:WarmStart.*leaves room")
@pytest.mark.parametrize("dear", DEAR)
def test_the_least_rho_that_is_named_is_kept_whatever_it_is_spent_on(dear: str, tmp_path: Path) -> None:
    changes = copy.deepcopy(DEAR[dear])
    fit = {**ROUNDS, **LAST, **changes.pop("fit", {})}
    kind = fit.pop("kind", partial(WarmStart, fit.pop("mode", "keep")))
    parts: dict[str, Any] = {
        "query": DistanceWeighted(Margin()),
        "candidates": RotatingSubset(0.3, spend=0.22),
        **changes,
    }

    def with_rho(rho: float) -> tuple[Any, Any]:
        pool = pool_of(blobs(160), val=HELD_OUT, features=RawInputs())
        active = learner(
            tmp_path,
            quiet(**ROW),
            round_size=EvenRounds(60, rounds=4),
            fit=kind(**fit, rho=rho),
            **parts,
        )
        return active, pool

    active, pool = with_rho(0.1)
    with pytest.raises(RhoTooSmall) as refused:
        active.fit(Passes(), datamodule=pool)
    assert len(pool.labelled) == 0
    named = re.search(r"or rho=([\d.]+) help", str(refused.value))
    assert named is not None
    active, pool = with_rho(float(named[1]) - 0.01)
    assert float(named[1]) - 0.25 < active.fit(Passes(), datamodule=pool).rho <= float(named[1]) + 0.01


@pytest.mark.filterwarnings("ignore")
def test_what_a_finder_trains_counts_against_rho(tmp_path: Path) -> None:
    trainer = quiet(max_epochs=24, callbacks=[LearningRateFinder(num_training_steps=8)], default_root_dir=tmp_path)
    result, _ = run(tmp_path / "run", trainer, 60)
    assert result.rho <= 1.0
