"""A fit that is interrupted goes on from its last finished epoch, and ends as one that never was."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torchmetrics import MaxMetric

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.contrib import Dash, Replay
from al_lightning.cost.flops import FlopMeter
from al_lightning.errors import CannotWrite
from al_lightning.fit import fit_file, meter
from al_lightning.fit import resume as fit_resume
from al_lightning.oracles.file_oracle import FileOracle
from al_lightning.result import Result
from al_lightning.round_size import Listed
from al_lightning.run.durable import digest_of, sealed, write_aside
from al_lightning.run.store import read_run
from tests.helpers import CLASSES, NAMES, WIDTH, Net, fill, ids_of, learner, pool_of, quiet, truth

EPOCHS = 5
Point = tuple[int, int, int]
"""A fit of the process, counted from 1, an epoch and a batch of it, counted from 0."""


@pytest.fixture(autouse=True)
def every_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_resume, "SHARE", math.inf)
    monkeypatch.setattr(meter, "NOTE_SECONDS", 0.0)


class Interruption(Exception):
    """The machine was taken away."""


class Random(Net):
    """A module with everything whose state a fit depends on: dropout, BatchNorm, Adam, noise of three generators."""

    def __init__(
        self,
        dies: Point | None = None,
        *,
        schedule: str | None = None,
        leaves_out: bool = False,
        by_hand: bool = False,
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.noise = noise
        self.leaves_out, self.strict_loading, self.automatic_optimization = leaves_out, not leaves_out, not by_hand
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, CLASSES)
            )
        self.best = MaxMetric()
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.dies, self.schedule, self.fits = dies, schedule, 0
        self.trained: list[tuple[int, int]] = []

    def on_fit_start(self) -> None:
        self.fits += 1
        self.best.reset()
        self.seen.zero_()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.dies == (self.fits, self.current_epoch, batch_idx):
            raise Interruption
        self.trained.append((self.fits, self.current_epoch))
        x, y = batch
        self.seen += len(x)
        if self.noise:
            x = x + 0.1 * torch.randn_like(x) + 0.01 * random.random() + 0.01 * np.random.rand() + 1e-4 * self.seen
        loss = super().training_step((x, y), batch_idx)
        if not self.automatic_optimization:
            self._step_by_hand(loss)
        return loss

    def _step_by_hand(self, loss: Any) -> None:
        optimizer: Any = self.optimizers()
        self.manual_backward(loss)
        if self.seen % 16 == 0:  # whatever the epoch
            optimizer.step()
            optimizer.zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.leaves_out:
            del checkpoint["state_dict"]["net.0.weight"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.best(self.trainer.callback_metrics.get("val_acc", torch.zeros(())))
        self.log("best", self.best.compute())

    def configure_optimizers(self) -> Any:
        adam = torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.03)
        if self.schedule is None:
            return adam
        if self.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, patience=0)
            return {"optimizer": adam, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        if self.schedule == "cosine":
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, EPOCHS)
            return {"optimizer": adam, "lr_scheduler": {"scheduler": cosine, "interval": "epoch"}}
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 0.1, total_steps=steps)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class Tallies(Callback):
    """A user's callback that steers the fit by what it has counted, and begins anew with every fit."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.count = 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.count += 1
        for group in trainer.optimizers[0].param_groups:
            group["weight_decay"] = 1e-3 * self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


class Freezes(Callback):
    """Fine-tunes from the second epoch on."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            pl_module.net[0].requires_grad_(False)
            pl_module.net[1].eval()

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.net[0].requires_grad_(True)
        pl_module.net[1].train()


class Thaws(BaseFinetuning):
    """Lightning's own way to fine-tune: parameters come to the optimiser in the second epoch, and a restart knows."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)


