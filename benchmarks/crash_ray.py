"""Runs whose pool is scored on Ray, for ``python -m benchmarks.crash``: a cluster of this machine's, workers of a core.

*Ray* is killed like the other kinds: its driver, and with it the cluster it started. In *Ray workers* the driver is
left alone, and ``kill -9`` goes to workers that are in the middle of a shard. Both end as the run that nobody killed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from al_lightning.scoring.ray.scorer import RayScorer
from benchmarks.crash_parts import KILLED, Part, learn

_READS = 0.02
"""Seconds that a worker takes to read a record: a shard is not over before anybody can kill it."""


class Noted(Dataset[Any]):
    """Notes, in the run's folder, which process is reading on a worker."""

    def __init__(self, data: Dataset[Any], folder: Path) -> None:
        self.data, self.folder = data, folder

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Any:
        if os.environ.get("RAY_JOB_ID"):
            (self.folder / "reading").write_text(str(os.getpid()))
            time.sleep(_READS)
        return self.data[i]


def scored_on_ray(folder: Path) -> None:
    """What a user's program does."""
    learn(folder, wrapped=lambda data: Noted(data, folder), scoring=RayScorer(workers=2, shard_size=16))


def kills_workers(folder: Path, rng: random.Random) -> None:
    """Kill the worker that reads, a second or so after the one before."""
    reading = folder / "reading"
    while True:
        time.sleep(rng.uniform(0.05, 2.0))
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            if time.time() - reading.stat().st_mtime > _READS:
                continue
            process = os.pidfd_open(int(reading.read_text()))
            signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
            with (folder / KILLED).open("a") as file:
                file.write("worker\n")


PARTS = {
    "Ray": Part(program=scored_on_ray, kills=15),
    "Ray workers": Part(program=scored_on_ray, kills=15, meanwhile=kills_workers, left_alone=True),
}
