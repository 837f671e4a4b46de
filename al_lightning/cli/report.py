"""``al-lightning report``: what runs came to, as one HTML page and pictures."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from al_lightning.cli.check import BadOption
from al_lightning.cli.say import no_collection, say, say_error
from al_lightning.errors import ActiveLearningError
from al_lightning.report.page import write_report

if TYPE_CHECKING:
    from al_lightning.pool.datamodule import PoolDataModule


def report(arguments: Sequence[str]) -> int:
    """Write the report, and say where it is.

    Args:
        arguments: of the command line, the verb excluded.

    Returns:
        Exit code: 0, or 1 for an error.
    """
    console = Console()
    options = _parser().parse_args(arguments)
    out = options.out or (options.runs[0] / "report" if len(options.runs) == 1 else Path("report"))
    try:
        with no_collection():
            pool = _pool(options.records, options.config_dir) if options.records else None
            made = write_report(options.runs, out, metric=options.metric, pool=pool, show=_show(options.shape))
    except ActiveLearningError as error:
        say_error(error)
        return 1
    for sentence in made.left_out:
        say(Console(stderr=True), f"left out: {sentence}")
    for path in (made.page, *made.pictures):
        say(console, str(path))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="al-lightning report",
        description="What runs came to, as one HTML page that needs no network, and as pictures. One run gets its "
        "whole story; several are compared, runs that differ in their seed alone as one line with a confidence band.",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folders, or folders of sweeps")
    parser.add_argument("-o", "--out", metavar="FOLDER", type=Path, help="default: RUN/report; for several, report")
    parser.add_argument("--metric", metavar="NAME", help="what counts as accuracy; default: the first that is no loss")
    parser.add_argument(
        "--records",
        metavar="OPTION",
        nargs="+",
        help="show records of one run: the options of al-lightning run that give its data, data=digits seed=3. Only "
        "your own configurations are read, never the run folder's",
    )
    parser.add_argument("--config-dir", metavar="FOLDER", type=Path, help="of your configurations, for --records")
    parser.add_argument("--shape", metavar="ROWSxCOLUMNS", help="of records that are pixels in a line")
    return parser


def _pool(overrides: Sequence[str], config_dir: Path | None) -> PoolDataModule:
    from hydra.errors import HydraException

    from al_lightning.cli.build import be_quiet, compose_config, part

    be_quiet()
    try:
        pool: PoolDataModule = part(compose_config("run", overrides, config_dir), "data")
    except HydraException as error:
        raise BadOption(str(error)) from error
    return pool


def _show(shape: str | None) -> Callable[[Any], Any] | None:
    if shape is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", shape)
    if found is None:
        raise BadOption(f"--shape {shape}: rows and columns of a picture, for example 28x28.")
    size = int(found[1]), int(found[2])

    def show(item: Any) -> Any:
        if getattr(item, "shape", None) != (size[0] * size[1],):
            shown = tuple(getattr(item, "shape", ())) or type(item).__name__
            raise BadOption(f"--shape {shape}: records are {shown}, not {size[0] * size[1]} numbers in a line.")
        return item.reshape(size)

    return show
