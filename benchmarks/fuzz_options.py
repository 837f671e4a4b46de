"""Wrong values for every option of ``al-lightning run``, through its composition: each must be refused by name.

    python -m benchmarks.fuzz_options

Options are those of every file under ``conf/``, and arguments of the library's parts that no file sets. Those of the
Trainer and of loggers are other libraries' to refuse. A refusal has to name the option, the value and what is allowed.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from al_lightning.cli.build import be_quiet, build, compose_config, register_resolvers
from al_lightning.cli.paths import config_dir
from al_lightning.errors import ActiveLearningError
from benchmarks.common import claim, write_results

ALLOWED = re.compile(r"allowed|at least|or more|above|below|between|a share|a number|must|0 to 1|of ", re.IGNORECASE)
_NUMBER = {"text": "abc", "list": "[1,2]", "part": "{a: 1}", "truth": "true", "negative": "-1", "nan": "nan"}
_KINDS: dict[type, dict[str, str]] = {
    bool: {"text": "abc", "number": "7", "list": "[true]", "part": "{a: 1}"},
    int: {**_NUMBER, "fraction": "1.5"},
    float: _NUMBER,
    str: {"number": "7", "truth": "true", "list": "[a]", "part": "{a: 1}"},
    list: {"text": "abc", "number": "7", "part": "{a: 1}", "negative": "[-1]", "texts": "[abc]"},
}
"""Values that are wrong for an option, by what it holds; of a list, of numbers."""
_NAMES = {"mode", "schedule", "kind", "remedy"}
"""Texts that are one of a few."""


_RIGHT = {
    ("freeze", "[abc]"),  # whether the model has such parameters is seen when there is a model
    ("freeze", "[no_such]"),
    ("address", "abc"),  # whether a cluster is there is seen when it is asked
    ("reference", "7"),  # a level of any metric
    ("agreement", "-1"),  # a kappa
}
"""Values that are not wrong as such."""


class Option(NamedTuple):
    """An option: what is chosen so that it is there, its name, and what it holds."""

    choice: str
    name: str
    holds: Any
    given: bool


def options() -> Iterator[Option]:
    """Every option of every file, and every argument of this library's parts that no file sets."""
    conf = config_dir()
    for name in ("labels", "seed", "stop_set", "threads"):
        yield Option("seed=0", name, 1, True)
    for path in sorted(conf.glob("*/*.yaml")):
        group, choice = path.parent.name, f"{path.parent.name}={path.stem}"
        if group in ("experiment", "trainer", "logger"):
            continue
        part = compose_config("run", [choice]).get(group)
        if part:
            yield from _leaves(OmegaConf.to_container(part, resolve=False), choice, group)


def _leaves(node: Any, choice: str, name: str) -> Iterator[Option]:
    if isinstance(node, dict):
        for key, value in node.items():
            if not key.startswith("_"):
                yield from _leaves(value, choice, f"{name}.{key}")
        yield from _defaults(node, choice, name)
    elif isinstance(node, list) and any(isinstance(one, dict) for one in node):
        return  # the parts in a list are other files' parts; Hydra overrides the list as a whole
    elif node is not None:
        yield Option(choice, name, 1 if isinstance(node, str) and node.startswith("${") else node, True)


def _defaults(node: dict[str, Any], choice: str, name: str) -> Iterator[Option]:
    if not str(node.get("_target_", "")).startswith("al_lightning"):
        return
    for parameter in inspect.signature(get_object(node["_target_"])).parameters.values():
        value = parameter.default
        value = list(value) if isinstance(value, tuple) else value
        if parameter.name not in node and type(value) in _KINDS:
            yield Option(choice, f"{name}.{parameter.name}", value, False)


def wrong_values(option: Option) -> Iterator[str]:
    """Values that are wrong in type or range."""
    kinds = dict(_KINDS[type(option.holds)])
    if isinstance(option.holds, list) and option.holds and isinstance(option.holds[0], str):
        kinds.update(negative="[1]", texts="[no_such]")
    yield from kinds.values()
    if option.name.rsplit(".", 1)[-1] in _NAMES:
        yield "no_such"


def answer(option: Option, value: str, folder: Path) -> tuple[str, str]:
    """What became of a value: ``refused`` and what was said, ``accepted``, or ``uncaught`` and what was raised."""
    override = f"{'' if option.given else '+'}{option.name}={value}"
    try:
        cfg = compose_config("run", [option.choice, override, f"run_dir={folder}", "logger=none"])
        build(cfg)
    except (ActiveLearningError, HydraException, OmegaConfBaseException) as error:
        return "refused", str(error)
    except Exception as error:
        return "uncaught", repr(error)
    return "accepted", ""


def named(option: Option, value: str, said: str) -> bool:
    """Whether a message names the option, the value and what is allowed."""
    last = option.name.rsplit(".", 1)[-1]
    shown = value.strip("[]{}").split(",")[0].split(":")[0]
    allowed = ALLOWED.search(said) is not None or said.startswith("Error merging override")  # Hydra's own words
    return last in said and shown.lower() in said.lower() and allowed


def fuzz_options(folder: Path) -> list[dict[str, Any]]:
    """A row per option and wrong value: what came of it, and what was said.

    Args:
        folder: of the runs that are not refused.
    """
    rows = []
    for option in options():
        for value in wrong_values(option):
            if (option.name.rsplit(".", 1)[-1], value) in _RIGHT:
                continue
            outcome, said = answer(option, value, folder)
            if outcome == "refused" and not named(option, value, said):
                outcome = "unnamed"
            rows.append({"choice": option.choice, "option": option.name, "value": value, "outcome": outcome})
            if outcome != "refused":
                rows[-1]["said"] = said[-300:]
    return rows


def main() -> int:
    """Command line."""
    be_quiet()
    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        rows = fuzz_options(Path(folder))
    for row in rows:
        if row["outcome"] != "refused":
            print(row, file=sys.stderr)
    counts = Counter(row["outcome"] for row in rows)
    claims = [claim(outcome, counts[outcome], "==", 0) for outcome in ("uncaught", "accepted", "unnamed")]
    print(write_results("fuzz_options", "python -m benchmarks.fuzz_options", rows, claims), dict(counts))
    return 0 if all(c["holds"] for c in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
