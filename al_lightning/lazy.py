"""Load exported names when they are asked for.

PyTorch takes seconds, and whoever asks how a run stands needs none of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``, which load each of its names from its own module.

    Args:
        package: its ``__name__``.
        homes: module, relative to the package -> names in it, separated by blanks.
    """
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names


def renamed(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` that gives names of the last release by their new ones, with a DeprecationWarning.

    Args:
        package: its ``__name__``.
        names: old -> new.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        warnings.warn(f"{package}.{name} is {package}.{names[name]} now.", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[package], names[name])

    return get
