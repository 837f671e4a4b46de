"""The first door: a loop written by hand, with callbacks on the Trainer and the pool as its DataModule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from al_lightning import Budget, DatasetOracle, RoundPlateau, StallDetection, WarmStart, fresh_trainer, score
from al_lightning.candidates import RandomSubset
from al_lightning.query import Margin, Random
from al_lightning.round_size import Doubling, Fixed
from tests.helpers import blobs, ids_in, net, pool_of, quiet


def test_the_loop_of_the_readme() -> None:
    data, model = blobs(), net()
    pool, oracle = pool_of(data), DatasetOracle()
    callbacks: list[Any] = [
        WarmStart("keep", epochs=2),
        RoundPlateau("val_acc", min_delta=0.5, patience=9),
        StallDetection("train_loss"),
    ]
    trainer = quiet(max_epochs=4, callbacks=callbacks)
    sizes, trained = [], []
    for round in pool.rounds(sizes=Doubling(first=6), budget=Budget(labels=40)):
        model.batches.clear()
        t = fresh_trainer(trainer)
        t.fit(model, datamodule=pool)
        trained.append((t.current_epoch, len(set(ids_in(model.batches, data)))))
        before = pool.unlabelled
        scores = score(t, model, pool, Margin())
        picked = Margin().pick(scores, size=round.size)
        if len(picked):
            with torch.no_grad():
                p = model(data.tensors[0][before]).softmax(-1).sort(-1, descending=True).values
            gap = (p[:, 0] - p[:, 1]).numpy()
            chosen = np.isin(before, picked)
            assert gap[chosen].max() <= gap[~chosen].min() + 1e-6  # the smallest margins of all
        pool.label(picked, oracle)
        sizes.append(round.size)
    assert sizes == [6, 12, 16, 0]
    assert trained == [(4, 6), (2, 12), (2, 24), (2, 40)]
    assert [pool.state.labels[int(i)] for i in pool.labelled] == [int(i) % 3 for i in pool.labelled]
    assert trainer.state.fn is None


def test_a_selector_sets_the_candidates_of_every_round() -> None:
    pool, model, seen = pool_of(), net(), []
    trainer = quiet(max_epochs=1)
    for round in pool.rounds(sizes=Fixed(6), budget=Budget(labels=18), candidates=RandomSubset(0.5)):
        t = fresh_trainer(trainer)
        t.fit(model, datamodule=pool)
        scores = score(t, model, pool, Margin())
        seen.append(len(scores.ids))
        picked = Margin().pick(scores, size=round.size)
        assert set(picked) <= set(scores.ids)
        pool.label(picked, DatasetOracle())
    assert seen == [27, 24, 0]


def test_the_first_labels_are_the_same_for_the_same_seed() -> None:
    firsts = []
    for seed in (0, 0, 1):
        pool = pool_of()
        next(pool.rounds(sizes=Fixed(6), seed=seed))
        firsts.append(pool.labelled.tolist())
    assert firsts[0] == firsts[1] != firsts[2]


def test_labels_that_are_there_are_used() -> None:
    pool = pool_of()
    pool.label([3, 4, 5], {3: 0, 4: 1, 5: 2})
    next(pool.rounds(sizes=Fixed(6)))
    assert pool.labelled.tolist() == [3, 4, 5]


def test_the_loop_ends_with_the_pool() -> None:
    pool, sizes = pool_of(), []
    for round in pool.rounds(sizes=Fixed(25)):
        sizes.append(round.size)
        pool.label(Random().pick(score(quiet(), net(), pool, Random()), size=round.size), DatasetOracle())
    assert sizes == [25, 10, 0]
    assert len(pool.labelled) == 60


@pytest.mark.parametrize("again", [False, True])
def test_a_trainer_of_ones_own_goes_through_the_copies(again: bool) -> None:
    """The hazard this is for: without the copy, the second fit trains nothing and says nothing."""
    pool, model, trainer = pool_of(), net(), quiet(max_epochs=2)
    pool.label(range(8), {i: i % 3 for i in range(8)})
    for _ in range(2):
        model.batches.clear()
        (fresh_trainer(trainer) if again else trainer).fit(model, datamodule=pool)
    assert len(model.batches) == (2 if again else 0)


def test_predictions_of_ones_own_are_those_of_the_candidates() -> None:
    class Predicts(type(net())):  # type: ignore[misc]
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return batch[0]

    pool = pool_of()
    pool.candidates = np.array([4, 50, 2])
    out = quiet().predict(Predicts(), datamodule=pool)
    assert out is not None
    assert ids_in(out, blobs()) == [4, 50, 2]
