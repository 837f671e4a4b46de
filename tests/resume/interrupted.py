"""Interrupts runs by signals at chosen points and lets another process go on; run as a program by test_signals.py.

Imports once, and forks before any work. A child leaves through the interpreter's own exit, as a program would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from al_lightning.query import Margin
from tests.helpers import Net, learner, net, pool_of

CASES = [(number, point) for number in (signal.SIGINT, signal.SIGTERM) for point in ("fit", "scoring")]


def run(folder: Path, point: str | None) -> None:
    """One start of the program, which waits for a signal at the point."""

    def here(where: str) -> None:
        if where == point:
            (folder.parent / "here").touch()
            for _ in range(6000):  # in short naps: where another thread is told of a signal, a long one goes on
                time.sleep(0.01)

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


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    root, report = Path(sys.argv[1]), {}
    for number, point in [(None, None), *CASES]:
        name = f"{point} {number.name}" if number else "whole"
        folder = root / name.replace(" ", "-") / "run"
        folder.parent.mkdir()
        report[name] = {"folder": str(folder)}
        for start in (point, None) if point else (None,):
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(folder.parent / "stderr", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
                run(folder, start)
                sys.exit(0)
            while start and not (folder.parent / "here").exists():
                time.sleep(0.01)
            if start:
                time.sleep(0.2)
                os.kill(pid, number)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if start:
                early = (folder.parent / "result.json").exists()
                report[name] |= {"code": code, "said": (folder.parent / "stderr").read_text(), "early": early}
        report[name]["labelled"] = json.loads((folder.parent / "result.json").read_text())
    (root / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