class StopsOnce(Callback):
    """Asks for the end of the fit, once."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 3:
            trainer.should_stop = True


def run(
    folder: Path,
    dies: Point | None = None,
    *,
    trainer: dict[str, Any] | None = None,
    callbacks: Any = (),
    **kwargs: Any,
) -> tuple[Random, Result]:
    """One start of the program, its generators somewhere else each time."""
    L.seed_everything(random.randrange(1000), verbose=False)
    module = {name: kwargs.pop(name) for name in ("schedule", "leaves_out", "by_hand", "noise") if name in kwargs}
    loader = kwargs.pop("loader", dict)()
    model = Random(dies, **module)
    made = quiet(max_epochs=EPOCHS, callbacks=[make() for make in callbacks], **(trainer or {}))
    return model, learner(folder, made, **kwargs).fit(model, datamodule=pool_of(batch_size=4, loader=loader))


MEASURED = ("validation", "val_batches", "tuning", "flops_per_record", "flops_unknown", "logged_steps")
"""What is planned from."""


def outcome(folder: Path, result: Result) -> dict[str, Any]:
    """What must not depend on an interruption."""
    saved = read_run(folder)
    return {
        "labelled": result.labelled.tolist(),
        "weights": {name: value.tolist() for name, value in result.model.state_dict().items()},
        "rounds": [(r.epochs, r.metrics, r.forecast.keys()) for r in (*saved.rounds, saved.final) if r is not None],
        "records": {phase: result.bill.lines[phase].records for phase in ("train", "validate")},
        "measured": {name: saved.meta.get(name) for name in MEASURED},
    }


FRUGAL: dict[str, Any] = {
    "fit": WarmStart("keep", first_epochs=0.8, epochs=0.6, final="previous", final_epochs=0.6, rho=2.0, stable=True),
    "schedule": "cycle",
}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "frugal": FRUGAL,
    "one cycle": {"schedule": "cycle"},
    "cosine": {"schedule": "cosine"},
    "plateau": {"schedule": "plateau"},
    "accumulated": {"trainer": {"accumulate_grad_batches": 3}, "schedule": "cycle", **{"fit": FRUGAL["fit"]}},
    "steps": {"trainer": {"max_steps": 11}},
    "validated now and then": {"trainer": {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}},
    "validated often": {"trainer": {"val_check_interval": 0.5}},
    "validated over epochs": {"trainer": {"val_check_interval": 7, "check_val_every_n_epoch": None}},
    "plateau, validated late": {"trainer": {"check_val_every_n_epoch": 3}, "schedule": "plateau"},
    "callbacks": {
        "callbacks": [
            Tallies,
            lambda: EarlyStopping("val_loss", patience=2, min_delta=0.2),
            lambda: ModelCheckpoint(monitor="val_loss"),
        ],
        "trainer": {"enable_checkpointing": True, "min_epochs": 4},
    },
    "a stop put off": {"callbacks": [StopsOnce], "trainer": {"min_epochs": 4}},
    "fine-tuned": {"callbacks": [Freezes]},
    "thawed": {"callbacks": [Thaws]},
    "a partial checkpoint": {"leaves_out": True},
    "by hand": {"by_hand": True},
    "a generator": {"loader": lambda: {"generator": torch.Generator().manual_seed(1)}},
    "reloaded": {"trainer": {"reload_dataloaders_every_n_epochs": 2}},
    "replay": {"fit": Replay(replay=1.0, distill=0.5)},
    "dash": {"fit": Dash()},
    "part": {"fit": WarmStart("keep", epochs=0.7, final="initial", freeze=("net.0",))},
    "cached": {"fit": WarmStart("keep", freeze=("net.0",), cached=True, final="previous"), "noise": False},
}


LAST = {"frugal": 2, "accumulated": 2, "part": 2, "callbacks": 2, "steps": 1}
"""An epoch that every fit of the case has."""


@pytest.mark.parametrize("case", CASES)
def test_it_ends_bit_for_bit_as_one_that_was_not_interrupted(tmp_path: Path, case: str) -> None:
    _, whole = run(tmp_path / "whole", **CASES[case])
    epoch = LAST.get(case, 3)
    with pytest.raises(Interruption):
        run(tmp_path / "run", (2, epoch, 1), **CASES[case])
    with pytest.raises(Interruption):  # the round has gone on; now in the last fit
        run(tmp_path / "run", (2, epoch, 1), **CASES[case])
    assert (tmp_path / "run" / "scratch" / "fit.pt").exists()
    model, result = run(tmp_path / "run", **CASES[case])
    assert not (tmp_path / "run" / "scratch").exists()
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", whole)
    assert min(model.trained) == (1, epoch)
    assert result.bill.lines["lost"].records == 2 * 4


@pytest.mark.parametrize(
    "case",
    {
        "validated before alone": {"trainer": {"check_val_every_n_epoch": 3, "num_sanity_val_steps": 0}},
        "steps": CASES["steps"],
    }.items(),
    ids=itemgetter(0),
)
def test_what_a_first_fit_has_validated_is_known_as_it_goes_on(tmp_path: Path, case: tuple[str, Any]) -> None:
    settings = {**case[1], "round_size": Listed([12])}
    _, whole = run(tmp_path / "whole", **settings)
    with pytest.raises(Interruption):
        run(tmp_path / "run", (1, 3, 1), **settings)
    _, result = run(tmp_path / "run", **settings)
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", whole)
    assert read_run(tmp_path / "run").meta["validation"] == {"records": 9, "batch": 4}


@pytest.mark.parametrize("rho", [2.0, 2.8])
@pytest.mark.parametrize("fit", [1, 2])
def test_a_fit_that_is_lost_leaves_no_less_of_rho(
    tmp_path: Path, rho: float, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", math.inf)
    settings = {**FRUGAL, "fit": replace(FRUGAL["fit"], rho=rho)}
    _, whole = run(tmp_path / "whole", **settings)
    for kill in range(3):
        with pytest.raises(Interruption):
            run(tmp_path / "run", (1 if kill else fit, 2, 1), **settings)
    _, result = run(tmp_path / "run", **settings)
    assert result.bill.lines["lost"].records > 0
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", whole)


@pytest.mark.parametrize("case", ["frugal", "callbacks"])
def test_keeping_a_fit_changes_nothing_of_it(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, kept = run(tmp_path / "kept", **CASES[case])
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", math.inf)
    _, not_kept = run(tmp_path / "not", **CASES[case])
    assert outcome(tmp_path / "kept", kept) == outcome(tmp_path / "not", not_kept)


def test_one_that_stalls_is_aborted_where_it_would_have_been(tmp_path: Path) -> None:
    def start(name: str, dies: Point | None = None) -> Result:
        return run(
            tmp_path / name, dies, stop=[StallDetection("train_loss", reference=0.0, patience=4, max_restarts=1)]
        )[1]

    whole = start("whole")
    with pytest.raises(Interruption):
        start("run", (2, 3, 1))  # the second attempt, which stalls with its fourth epoch
    result = start("run")
    assert (result.reason.kind, result.reason.sentence) == ("gave_up", whole.reason.sentence)
    assert result.reason.numbers["values"] == whole.reason.numbers["values"]
    assert whole.bill.lines["aborted"].records == 2 * 4 * 12
    assert result.bill.lines["aborted"].records == 2 * 4 * 12
    assert result.bill.lines["lost"].records == 4


def test_the_bill_is_that_of_a_whole_run_and_what_was_lost(tmp_path: Path) -> None:
    _, whole = run(tmp_path / "whole")
    with pytest.raises(Interruption):
        run(tmp_path / "run", (2, 2, 2))  # two batches of the third epoch are lost
    with pytest.raises(Interruption):
        run(tmp_path / "run", (1, 4, 1))  # and, of the same fit, one of the fifth
    for _ in range(2):  # a finished run that is opened again bills nothing twice
        _, result = run(tmp_path / "run")
        lines, of = dict(result.bill.lines), whole.bill.lines
        lost = lines.pop("lost")
        assert lost.records == 3 * 4
        assert lost.flops == pytest.approx(3 * 4 * of["train"].flops / of["train"].records)
        assert lost.seconds > 0
        assert {phase: (x.records, x.flops) for phase, x in lines.items()} == {
            phase: (x.records, x.flops) for phase, x in of.items()
        }
    assert result.labelled.tolist() == whole.labelled.tolist()
    # The round that was interrupted stands at what it has cost.
    assert read_run(tmp_path / "run").rounds[1].cost["flops"] == pytest.approx(
        read_run(tmp_path / "whole").rounds[1].cost["flops"] + lost.flops
    )


def test_flops_that_could_not_be_counted_stay_unknown() -> None:
    before, now = FlopMeter(unknown={"train": "a custom kernel"}), FlopMeter()
    meter.Meter(now, "train").load_fit_state(meter.Meter(before, "train").fit_state())
    assert now.unknown == {"train": "a custom kernel"}


class Burns(Callback):
    """A counter of energy: a kilowatt-hour for every batch."""

    al_shared = True

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def kwh(self) -> float:
        return float(self.batches)

    def close(self) -> None:
        pass


def test_energy_of_the_part_that_goes_on_is_on_the_bill(tmp_path: Path) -> None:
    def start(name: str, dies: Point | None = None) -> Result:
        meter = Burns()
        return run(tmp_path / name, dies, callbacks=[lambda: meter], energy=meter)[1]

    whole = start("whole")
    with pytest.raises(Interruption):
        start("run", (2, 3, 1))
    assert start("run").bill.kwh == whole.bill.kwh


class Sleeps(Callback):
    """Makes an epoch take a tenth of a second."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        time.sleep(0.1)


