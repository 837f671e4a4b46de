"""What a run folder holds beside what its commits name: cleared where a kill left it, and foretold before a run."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from al_lightning.errors import CannotWrite

_OURS = (
    ".*.part",
    "initial*.pt",
    "target*.pt",
    "scores-*.npz",
    *(f"{folder}/{name}" for folder in ("round-*", "final*", "features") for name in (".*.part", "*.npz", "*.npy")),
    *(f"{folder}/{name}*.pt" for folder in ("round-*", "final*") for name in ("weights", "moments")),
)
"""Names that a run gives its own files; nothing else in the folder is touched."""


def leftovers(folder: Path, committed: Collection[str]) -> Iterator[Path]:
    """Find files of the run's own making that no commit names: a kill came between their writing and the commit.

    Args:
        folder: the run folder.
        committed: paths that the last commit names, relative to the folder.
    """
    for pattern in _OURS:
        for path in folder.glob(pattern):
            if path.is_file() and not path.is_symlink() and path.relative_to(folder).as_posix() not in committed:
                yield path


def clear(folder: Path, committed: Collection[str]) -> None:
    """Remove what :func:`leftovers` finds; a folder that cannot be written keeps it."""
    for path in list(leftovers(folder, committed)):
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


def last_checkpoints(trainer: L.Trainer, folder: Path) -> list[str]:
    """Find the files of checkpoints that keep the last state of a fit and monitor nothing, as a default Trainer does.

    Only the delivered fit's is of use; one that monitors keeps what it was asked to keep.

    Returns:
        Paths relative to the run folder; those elsewhere are the user's own business.
    """
    found = (
        Path(c.best_model_path)
        for c in trainer.checkpoint_callbacks
        if isinstance(c, ModelCheckpoint) and c.monitor is None and c.save_top_k == 1 and c.best_model_path
    )
    return [path.relative_to(folder).as_posix() for path in found if path.is_relative_to(folder)]


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a run folder is going to take.

    Args:
        weights: of a module's weights and buffers.
        state: of an adaptive optimiser's state: two numbers a parameter.
        copies: sets of weights that are there at a time: the first ones, the last ones, and those being written.
        checkpoint: of the user's own checkpoints, each round.
    """

    weights: int
    state: int
    copies: int
    checkpoint: int

    @classmethod
    def of(cls, model: nn.Module, trainer: L.Trainer, *, proxy: nn.Module | None = None) -> Footprint:
        """Reckon it from the modules and the Trainer's checkpoints.

        Args:
            model: the delivered module.
            trainer: its ModelCheckpoints are counted.
            proxy: the module that selects in its place, if there is one.
        """
        modules = [m for m in (model, proxy) if m is not None]
        weights = sum(v.nbytes for m in modules for v in m.state_dict().values())
        state = 2 * sum(p.nbytes for m in modules for p in m.parameters() if p.requires_grad)
        monitored = sum(
            max(1, c.save_top_k) for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor
        )
        return cls(weights=weights, state=state, copies=3, checkpoint=monitored * (weights + state))

    @property
    def fixed(self) -> int:
        """Bytes however many rounds there are, at most."""
        return self.copies * self.weights + 2 * (self.weights + self.state)

    def check(self, folder: Path) -> None:
        """Raise CannotWrite where the disk has no room for a single round."""
        free, needed = shutil.disk_usage(folder).free, self.fixed + self.checkpoint
        if free < needed:
            raise CannotWrite(folder, f"it will hold about {_size(needed)} and {_size(free)} are free")

    def __str__(self) -> str:
        more = f", and {_size(self.checkpoint)} a round that ModelCheckpoint keeps" if self.checkpoint else ""
        return (
            f"up to {_size(self.fixed)} (weights of {_size(self.weights)}: the first, the last and the next ones, and "
            f"the running fit){more}; scores, features and labels come on top"
        )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
