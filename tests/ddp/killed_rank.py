"""A run on two processes, one of which is killed; started as a program by test_killed_rank.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from tests.helpers import Net, learner, pool_of, quiet


class Killed(Net):
    """Kills its own process, if it is the given rank's, in the second round: in a fit or while it scores."""

    def __init__(self, rank: int, phase: str) -> None:
        super().__init__()
        self.rank, self.phase = rank, phase
        self.fits = 0

    def on_fit_start(self) -> None:
        self.fits += 1

    def on_train_batch_start(self, *args: Any) -> None:
        self._kill("fit")

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
    found = {}
    for name in ("killed", "whole"):
        L.seed_everything(0, verbose=False)
        result = learner(root / name, quiet(strategy="ddp", devices=2)).fit(Killed(rank, phase), datamodule=pool_of())
        found[name] = result.labelled.tolist()
        rank = -1
    if os.environ.get("LOCAL_RANK", "0") == "0":
        (root / "report.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
