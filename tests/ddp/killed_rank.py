"""A run on two processes, one of which is killed; started as a program by test_killed_rank.py."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.fit import resume as fit_resume
from tests.helpers import Net, learner, pool_of, quiet


class Killed(Net):
    """Kills its own process, if it is the given rank's, in the second round: in a fit, a later epoch, or scoring."""

    def __init__(self, rank: int, phase: str) -> None:
        super().__init__()
        self.rank, self.phase = rank, phase
        self.fits = 0
        self.trained: list[int] = []

    def on_fit_start(self) -> None:
        self.fits += 1

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._kill("fit")
        if self.current_epoch == 2:
            self._kill("epoch")
        if batch_idx == 0:
            self.trained.append(self.current_epoch)

    def forward(self, x: Any) -> Any:
        if self.trainer.predicting:
            self._kill("scoring")
        return super().forward(x)

    def _kill(self, phase: str) -> None:
        if (phase, self.fits, self.global_rank) == (self.phase, 2, self.rank):
            os.kill(os.getpid(), signal.SIGKILL)


def main(root: Path, rank: int, phase: str) -> None:
    """Run to the end, and a second run that nobody killed if the first has ended; write what both came to."""
    warnings.simplefilter("ignore")
    fit_resume.SAVE_SECONDS, fit_resume.SHARE = 0.0, math.inf  # every epoch is kept, as in fits that take longer
    found: dict[str, Any] = {}
    trained: dict[str, list[int]] = {}
    for name in ("killed", "whole"):
        L.seed_everything(0, verbose=False)
        model = Killed(rank, phase)
        trainer = quiet(strategy="ddp", devices=2, max_epochs=3)
        settings = {"fit": WarmStart("keep", stable=True), "preflight": False}  # its fits are not counted
        result = learner(root / name, trainer, **settings).fit(model, datamodule=pool_of())
        found[name] = {"ids": result.labelled.tolist(), "weights": model.net[0].weight.tolist()}
        trained[name] = model.trained
        rank = -1
    found["trained"] = trained
    if os.environ.get("LOCAL_RANK", "0") == "0":
        (root / "report.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
