"""What verbs share: what they say is printed as it is, never read as markup, never broken into lines."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error that was expected on standard error, by its name and what it says."""
    say(Console(stderr=True), f"{type(error).__name__}: {error}", style="red")


@contextmanager
def no_collection() -> Iterator[None]:
    """Look for no garbage meanwhile: going through all labels of a run again and again takes longer than reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
