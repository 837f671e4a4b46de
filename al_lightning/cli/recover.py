"""``al-lightning recover``: rebuild a run whose folder was damaged."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from al_lightning.cli.say import say, say_error
from al_lightning.errors import ActiveLearningError
from al_lightning.oracles.oracle import SKIP
from al_lightning.run import recover as recovery


def recover(arguments: Sequence[str]) -> int:
    """Rebuild what can be rebuilt, and say what could not.

    Args:
        arguments: of the command line, the verb excluded.

    Returns:
        Exit code: 0, or 1 for an error.
    """
    does = "Rebuild a run whose folder was damaged, and say what could not be restored."
    parser = argparse.ArgumentParser(prog="al-lightning recover", description=does)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument("-o", "--out", metavar="NEWDIR", type=Path, help="a new folder; default: in place")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        found = recovery.recover(options.run, options.out)
    except ActiveLearningError as error:
        say_error(error)
        return 1
    for sentence in found.done:
        say(console, f"{sentence}.")
    for sentence in found.lost:
        say(console, f"not restored: {sentence}.")
    labels = sum(value is not SKIP for value in found.saved.answers.values())
    whole = "" if found.done or found.lost else "nothing was damaged; "
    say(console, f"{whole}{found.folder} has {labels} labels, and goes on with the same command as ever.")
    return 0
