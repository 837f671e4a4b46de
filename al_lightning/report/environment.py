"""Where numbers were measured."""

from __future__ import annotations

import os
import platform
from typing import Any

import lightning
import torch


def environment() -> dict[str, Any]:
    """Return what measured numbers depend on, as JSON-able data."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
