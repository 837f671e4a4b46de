"""Where the command finds its configuration."""

from __future__ import annotations

from pathlib import Path


def config_dir() -> Path:
    """The folder of Hydra groups: inside the package when installed from a wheel, beside it in a source tree.

    Raises:
        FileNotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "conf", package.parent / "conf")
    for folder in places:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"no configuration in {places[0]} or {places[1]}. Reinstall al_lightning, or pass --config-dir."
    )
