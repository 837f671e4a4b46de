"""Wrong values for every option of ``al-lightning run``, through its composition: each must be refused by name."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from al_lightning.cli.build import build, register_resolvers
from al_lightning.cli.paths import config_dir
from al_lightning.errors import ActiveLearningError

ALLOWED = re.compile(r"allowed|at least|or more|above|below|between|a share|a number|must|0 to 1|of ", re.IGNORECASE)
_NUMBER = {"text": "abc", "list": "[1,2]", "part": "{a: 1}", "truth": "true", "negative": "-1", "nan": ".nan"}
_KINDS: dict[type, dict[str, str]] = {
    bool: {"text": "abc", "number": "7", "list": "[true]", "part": "{a: 1}"},
    int: {**_NUMBER, "fraction": "1.5"},
    float: _NUMBER,
    str: {"number": "7", "truth": "true", "list": "[a]", "part": "{a: 1}"},
    list: {"text": "abc", "number": "7", "part": "{a: 1}", "negative": "[-1]", "texts": "[abc]"},
}
"""Values that are wrong for an option, by what it holds; of a list, of numbers."""
_NAMES = {"mode", "schedule", "kind", "remedy", "accelerator"}
"""Texts that are one of a few."""


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
        if group == "experiment":
            continue
        part = compose("run", [choice]).get(group)
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
    if option.name.endswith("save_dir"):  # set from the run folder
        kinds = {}
    yield from kinds.values()
    if option.name.rsplit(".", 1)[-1] in _NAMES:
        yield "no_such"


def answer(option: Option, value: str, folder: Path) -> tuple[str, str]:
    """What became of a value: ``refused`` and what was said, ``accepted``, or ``uncaught`` and what was raised."""
    override = f"{'' if option.given else '+'}{option.name}={value}"
    try:
        cfg = compose("run", [option.choice, override, f"run_dir={folder}", *_small(option)])
        build(cfg)
    except (ActiveLearningError, HydraException, OmegaConfBaseException) as error:
        return "refused", str(error)
    except Exception as error:
        return "uncaught", repr(error)
    return "accepted", ""


def _small(option: Option) -> list[str]:
    return [] if option.choice.startswith("logger=") else ["logger=none"]


def named(option: Option, value: str, said: str) -> bool:
    """Whether a message names the option, the value and what is allowed."""
    last = option.name.rsplit(".", 1)[-1]
    shown = "nan" if value == ".nan" else value.strip("[]{}").split(",")[0].split(":")[0]
    return last in said and shown.lower() in said.lower() and ALLOWED.search(said) is not None


def fuzz_options(folder: Path) -> dict[str, Any]:
    """All of them; how many came out how."""
    register_resolvers()
    counts: Counter[str] = Counter()
    failures = []
    with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        for option in options():
            for value in wrong_values(option):
                what, said = answer(option, value, folder)
                if what == "refused" and not named(option, value, said):
                    what = "unnamed"
                counts[what] += 1
                if what != "refused":
                    failures.append({"what": what, "option": option.name, "choice": option.choice, "value": value,
                                     "why": said[-300:]})  # fmt: skip
    return {"case": "options", "inputs": counts.total(), **{k: counts[k] for k in ("refused", "accepted", "unnamed",
            "uncaught")}, "failures": failures}  # fmt: skip


__all__ = ["DictConfig", "fuzz_options", "math"]
