"""A frozen trunk's activations: made once a record, trained and scored from, and the same run as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning import Budget
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.contrib import Thaw
from al_lightning.errors import ActiveLearningError, UnsupportedModel
from al_lightning.fit.plan import snapshot
from al_lightning.query import BADGE, BALD
from al_lightning.round_size import Listed
from al_lightning.run.run import Run
from al_lightning.scoring import Outputs
from tests.helpers import CLASSES, WIDTH, ByHand, Records, blobs, learner, pool_of, quiet

TRUNK, HEAD = 2 * WIDTH * 32 + 2 * 32 * 32, 2 * 32 * CLASSES
"""FLOPs of a record forward."""


class Trunk(nn.Sequential):
    """Counts the records that go through it."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(WIDTH, 32), nn.BatchNorm1d(32), nn.Dropout(dropout), nn.ReLU(), nn.Linear(32, 32)
        )
        self.records = 0

    def forward(self, x: Tensor) -> Tensor:
        self.records += len(x)
        return super().forward(x)


class Split(L.LightningModule):
    """A trunk and a head, with dropout in the head; it keeps every input it was trained on."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.batches: list[Tensor] = []
        self.trunk, self.net = Trunk(dropout), nn.Sequential(nn.Dropout(0.2), nn.Linear(32, CLASSES))
        self.passed: list[int] = []  # records through the trunk at the end of each fit

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.trunk(x))

    def infer(self, batch: Any) -> Outputs:
        embedding = self.trunk(batch[0])
        return Outputs(self.net(embedding), embedding)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.batches.append(x)
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_end(self) -> None:
        self.passed.append(self.trunk.records)


class Validated(Split):
    """It validates too."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())


def run(folder: Path, policy: WarmStart, model: Any = None, pool: Any = None, **more: Any) -> tuple[Any, Any]:
    if model is None:
        torch.manual_seed(0)
        model = Split()
    settings: dict[str, Any] = {"round_size": Listed([12, 6, 6, 6]), "fit": policy, **more}
    result = learner(folder, **settings).fit(model, datamodule=pool or pool_of(val=None))
    return result, model


def cached(kind: type[WarmStart] = WarmStart, **more: Any) -> WarmStart:
    return kind("keep", freeze=("trunk",), cached=True, **more)


def plain(kind: type[WarmStart] = WarmStart, **more: Any) -> WarmStart:
    return kind("keep", freeze=("trunk",), **more)


