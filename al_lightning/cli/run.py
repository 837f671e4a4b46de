"""``al-lightning run``: one run, or with ``-m`` a sweep of them, composed by Hydra."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import hydra
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console

from al_lightning.callbacks.loggers import closing
from al_lightning.cli.build import Parts, be_quiet, build, evaluate, register_resolvers
from al_lightning.cli.check import BadOption
from al_lightning.cli.paths import config_dir
from al_lightning.cli.progress import RoundsBar
from al_lightning.cli.say import say_error
from al_lightning.cli.secrets import check_options
from al_lightning.errors import ActiveLearningError, Interrupted
from al_lightning.result import Result
from al_lightning.run.interrupts import stoppable


def run(arguments: Sequence[str]) -> int:
    """Compose the configuration and run.

    Args:
        arguments: overrides and Hydra's own flags, the verb excluded.

    Returns:
        Exit code. Hydra itself exits where the configuration cannot be composed.
    """
    register_resolvers()
    try:
        check_options(arguments)
    except BadOption as error:
        say_error(error)
        return 1
    command = sys.argv

    def task(cfg: DictConfig) -> None:
        sys.argv = command  # Lightning starts the other processes of a job with this command line
        code = run_one(cfg)
        if code:
            raise SystemExit(code)

    sys.argv = [command[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="run")(task)()
    finally:
        sys.argv = command
    return 0


def run_one(cfg: DictConfig) -> int:
    """Run what a configuration says, and tell how it went.

    Args:
        cfg: a composed ``conf/run.yaml``.

    Returns:
        Exit code: 0, 1 for an error of this library, 130 after Ctrl-C, 143 after SIGTERM.
    """
    be_quiet()
    console = Console(quiet=getattr(rank_zero_only, "rank", 0) != 0)
    try:
        with stoppable(cfg.run_dir), ExitStack() as stack:
            with RoundsBar(console) as bar:
                parts = build(cfg, lambda record, model: bar.update(record, target=cfg.labels))
                stack.enter_context(closing(parts.loggers))
                result = parts.fit()
            _report(console, parts, result)
    except ActiveLearningError as error:
        say_error(error)
        return 1
    except Interrupted as stop:
        return int(stop.code)  # type: ignore[arg-type]
    return 0


def _report(console: Console, parts: Parts, result: Result) -> None:
    metrics = {} if result.waits else evaluate(parts)
    lines = [str(result), *(f"{name}: {value:.4f}" for name, value in metrics.items())]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
