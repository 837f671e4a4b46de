"""What the verbs say: as it is, never read as markup, never broken into lines."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error that was expected on standard error, by its name and what it says."""
    say(Console(stderr=True), f"{type(error).__name__}: {error}", style="red")
