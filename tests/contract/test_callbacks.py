"""What every exported callback keeps, on the user's own Trainer in a hand-written loop."""

from __future__ import annotations

import copy

import torch

from al_lightning import DatasetOracle, fresh_trainer, score
from al_lightning.query import Margin
from al_lightning.round_size import Fixed
from tests.helpers import net, pool_of, quiet


def run_loop(callback, rounds=3, **trainer_settings):
    """Three rounds by hand; returns what a user looks at afterwards."""
    pool, model = pool_of(), net()
    trainer = quiet(max_epochs=2, callbacks=[callback], **trainer_settings)
    for round in pool.rounds(sizes=Fixed(6)):
        fit = fresh_trainer(trainer, model=model, datamodule=pool)
        torch.manual_seed(round.number)
        fit.fit(model, datamodule=pool)
        pool.label(Margin().pick(score(fit, model, pool, Margin()), size=round.size), DatasetOracle())
        if round.number == rounds:
            break
    return pool.labelled.tolist(), pool.stop_reason, model.state_dict(), trainer, fit


def test_a_second_loop_with_the_same_callback_is_the_same_loop(callback):
    first, second = run_loop(callback), run_loop(callback)
    assert first[0] == second[0]
    assert (first[1] and first[1].numbers) == (second[1] and second[1].numbers)
    assert all(torch.equal(first[2][name], second[2][name]) for name in first[2])


def test_copies_of_the_trainer_share_it_and_the_users_trainer_never_runs(callback):
    *_, trainer, fit = run_loop(callback, rounds=1)
    assert any(c is callback for c in fit.callbacks)
    assert trainer.state.fn is None


def test_nothing_stays_frozen_or_replaced_after_a_fit(callback):
    pool, model = pool_of(), net()
    pool.label(range(12), DatasetOracle())
    for _ in range(2):
        fit = fresh_trainer(quiet(max_epochs=1, callbacks=[callback]), model=model, datamodule=pool)
        fit.fit(model, datamodule=pool)
    assert all(p.requires_grad for p in model.parameters())
    assert pool.train_ids is None
    assert len(pool.train_dataloader().dataset) == 12


def test_its_state_survives_a_checkpoint_read_without_pickle(callback, tmp_path):
    *_, fit = run_loop(callback, rounds=1)
    fit.save_checkpoint(tmp_path / "it.ckpt")
    assert torch.load(tmp_path / "it.ckpt", weights_only=True)["epoch"] == fit.current_epoch


def test_it_can_be_described_and_copied(callback):
    assert type(copy.copy(callback)) is type(callback)
