"""Lightning comes in two packages of the same names, and neither takes the other's classes for its own."""

from __future__ import annotations

from typing import Any

from al_lightning.errors import UnsupportedTrainer

_OTHER = "pytorch_lightning"


def check_package(thing: Any, who: str) -> None:
    """Refuse an object whose class comes, or inherits, from the package ``pytorch_lightning``.

    Args:
        thing: a Trainer, module, DataModule or callback.
        who: was handed it.

    Raises:
        UnsupportedTrainer: it does.
    """
    kind = next((k for k in type(thing).__mro__ if k.__module__.partition(".")[0] == _OTHER), None)
    if kind is not None:
        raise UnsupportedTrainer(
            f"{who} got {type(thing).__name__}, of the package {_OTHER} ({kind.__name__}), which the package lightning "
            "does not take for its own: `import lightning.pytorch as pl` instead, with the same names, for Trainer, "
            "modules, DataModules and callbacks."
        )
