import sys

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from al_lightning.cli.problems import Classifier, digits
from al_lightning.errors import MissingExtra


def quiet_trainer(**kwargs: object) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


def rows(*datasets: torch.utils.data.TensorDataset) -> set[tuple[float, ...]]:
    return {tuple(x.tolist()) for dataset in datasets for x in dataset.tensors[0]}


def test_digits_splits_every_record_once() -> None:
    splits = digits(seed=3)
    assert [len(d) for d in splits] == [1317, 120, 360]
    assert len(rows(*splits)) == len(rows(splits.train)) + len(rows(splits.val)) + len(rows(splits.test)) == 1797
    x, y = splits.train.tensors
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (x.min(), x.max()) == (0, 1)


def test_digits_keeps_the_classes_shares() -> None:
    for dataset, share in zip(digits(seed=0), (132, 12, 36), strict=True):
        assert all(abs(int(n) - share) <= share // 10 + 1 for n in dataset.tensors[1].bincount(minlength=10))


def test_digits_depends_on_the_seed_alone() -> None:
    assert torch.equal(digits(1).val.tensors[0], digits(1).val.tensors[0])
    assert not torch.equal(digits(1).val.tensors[0], digits(2).val.tensors[0])


def test_digits_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"al_lightning\[demo\]"):
        digits()


def test_classifier_learns_and_logs() -> None:
    L.seed_everything(0, verbose=False)
    splits = digits(0)
    model, trainer = Classifier(64, 10, learning_rate=3e-2), quiet_trainer(max_epochs=6)
    trainer.fit(model, DataLoader(splits.train, 64, shuffle=True), DataLoader(splits.val, 120))
    assert {"train_loss", "val_loss", "val_acc"} <= trainer.callback_metrics.keys()
    trainer.test(model, DataLoader(splits.test, 360), verbose=False)
    x, y = splits.test.tensors
    accuracy = (model(x).argmax(dim=1) == y).float().mean()
    assert accuracy > 0.95
    assert trainer.callback_metrics["test_acc"] == pytest.approx(accuracy)


def test_onecycle_spans_the_fit() -> None:
    model, trainer = Classifier(64, 10, learning_rate=1e-2), quiet_trainer(max_epochs=2, limit_train_batches=5)
    trainer.fit(model, DataLoader(digits(0).train, 64), DataLoader(digits(0).val, 120))
    (scheduler,) = (config.scheduler for config in trainer.lr_scheduler_configs)
    assert scheduler.total_steps == trainer.global_step == 10


def test_constant_has_no_scheduler() -> None:
    model, trainer = Classifier(64, 10, schedule="constant"), quiet_trainer(max_steps=2)
    trainer.fit(model, DataLoader(digits(0).train, 64), DataLoader(digits(0).val, 120))
    assert trainer.lr_scheduler_configs == []


def test_onecycle_needs_an_end() -> None:
    model, trainer = Classifier(64, 10), quiet_trainer(max_epochs=-1)
    with pytest.raises(ValueError, match="max_epochs or max_steps"):
        trainer.fit(model, DataLoader(digits(0).train, 64), DataLoader(digits(0).val, 120))


def test_unknown_schedule_names_the_known() -> None:
    with pytest.raises(ValueError, match="'step'; allowed: constant, onecycle"):
        Classifier(64, 10, schedule="step")


def test_a_checkpoint_loads_without_arguments(tmp_path: object) -> None:
    model, trainer = Classifier(64, 10, hidden=[32, 16]), quiet_trainer(max_steps=1)
    trainer.fit(model, DataLoader(digits(0).train, 64), DataLoader(digits(0).val, 120))
    trainer.save_checkpoint(f"{tmp_path}/last.ckpt")
    loaded = Classifier.load_from_checkpoint(f"{tmp_path}/last.ckpt", weights_only=True)
    assert [m.out_features for m in loaded.trunk if hasattr(m, "out_features")] == [32, 16]


def test_it_can_be_queried_by_what_needs_an_embedding() -> None:
    model, x = Classifier(4, 3, hidden=(8, 5)), torch.randn(7, 4)
    outputs = model.infer((x, torch.zeros(7)))
    torch.testing.assert_close(outputs.logits, model(x))
    assert outputs.embedding is not None
    torch.testing.assert_close(model.head(outputs.embedding), model(x))
