"""The file that an interrupted fit goes on from, beside the steps of its run."""

from __future__ import annotations

import pickle
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from al_lightning.fit.state import State
from al_lightning.run.durable import check_seal, digest_of, read_tensors, sealed, write_aside
from al_lightning.run.paths import SCRATCH

if TYPE_CHECKING:
    from al_lightning.run.accounts import Accounts
    from al_lightning.run.files import RunFiles


_FORMAT = 3


class FitFile:
    """Hold what is kept on disk of the fit that a run is at; void once the run's step is committed.

    Args:
        files: of the run.
        accounts: of the run; what goes on is not lost.
        key: returns what tells this fit from any other.
        began: reading of the energy meter as the fit began.

    Attributes:
        kwh: energy that went into the part of the fit that was kept.
    """

    def __init__(self, files: RunFiles, accounts: Accounts, key: Callable[[], str], began: float) -> None:
        # Asked for when it is needed: it goes through all labels, and most fits are neither kept nor read.
        self.files, self._accounts = files, accounts
        self._key, self._path = cache(key), files.fit_path
        self.kwh, self._began = 0.0, began
        self._proven = False

    def read(self) -> State | None:
        """Return how the fit stood when it was interrupted, rank 0's word on every rank; None: it begins."""
        kept: State | None = self.files.on_zero(self._read)
        return kept

    def _read(self) -> State | None:
        if not self._accounts.was_interrupted or not self._path.exists():
            return None
        try:
            check_seal(self._path)
            kept = read_tensors(self._path)
            theirs = kept["format"], kept["key"], len(kept["ranks"])
        except Exception as error:  # what torch says of such a file advises to load it unsafely
            begins_again(f"{self._path} cannot be read ({type(error).__name__})")
            return None
        if theirs != (_FORMAT, self._key(), self.files.ranks.world):
            begins_again(f"{self._path} is of another fit")
            return None
        return dict(kept)

    def write(self, state: State, *, epoch: int, best: str) -> str | None:
        """Keep how the fit stands.

        Args:
            state: of the fit.
            epoch: that comes next.
            best: path of the best weights so far, if a ModelCheckpoint looks for them. A copy is kept too: that file
                may be replaced in a part of the fit that is lost.

        Returns:
            What is wrong with it, on every rank, if that cannot be.
        """
        problem: str | None = self.files.on_zero(partial(self._write, state, epoch, best))
        return problem

    def _write(self, state: State, epoch: int, best: str) -> str | None:
        kwh = self.kwh + max(0.0, self._accounts.energy.reading() - self._began)
        copy = f"best-{epoch}.ckpt" if best else ""
        try:
            seal = ""
            if best:
                _copy(Path(best), self._path.with_name(copy))
                seal = digest_of(self._path.with_name(copy))
            whole = {"format": _FORMAT, "key": self._key(), "kwh": kwh, "best": [best, copy, seal], **state}
            write_aside(self._path, sealed(partial(torch.save, whole)))
            for old in self._path.parent.glob("best-*.ckpt"):
                if old.name != copy:
                    old.unlink()
            if not self._proven:
                read_tensors(self._path)
                self._proven = True
        except Exception as error:
            return self._unreadable(error)
        return None

    def _unreadable(self, error: Exception) -> str:
        names: list[str] = []
        with suppress(Exception):  # it has not even been written, or torch is too old to tell
            names = torch.serialization.get_unsafe_globals_in_checkpoint(self._path)
        if not names and not isinstance(error, pickle.UnpicklingError):
            return in_one_line(error)
        self._path.unlink(missing_ok=True)
        return (
            f"the state of its module or of a callback holds {', '.join(names) or 'objects'}, and nothing is read back "
            "that could execute something. Tensors, numbers, strings, lists and dicts can be kept"
        )

    def put_best(self, kept: State) -> None:
        """Put the best weights of then where they were."""
        best, name, seal = kept["best"]
        if best:
            copy = self.files.place(f"{SCRATCH}/{name}")
            if self.files.on_zero(lambda: digest_of(copy)) != seal:
                raise ValueError(f"{copy} is damaged")
            self.files.on_zero(lambda: _copy(copy, Path(best)))

    def take_over(self, kept: State) -> None:
        """The fit goes on from what was kept: that much of what it has cost is not lost."""
        self.kwh = kept["kwh"]
        self._accounts.take_over(kept["spent"])


def _copy(path: Path, to: Path) -> None:
    with open(path, "rb") as file:
        write_aside(to, partial(shutil.copyfileobj, file))


def in_one_line(error: Exception) -> str:
    """Say what an error is, without its line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def begins_again(why: str) -> None:
    """Say that an interrupted fit does not go on."""
    warnings.warn(f"an interrupted fit begins again: {why}.", stacklevel=2)
