"""A run that says where it is, so that test_signals.py can interrupt it there: run as a program."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from al_lightning.query import Margin
from tests.helpers import Net, learner, net, pool_of


def main(folder: Path, point: str) -> None:
    def here(where: str) -> None:
        if where == point:
            (folder.parent / "here").touch()
            time.sleep(60)  # until the signal comes

    class Slow(Net):
        fits = 0

        def on_fit_start(self) -> None:
            self.fits += 1

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.fits == 2 and batch_idx == 1:
                here("fit")
            return super().training_step(batch, batch_idx)

    class SlowMargin(Margin):
        def payload(self, outputs: Any) -> Any:
            here("scoring")
            return super().payload(outputs)

    Slow.__qualname__, SlowMargin.__qualname__ = "Net", "Margin"  # the same configuration
    model = Slow()
    model.load_state_dict(net().state_dict())
    result = learner(folder, query=SlowMargin()).fit(model, datamodule=pool_of())
    (folder.parent / "result.json").write_text(json.dumps(result.labelled.tolist()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), sys.argv[2])
