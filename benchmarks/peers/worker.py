"""One strategy of one library in a process of its own. Standard library and NumPy only: peers run it too.

``serve`` loads the arrays, says that it is ready and then answers every line it reads with one timed call, so that
whoever asks can let libraries take turns. At the end of input it tells what it picked and how much memory it took.
"""

from __future__ import annotations

import inspect
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Make = Callable[..., Any]
"""Arrays by name, and ``size`` -> what is timed: a call that returns ``(size,)`` positions or ids."""

MEMORY_LIMIT = 12 << 30
"""Bytes of address space over what is taken before the first call: a strategy that wants more fails alone."""


def serve(strategies: Mapping[str, Make]) -> None:
    """Be the worker that the command line asks for: ``STRATEGY ARRAYS SIZE WARM_ARRAYS WARM_SIZE``."""
    name, *problem, warm, warm_size = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print does not get among the replies
    make = strategies[name]
    picked: Any = None
    try:
        load(make, warm, int(warm_size))()  # what is imported late, and scratch space of threads, is nobody's memory
        call = load(make, *problem)
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MEMORY_LIMIT,) * 2)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
        print(json.dumps({"ready": True}), file=replies)
        for _ in sys.stdin:
            picked = None
            start = time.perf_counter()
            picked = call()
            print(json.dumps({"seconds": time.perf_counter() - start}), file=replies)
        found = {
            "memory": max(0, _status("VmHWM") - before),
            "picked": np.asarray(picked).astype(int).tolist(),
            "call": (make.__doc__ or "").strip().rstrip("."),
        }
        print(json.dumps(found), file=replies)
    except (Exception, MemoryError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), file=replies)


def load(make: Make, folder: str | Path, size: str | int) -> Any:
    """What ``make`` says of the arrays that it names."""
    names = [name for name in inspect.signature(make).parameters if name != "size"]
    return make(**{name: np.load(Path(folder) / f"{name}.npy") for name in names}, size=int(size))


def _status(key: str) -> int:
    """Bytes that the kernel counts for this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"the kernel reports no {key}; memory is measured on Linux only.")
