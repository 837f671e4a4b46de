"""The denominator of rho: what one training with the Trainer's own settings goes through, against a real one."""

from __future__ import annotations

import pytest
from lightning.pytorch.callbacks import EarlyStopping, Timer

from al_lightning import WarmStart
from al_lightning.cost.recipe import Recipe
from al_lightning.errors import UnsupportedTrainer
from al_lightning.query import Random
from al_lightning.round_size import Fixed, Listed
from tests.helpers import learner, net, pool_of, quiet

LABELS = 44  # six batches of 8, the last one of 4


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 3},
        {"max_epochs": 100, "max_steps": 6},
        {"max_epochs": 100, "max_steps": 9},
        {"max_epochs": -1, "max_steps": 8},
        {"max_epochs": 4, "limit_train_batches": 2},
        {"max_epochs": 4, "limit_train_batches": 0.5},
        {"max_epochs": 100, "max_steps": 3, "accumulate_grad_batches": 2},
    ],
    ids=str,
)
def test_the_reference_is_what_one_fit_really_trains(tmp_path, settings):
    one_round = Listed([LABELS])
    result = learner(tmp_path, quiet(**settings), query=Random(), round_size=one_round).fit(net(), datamodule=pool_of())
    assert result.bill.lines["train"].records == pytest.approx(result.bill.reference.records, abs=4)
    train = result.bill.lines["train"]
    assert result.bill.reference.flops == pytest.approx(train.flops, rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"callbacks": [EarlyStopping("val_loss", patience=1)]},
        {"callbacks": [Timer("00:01:00:00")]},
        {"max_time": "00:01:00:00"},
    ],
    ids=["EarlyStopping", "Timer", "max_time"],
)
def test_max_epochs_is_the_recipe_whatever_may_end_a_fit_before(tmp_path, settings):
    def fit(folder, **told):
        trainer = quiet(max_epochs=12, **settings)
        learn = learner(
            folder, trainer, query=Random(), round_size=Fixed(60), fit=WarmStart("reset", epochs=0.5), **told
        )
        return learn.fit(net(), datamodule=pool_of())

    assert fit(tmp_path / "a").bill.reference.records == 12 * 60
    assert fit(tmp_path / "b", recipe_epochs=5).bill.reference.records == 5 * 60


@pytest.mark.parametrize(
    ("settings", "in_the_way"),
    [
        ({"max_epochs": -1}, "max_epochs=-1, which is no limit"),
        ({"max_epochs": None, "max_time": "00:01:00:00"}, "max_time, or a Timer, is all"),
        ({"max_epochs": None, "max_steps": 7}, "max_steps=7 is all"),
    ],
)
@pytest.mark.parametrize("name", ["first_epochs", "epochs", "final_epochs"])
def test_shares_of_no_epochs_are_refused_with_what_is_in_the_way(tmp_path, settings, in_the_way, name):
    fit = WarmStart("keep", final="initial", **{name: 0.25})
    with pytest.raises(UnsupportedTrainer, match=rf"WarmStart\({name}=0.25\).*{in_the_way}.*recipe_epochs="):
        learner(tmp_path / "run", quiet(**settings), fit=fit).fit(net(), datamodule=pool_of())
    assert not (tmp_path / "run").exists()
    Recipe.of(quiet(**settings), 20).check_shares(fit, quiet(**settings))  # which fit(recipe_epochs=20) asks


def test_a_trainer_without_a_limit_declares_no_recipe(tmp_path):
    trainer = quiet(max_epochs=-1, callbacks=[EarlyStopping("val_loss", patience=0, min_delta=9)])
    result = learner(tmp_path, trainer, query=Random(), round_size=Fixed(30)).fit(net(), datamodule=pool_of())
    assert result.rho is None
    assert "recipe_epochs" in str(result.bill)
