"""Files of a run folder: written aside by rank 0, and read by every rank once a commit names them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from al_lightning.errors import DamagedFile
from al_lightning.fit.plan import Weights
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.shape import Moments
from al_lightning.run.durable import Hashed, digest_of, read_tensors, write_aside
from al_lightning.run.paths import SCRATCH, inside
from al_lightning.run.store import Saved


class RunFiles:
    """Hold what a run writes beside its database.

    Attributes:
        folder: the run folder.
        ranks: the processes; rank 0 writes.
        saved: what the last commit made real, the names of files among it.
    """

    folder: Path
    ranks: Ranks
    saved: Saved
    _digests: dict[str, str]  # of files that no commit has named yet, by their paths

    def on_zero(self, action: Callable[[], Any]) -> Any:
        """Do it on rank 0 and give every rank the result; an error is raised on every rank, so that none waits."""
        result: Any = None
        error: Exception | None = None
        if self.ranks.rank == 0:
            try:
                result = action()
            except Exception as caught:
                if self.ranks.world == 1:
                    raise
                error = caught
        result, error = self.ranks.broadcast((result, error))
        if error is not None:
            raise error
        return result

    def write(self, path: str, write: Callable[[IO[bytes]], Any]) -> str:
        """Write a file of the run on rank 0; it counts once a commit names it.

        Returns:
            Its path, under another name where a commit names a file of this one: it holds until the next commit.
        """
        path = self._free(path)
        self._digests[path] = self.on_zero(lambda: _write(inside(self.folder, path), write))
        return path

    def place(self, name: str) -> Path:
        """Return the path of a file or folder within the run folder.

        Raises:
            DamagedFile: it leads out of it, or through a link.
        """
        return inside(self.folder, name)

    @property
    def fit_path(self) -> Path:
        """Return where a running fit is kept as it goes."""
        return self.place(f"{SCRATCH}/fit.pt")

    def _free(self, path: str) -> str:
        committed, asked, again = set(self.saved.files.values()), Path(path), 1
        while path in committed:
            again += 1
            path = str(asked.with_name(f"{asked.stem}-{again}{asked.suffix}"))
        return path

    def write_weights(self, path: str, weights: Weights) -> str:
        """Write weights; :meth:`read_weights` reads them back without pickle's dangers."""
        return self.write(path, lambda file: torch.save(dict(weights), file))

    def write_moments(self, path: str, moments: Moments) -> str:
        """Write what a fit's optimisers leave for the next one."""
        return self.write(path, lambda file: torch.save(moments, file))

    def read_moments(self) -> Moments | None:
        """Return what the last fit's optimisers left, if it did."""
        if "moments" not in self.saved.files:
            return None
        moments: Moments = self.read("moments", read_tensors)
        return moments

    def read_weights(self, name: str) -> dict[str, torch.Tensor]:
        """Weights that a commit has named."""
        return dict(self.read(name, read_tensors))

    def read(self, name: str, load: Callable[[Path], Any], *, checks: bool = False) -> Any:
        """Read a file that a commit has named.

        Args:
            name: its name in the commit.
            load: reads it; executes nothing.
            checks: whether ``load`` looks at every byte for damage itself.

        Raises:
            DamagedFile: it is not what was written.
        """
        path, digest = self.place(self.saved.files[name]), self.saved.digests.get(name)
        try:
            if digest is not None and not checks and digest_of(path) != digest:
                raise ValueError("its bytes have changed since they were written")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return load(path)
        except MemoryError:
            raise
        except Exception as error:
            # What torch and NumPy say of such a file advises to load it unsafely.
            raise DamagedFile(path, self.folder, type(error).__name__) from None


def _write(path: Path, write: Callable[[Any], Any]) -> str:
    digest = ""

    def hashed(file: IO[bytes]) -> None:
        nonlocal digest
        through = Hashed(file)
        write(through)
        digest = through.digest

    write_aside(path, hashed)
    return digest
