"""The command ``al-lightning``: every command has a verb."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

VERBS = ("run", "compare", "plan", "status", "label", "approve", "export", "report", "doubt", "recover")
USAGE = """\
usage: al-lightning VERB [option=value ...]

verbs:
  run       one active-learning run; with -m and several values of an option, a sweep
  compare   the same labels, model and recipe in several ways, as a table and curves
  plan      what a run would cost, its cheapest rounds, and whether active learning is worth it
  status    where a run stands, and what it waits for
  label     bring a file of answers into a run, without training
  approve   let a query that waits for approval go out
  export    the labelled records of a run, with where each label is from
  report    what runs came to, as one HTML page and pictures
  doubt     the labels of a run that a model contradicts, as a file to answer again
  recover   rebuild a run whose folder was damaged, and say what could not be restored

al-lightning VERB --help lists the options of a verb; al-lightning --version says the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Args:
        arguments: of the command line, the program's name excluded; default: those of this process.

    Returns:
        Exit code: 0, 1 for an error, 2 for a command that does not exist, 130 after Ctrl-C, 143
        after SIGTERM.
    """
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb == "--version":
        print(f"al-lightning {version('al_lightning')}")
        return 0
    if verb not in VERBS:
        print(f"al-lightning: no verb {verb!r}; allowed: {', '.join(VERBS)}\n\n{USAGE}", file=sys.stderr)
        return 2
    try:
        if verb == "run":
            from al_lightning.cli.run import run

            return run(rest)
        if verb == "compare":
            from al_lightning.cli.compare import compare

            return compare(rest)
        if verb == "plan":
            from al_lightning.cli.plan import plan

            return plan(rest)
        if verb == "report":
            from al_lightning.cli.report import report

            return report(rest)
        if verb == "doubt":
            from al_lightning.cli.doubt import doubt

            return doubt(rest)
        if verb == "recover":
            from al_lightning.cli.recover import recover

            return recover(rest)
        from al_lightning.cli.people import people

        return people(verb, rest)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
