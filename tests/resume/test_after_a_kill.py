"""What is delivered after a kill is what a run delivers that was never killed; what the kill cost stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from al_lightning import Budget, WarmStart
from al_lightning.fit import meter
from al_lightning.oracles import FileOracle
from al_lightning.result import Result
from al_lightning.round_size import Listed
from al_lightning.run.store import Change, Store, read_run
from tests.helpers import NAMES, Net, fill, learner, net, pool_of, quiet

KEEP = WarmStart("keep", epochs=1)
SHORT = WarmStart("keep", epochs=0.25, final="previous", final_epochs=0.25, rho=3.0)


class Killed(BaseException):
    """The process is gone."""


def same_weights(a: Result, b: Result) -> bool:
    return all(torch.equal(value, b.model.state_dict()[name]) for name, value in a.model.state_dict().items())


@pytest.fixture
def die_before_commit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Die where all files of a step are written, and its commit is not."""

    def arm(step: str) -> None:
        def commit(self: Store, change: Change) -> None:
            if change.record is not None and change.step == step:
                raise Killed
            whole(self, change)

        whole = Store.commit
        monkeypatch.setattr(Store, "commit", commit)

    return arm


def corrected_run(folder: Path) -> Result:
    made = learner(
        folder, fit=KEEP, oracle=FileOracle(classes=NAMES), round_size=Listed([12, 6]), stop=[Budget(labels=18)]
    )
    return made.fit(net(), datamodule=pool_of())


def finished_and_corrected(folder: Path) -> None:
    for round in (1, 2):
        corrected_run(folder)
        fill(folder / "queries" / f"round-{round:03d}.csv")
    corrected_run(folder)
    fill(folder / "queries" / "round-001.csv", lambda i: "a")


def test_a_retraining_that_is_killed_starts_from_what_was_committed(
    tmp_path: Path, die_before_commit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "killed"):
        finished_and_corrected(tmp_path / name)
    whole = corrected_run(tmp_path / "whole")
    held = read_run(tmp_path / "killed").files["weights"]
    before = (tmp_path / "killed" / held).read_bytes()
    with monkeypatch.context():
        die_before_commit("decide")
        with pytest.raises(Killed):
            corrected_run(tmp_path / "killed")
    monkeypatch.undo()
    assert (tmp_path / "killed" / held).read_bytes() == before, "a commit holds it"
    again = corrected_run(tmp_path / "killed")
    assert again.bill.flops > 0
    assert same_weights(whole, again)
    assert not (tmp_path / "killed" / held).exists(), "and then another took its place"


class Dies(Net):
    """Dies in its second fit."""

    fits, at = 0, 2

    def on_fit_start(self) -> None:
        self.fits += 1

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.fits == self.at and batch_idx == 1:
            raise Killed
        return super().training_step(batch, batch_idx)


def kept_rho(folder: Path, at: int | None = None) -> Result:
    model = Dies()
    model.load_state_dict(net().state_dict())
    model.at = at or -1
    trainer = quiet(max_epochs=8)
    return learner(folder, trainer, fit=SHORT).fit(model, datamodule=pool_of())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_a_kill_cost_does_not_shorten_the_delivered_fit(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "NOTE_SECONDS", 0.0)
    whole = kept_rho(tmp_path / "whole")
    for _ in range(3):
        with pytest.raises(Killed):
            kept_rho(tmp_path / "killed", at)
        at = 1  # the fit that was interrupted is the first of the next process
    result = kept_rho(tmp_path / "killed")
    lost = result.bill.lines["lost"]
    assert lost.records > 0
    assert result.bill.records_trained == whole.bill.records_trained + lost.records
    assert result.bill.undisturbed.rho == pytest.approx(whole.bill.rho)
    assert result.bill.rho > whole.bill.rho
    assert [r.epochs for r in result.history] == [r.epochs for r in whole.history]
    assert same_weights(whole, result)