def close(a: Any, b: Any) -> None:
    for name, value in snapshot(a).items():
        torch.testing.assert_close(value, snapshot(b)[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("query", [None, BADGE(), BALD(passes=3)])
@pytest.mark.parametrize("more", [{}, {"stable": True}, {"kind": Thaw, "thaw": 2, "final": "previous"}], ids=str)
def test_it_is_the_same_run_as_without(tmp_path: Path, query: Any, more: dict[str, Any]) -> None:
    other = {} if query is None else {"query": query}
    (a, first), (b, second) = run(tmp_path / "a", cached(**more), **other), run(tmp_path / "b", plain(**more), **other)
    assert a.labelled.tolist() == b.labelled.tolist()
    assert len(a.labelled) == 30
    close(first, second)


def test_resume_with_a_stop_set_and_validation_is_the_same_run_too(tmp_path: Path) -> None:
    more: dict[str, Any] = {"mode": "resume", "freeze": ("trunk",)}

    def once(keep: bool) -> tuple[Any, Any]:
        torch.manual_seed(0)
        return run(tmp_path / str(keep), WarmStart(cached=keep, **more), Validated(), pool_of(), stop_set=9)

    (a, first), (b, second) = once(True), once(False)
    assert a.labelled.tolist() == b.labelled.tolist()
    assert [r.agreement for r in a.history] == [r.agreement for r in b.history]
    assert [r.metrics["val_acc"] for r in a.history] == [r.metrics["val_acc"] for r in b.history]
    assert a.bill.lines["validate"].flops == b.bill.lines["validate"].flops
    close(first, second)


def test_every_record_goes_through_the_trunk_once(tmp_path: Path) -> None:
    _, model = run(tmp_path, cached(), stop_set=5)
    first_fit = 2 * 12
    assert model.passed[0] == first_fit
    assert model.trunk.records == first_fit + 60  # labelled, candidates and stop set, in four rounds


def test_the_bill_falls_by_what_the_trunk_would_have_taken(tmp_path: Path) -> None:
    (a, _), (b, _) = run(tmp_path / "a", cached()), run(tmp_path / "b", plain())
    full, frozen = a.bill.lines["train"], b.bill.lines["train"]
    assert full.records == frozen.records == 2 * (12 + 18 + 24 + 30)
    # The head forward and backward; nothing in front of it takes a gradient.
    trained = 2 * (18 + 24 + 30)
    assert frozen.flops - full.flops == pytest.approx(trained * TRUNK)
    scored = 48 + 42 + 36
    assert b.bill.lines["score"].flops == scored * (TRUNK + HEAD)
    assert a.bill.lines["score"].flops == scored * HEAD
    # Once per record, through the whole model; and the head once more for the records it was tried out with.
    assert a.bill.lines["embed"].flops == 60 * (TRUNK + HEAD) + 8 * HEAD
    assert "embed" not in b.bill.lines
    assert a.bill.flops < 0.6 * b.bill.flops


def test_training_the_trunk_again_makes_other_activations(tmp_path: Path) -> None:
    result, model = run(tmp_path, cached(Thaw, thaw=2, epochs=1))
    # cold (12, twice), frozen (18), thawed (24), frozen (30)
    assert model.passed == [24, 24 + 60, 24 + 60 + 24, 24 + 60 + 24 + 60]
    assert result.bill.lines["embed"].records == 8 + 2 * 60
    kept = {path.name.split("-")[1] for path in (tmp_path / "features").iterdir()}
    assert len(kept) == 2  # a file is removed when another takes its place


def test_dicts_are_served_and_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("al_lightning.features.activations.FILE_BYTES", 10 * 32 * 4)
    x, y = blobs().tensors
    items = [{"image": x[i].reshape(2, 2), "label": y[i]} for i in range(60)]

    class Dicts(Split):
        def infer(self, batch: Any) -> Outputs:
            return super().infer([batch["image"]])

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch["image"], batch["label"]), batch_idx)

    torch.manual_seed(0)
    pool = pool_of(Records(items), target_key="label", val=None)
    _, model = run(tmp_path, cached(), Dicts(), pool)
    assert model.trunk.records == 24 + 60
    files = [np.load(path, mmap_mode="r") for path in (tmp_path / "features").iterdir()]
    assert max(len(file) for file in files) == 10
    assert sorted(np.concatenate([file["id"] for file in files]).tolist()) == [*range(60)]


def test_a_killed_fit_goes_on_and_nothing_is_made_twice(tmp_path: Path) -> None:
    class Dies(Split):
        fits, fails = 0, True

        def on_train_epoch_end(self) -> None:
            self.fits += self.current_epoch == 0
            if self.fits == 3 and self.fails:
                raise KeyboardInterrupt

    torch.manual_seed(0)
    first = Dies()
    with pytest.raises(SystemExit):
        run(tmp_path / "a", cached(), first)
    assert "forward" not in vars(first.trunk)
    assert "training_step" not in vars(first)
    assert all(p.requires_grad for p in first.parameters())
    torch.manual_seed(1)
    second = Dies()
    second.fails = False
    result, _ = run(tmp_path / "a", cached(), second)
    whole, model = run(tmp_path / "b", cached())
    assert second.trunk.records == 0  # all of them are in the folder
    assert result.labelled.tolist() == whole.labelled.tolist()
    close(second, model)


