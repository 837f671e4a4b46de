"""Secrets among the options of the command: refused before Hydra writes a run's options to its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from al_lightning.cli.check import BadOption

_NAMES = re.compile(
    r"(.*[_-])?(api_?key|api_?token|access_?key|access_?token|auth_?token|refresh_?token|secret|secret_?key|password|"
    r"passwd|credentials?|private_?key)|token|authorization|headers|cookies?|auth",
    re.IGNORECASE,
)
"""Options that hold a secret, by a part of their name."""
_IN_URLS = re.compile(
    r"https?://[^/?#\s]*@|[a-z][a-z0-9+.-]*://[^/?#\s:]*:[^/?#\s]*@|[?&](api_?key|token|access_?token|auth|password|secret|sig|signature|key)=",
    re.IGNORECASE,
)
"""A user before the host of a URL, or a secret after its question mark."""


def check_options(overrides: Sequence[str]) -> None:
    """Refuse options of a command line that hold a secret; no message repeats it.

    Args:
        overrides: ``oracle.url=http://localhost:8080``, with or without Hydra's own flags.

    Raises:
        BadOption: one does.
    """
    for override in overrides:
        name, sign, value = override.lstrip("+~").partition("=")
        if sign:
            _check(name, value)


def check_config(node: Any, name: str = "") -> None:
    """Refuse a configuration that holds a secret anywhere.

    Args:
        node: plain data, interpolations as they are.
        name: of the node.

    Raises:
        BadOption: it does.
    """
    for option, value in _leaves(node, name):
        _check(option, value)


def _check(option: str, value: Any) -> None:
    text = "" if value is None or isinstance(value, bool) else str(value)
    if text.strip("'\"").startswith("${"):
        return  # from the environment: what is written is where it is from
    held = any(map(_NAMES.fullmatch, option.split("."))) and text.strip("'\"") not in ("", "null", "None")
    if held or _IN_URLS.search(text):
        raise BadOption(
            f"{option}: it seems to hold a secret, and options are written to the run's folder. Put it into an "
            "environment variable: LABEL_STUDIO_API_KEY for a labelling server, WANDB_API_KEY for W&B, and for parts "
            f"of your own {option}='${{oc.env:NAME}}'. Nothing was written."
        )


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _leaves(value, name if isinstance(value, str) else f"{name}.{i}")
    else:
        yield name, node
