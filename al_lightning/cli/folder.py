"""A folder of the command that cannot be made: one error, before Hydra writes its own files there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from al_lightning.cli.say import say_error
from al_lightning.errors import CannotWrite
from al_lightning.run.durable import make_folder, writing


class CheckFolder(Callback):
    """Makes the folder of a run or of a sweep as Hydra begins, and ends the command where that cannot be."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder of a run."""
        HydraConfig.instance().set_config(config)  # its name may be made of the job's overrides; Hydra does so later
        _make(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder of a sweep."""
        _make(Path(config.hydra.sweep.dir))


def _make(folder: Path) -> None:
    try:
        with writing(folder):
            make_folder(folder)
            if not os.access(folder, os.W_OK):
                raise PermissionError("it is read-only")
    except CannotWrite as error:
        say_error(error)
        raise SystemExit(1) from None