@pytest.mark.parametrize("commits", range(1, 14))
def test_killed_before_any_commit_it_ends_as_one_that_was_not(
    tmp_path: Path, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The process died here."""

    commit, done = Run.commit, []

    def dies(self: Run, step: str, **effects: Any) -> None:
        done.append(step)
        if len(done) == commits:
            raise Killed
        commit(self, step, **effects)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "commit", dies)
        with pytest.raises(Killed):
            run(tmp_path / "a", cached(Thaw, thaw=2), stop_set=5)
    (a, first), (b, second) = (run(tmp_path / name, cached(Thaw, thaw=2), stop_set=5) for name in "ab")
    assert a.labelled.tolist() == b.labelled.tolist()
    assert [r.agreement for r in a.history] == [r.agreement for r in b.history]
    close(first, second)


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    sizes = {"round_size": Listed([12, 6, 6, 6])}

    run(tmp_path, cached(), stop=[Budget(labels=24)], **sizes)
    for path in (tmp_path / "features").iterdir():
        content = bytearray(path.read_bytes())
        content[-3] ^= 255
        path.write_bytes(content)
    torch.manual_seed(0)
    model = Split()
    with pytest.warns(UserWarning, match="stale or damaged"):
        result, _ = run(tmp_path, cached(), model, stop=[Budget(labels=30)])
    whole, other = run(tmp_path.with_name("whole"), cached(), stop=[Budget(labels=30)])
    assert model.trunk.records == 60
    assert result.labelled.tolist() == whole.labelled.tolist()
    close(model, other)


class _Noisy(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x + 0.01 * torch.randn(WIDTH), y


class _Twice(Split):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.trunk(x) + self.trunk(x))


class _Skips(Split):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + batch[0].square().mean()


class _Scales(Split):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.trunk(x / 4))

    def infer(self, batch: Any) -> Outputs:
        return Outputs(self(batch[0]))


class _Mixes(Split):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return super().training_step((0.9 * x + 0.1 * x.flip(0), y), batch_idx)


class _Augments(Split):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] + 0.1, batch[1]] if self.trainer.training else batch


class _ByHand(ByHand, Split):
    pass


class _Sees(Split):
    def infer(self, batch: Any) -> Outputs:
        return Outputs(self(batch[0]), batch[0])


class _Elsewhere(Split):
    def infer(self, batch: Any) -> Outputs:
        return Outputs(self.net(nn.Sequential.forward(self.trunk, batch[0])))


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`")
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (_Twice, "calls 'trunk' 2 times"),
        (_Skips, "needs the inputs beside"),
        (_Scales, "cannot be run from|answers otherwise|changes the inputs"),
        (_Mixes, "hands other inputs"),
        (_Augments, "hands other inputs"),
        (_ByHand, "optimises by hand"),
        (_Sees, "answers otherwise"),
        (_Elsewhere, "runs 0 times"),
    ],
)
def test_what_cannot_be_done_from_activations_is_said_and_done_as_ever(tmp_path: Path, model: Any, why: str) -> None:
    torch.manual_seed(0)
    first = model()
    with pytest.warns(UserWarning, match=rf"cached=True.*({why}).*cached=False") as said:
        a, _ = run(tmp_path / "a", cached(), first)
    assert sum("cached" in str(w.message) for w in said) == 1
    torch.manual_seed(0)
    second = model()
    b, _ = run(tmp_path / "b", plain(), second)
    assert a.labelled.tolist() == b.labelled.tolist()
    close(first, second)
    assert not (tmp_path / "a" / "features").exists()


def test_augmented_records_are_told(tmp_path: Path) -> None:
    pool = pool_of(_Noisy(*blobs().tensors), eval_view=blobs(), val=None)
    with pytest.warns(UserWarning, match=r"another one in training.*augmentation"):
        run(tmp_path, cached(), pool=pool)


def test_three_elements_are_told(tmp_path: Path) -> None:
    class Three(Split):
        def infer(self, batch: Any) -> Outputs:
            return super().infer([batch[0]])

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step([batch[0], batch[2]], batch_idx)

    x, y = blobs().tensors
    with pytest.warns(UserWarning, match="one input and a target"):
        run(tmp_path, cached(), Three(), pool_of(TensorDataset(x, x, y), val=None))


def test_dropout_in_the_trunk_is_drawn_where_a_strategy_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Split(dropout=0.3)
    result, _ = run(tmp_path, cached(), model, query=BALD(passes=3))
    scored = 48 + 42 + 36
    asked_first = 3 * 8  # a batch a round, to see whether it is an ensemble
    assert result.bill.lines["score"].flops == (3 * scored + asked_first) * (TRUNK + HEAD)
    assert result.bill.lines["embed"].records == 8 + 8 + (30 - 8)  # the labelled ones, for training


def test_what_the_module_keeps_is_not_touched_by_trying(tmp_path: Path) -> None:
    _, model = run(tmp_path, cached())
    steps = 2 * (2 + 3 + 3 + 4)
    assert len(model.batches) == steps
    assert model.batches[-1].shape[1] == 32
    assert model.training
    assert model.trunk.training


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "keep"},
        {"mode": "keep", "freeze": ("a", "b")},
        {"mode": "shrink_perturb", "freeze": ("trunk",)},
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cached=True.*freeze="):
        WarmStart(cached=True, **settings)


def test_a_part_that_is_no_submodule(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"'tronk'.*trunk"):
        run(tmp_path, WarmStart("keep", freeze=("tronk",), cached=True))


def test_a_loop_by_hand_has_no_folder() -> None:
    pool = pool_of(val=None)
    pool.label(range(12), {i: i % 3 for i in range(12)})
    with pytest.raises(ActiveLearningError, match=r"run folder.*ActiveLearner"):
        quiet(callbacks=[cached()]).fit(Split(), datamodule=pool)
