"""The denominator of rho: what one training with the Trainer's own settings goes through, against a real one."""

from __future__ import annotations

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from al_lightning import Fixed, Listed, Random
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


def test_a_trainer_that_stops_early_declares_no_recipe_unless_told(tmp_path):
    def fit(folder, **told):
        trainer = quiet(max_epochs=50, callbacks=[EarlyStopping("val_loss", patience=1)])
        return learner(folder, trainer, query=Random(), round_size=Fixed(30), **told).fit(net(), datamodule=pool_of())

    unknown = fit(tmp_path / "a")
    assert unknown.rho is None
    assert "recipe_epochs" in str(unknown.bill)
    told = fit(tmp_path / "b", recipe_epochs=5)
    assert told.bill.reference.records == 5 * 60