def test_seconds_of_the_part_that_goes_on_are_on_the_bill(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"callbacks": [Sleeps], "round_size": Listed([12])}
    with pytest.raises(Interruption):
        run(tmp_path / "run", (1, 3, 1), **settings)
    _, result = run(tmp_path / "run", **settings)
    assert result.bill.lines["train"].seconds >= EPOCHS * 0.1
    assert read_run(tmp_path / "run").meta["train_rate"]["seconds"] >= EPOCHS * 0.1
    assert result.bill.lines["lost"].seconds >= 0.1


class Executes:
    """A pickle that would leave a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def save(kept: dict[str, Any], file: Path) -> None:
    write_aside(file, sealed(partial(torch.save, kept)))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def poison(file: Path) -> None:
    save({"format": 3, "key": Executes(file.parents[2] / "executed")}, file)


def of_another_fit(file: Path) -> None:
    save({**torch.load(file, weights_only=True), "key": "another"}, file)


def of_another_module(file: Path) -> None:
    kept = torch.load(file, weights_only=True)
    del kept["shared"]["weights"]["net.0.weight"]
    save(kept, file)


def of_another_recipe(file: Path) -> None:
    save({**torch.load(file, weights_only=True), "made_of": ["SGD"]}, file)


def of_a_file_elsewhere(file: Path) -> None:
    best = str(file.parents[2] / "executed"), "fit.pt", digest_of(file)
    save({**torch.load(file, weights_only=True), "best": list(best)}, file)


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "cannot be read"),
    "pickle": (poison, "cannot be read"),
    "another fit": (of_another_fit, "is of another fit"),
    "another module": (of_another_module, "Missing key"),
    "another recipe": (of_another_recipe, "have changed"),
    "a checkpoint elsewhere": (of_a_file_elsewhere, "which is in no ModelCheckpoint's folder"),
    "a bit": (flipped, "cannot be read"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read"),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_where_it_cannot_go_on_it_begins_again_and_says_so(tmp_path: Path, damage: str) -> None:
    fit = Replay(replay=1.0, distill=0.5)  # its sampler counts epochs
    _, whole = run(tmp_path / "whole", fit=fit)
    with pytest.raises(Interruption):
        run(tmp_path / "run", (2, 3, 1), fit=fit)
    act, said = DAMAGE[damage]
    act(tmp_path / "run" / "scratch" / "fit.pt")
    with pytest.warns(UserWarning, match=f"an interrupted fit begins again: .*{said}"):
        model, result = run(tmp_path / "run", fit=fit)
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", whole)
    assert (1, 0) in model.trained or (2, 0) in model.trained
    assert result.bill.lines["lost"].records == 3 * 12 + 4  # epochs of six new and six old records
    assert not (tmp_path / "executed").exists()


def test_what_people_correct_meanwhile_is_trained_from_the_beginning(tmp_path: Path) -> None:
    def start(name: str, dies: Point | None = None) -> tuple[Random, Result]:
        oracle = FileOracle(classes=NAMES)
        return run(tmp_path / name, dies, oracle=oracle, round_size=Listed([12]))

    def answer(name: str, who: Callable[[int], str]) -> int:
        fill(tmp_path / name / "queries" / "round-001.csv", who)
        return ids_of(tmp_path / name / "queries" / "round-001.csv")[0]

    def corrected(id: int) -> str:
        return truth(id) if id != first else truth(id + 1)

    for name in ("run", "whole"):
        start(name)
        first = answer(name, truth)
    with pytest.raises(Interruption):
        start("run", (1, 3, 1))
    answer("run", corrected)
    model, result = start("run")
    assert (1, 0) in model.trained
    assert result.bill.lines["lost"].records == 3 * 12 + 4
    answer("whole", corrected)
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", start("whole")[1])


class Unreadable(Callback):
    """Keeps what is only read back by executing it."""

    def state_dict(self) -> dict[str, Any]:
        return {"array": np.zeros(2)}


class Broken(Callback):
    """Cannot be asked for its state."""

    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("no state outside of a checkpoint")


@pytest.mark.parametrize(("callback", "said"), [(Unreadable, "numpy"), (Broken, "no state outside")])
def test_a_state_that_cannot_be_kept_is_said_and_the_fit_begins_again(
    tmp_path: Path, callback: type[Callback], said: str
) -> None:
    _, whole = run(tmp_path / "whole")
    with pytest.warns(UserWarning, match=f"begins again if it is interrupted: .*{said}"), pytest.raises(Interruption):
        run(tmp_path / "run", (2, 3, 1), callbacks=[callback])
    assert not (tmp_path / "run" / "scratch" / "fit.pt").exists()
    with pytest.warns(UserWarning, match=said):
        model, result = run(tmp_path / "run", callbacks=[callback])
    assert outcome(tmp_path / "run", result) == outcome(tmp_path / "whole", whole)
    assert (1, 0) in model.trained


def test_a_disk_without_room_for_it_stops_no_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: Any) -> None:
        raise CannotWrite(path, OSError(28, "No space left on device"))

    monkeypatch.setattr(fit_file, "write_aside", full)
    with pytest.warns(UserWarning, match=r"begins again if it is interrupted: .*No space left"):
        _, result = run(tmp_path / "run")
    assert len(result.labelled) == 24


def test_epochs_of_milliseconds_are_not_kept_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_resume, "SAVE_SECONDS", 5.0)
    with pytest.raises(Interruption):
        run(tmp_path / "run", (2, 3, 1))
    assert not (tmp_path / "run" / "scratch").exists()
    model, result = run(tmp_path / "run")
    assert (1, 0) in model.trained
    assert result.bill.lines["lost"].records == 3 * 18 + 4


def test_keeping_takes_no_more_than_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Path] = []
    write = fit_file.write_aside

    def slow(path: Path, action: Any) -> None:
        kept.append(path)
        time.sleep(0.2)
        write(path, action)

    monkeypatch.setattr(fit_file, "write_aside", slow)
    monkeypatch.setattr(fit_resume, "SHARE", 0.05)
    run(tmp_path / "run")
    assert len(kept) == 3  # once a fit of five epochs: the next time would be four seconds later


def test_the_best_weights_of_then_outlive_the_part_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Judged(Random):
        """Is judged by the epoch alone; better than ever in its fourth, the first time."""

        again = False

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            best = 9.0 if self.again else 0.0
            self.log("judged", torch.tensor([1.0, 3.0, 2.0, best, 9.0][self.current_epoch]))

    def start(dies: Point | None, again: bool) -> Result:
        model = Judged(dies)
        model.again = again
        best = ModelCheckpoint(monitor="judged", filename="best")
        trainer = quiet(max_epochs=EPOCHS, enable_checkpointing=True, callbacks=[best])
        made = learner(tmp_path / "run", trainer, round_size=Listed([12]))
        return made.fit(model, datamodule=pool_of(batch_size=4))

    Judged.__qualname__ = "Random"  # the same configuration
    # Kept after two epochs, not after the fourth, which puts other weights into the file of the best.
    due = iter([False, True, False, False, False, False])
    monkeypatch.setattr(fit_resume.FitResume, "_due", lambda self: next(due))
    with pytest.raises(Interruption):
        start((1, 4, 0), False)
    lost = torch.load(tmp_path / "run" / "round-001" / "checkpoints" / "best.ckpt", weights_only=True)
    assert lost["epoch"] == 3
    result = start(None, True)
    assert result.history[-1].metrics["judged"] == 1.0
    kept = torch.load(result.best_model_path, weights_only=True)
    assert kept["epoch"] == 0
    assert result.model.state_dict()["net.0.weight"].equal(kept["state_dict"]["net.0.weight"])
