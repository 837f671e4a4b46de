"""What a frozen part of the model makes of the records: made once a record, and read from then on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch

from al_lightning.cost.flops import FlopMeter
from al_lightning.errors import DamagedFile, UnsupportedModel
from al_lightning.features import cache
from al_lightning.features.row_files import RecordsOfRows, Rows, about, as_file, read
from al_lightning.features.source import Layer
from al_lightning.features.stand_in import listen, passing_through, place_of_input, said, unlike, unreadable
from al_lightning.fit.plan import FitPlan
from al_lightning.pool.fingerprint import digest
from al_lightning.scoring.samples import Samples, dropping
from al_lightning.scoring.trainer import unwrapped

if TYPE_CHECKING:
    from al_lightning.run.turn import Turn

FILE_BYTES = 1 << 26
"""Bytes of a file, all of which are in memory while it is written or checked; afterwards it is memory-mapped."""
_NAME = "activations"


class Activations:
    """Serves a run's frozen part from its folder: records that have a row do not go through that part again.

    Rows hold as long as the weights they were made with: training or replacing those makes others. Each file says what
    it was made with and has a checksum, and counts once a commit names it.

    Args:
        turn: files lie in its folder, work goes on its ledger as ``embed``.
        part: name of a submodule that takes one input and returns one tensor.
        commit: makes work that is pending real before a fit, which may be killed.

    Raises:
        UnsupportedModel: there is no such submodule.
    """

    def __init__(self, turn: Turn, part: str, commit: Callable[[], None]) -> None:
        self._turn, self.part, self._commit = turn, part, commit
        names = dict(unwrapped(turn.model).named_modules())
        if not part or part not in names:
            raise UnsupportedModel(
                f"WarmStart(freeze=({part!r},), cached=True) keeps what a submodule returns, and the model has none of "
                f"that name; it has {', '.join(name for name in names if name)}."
            )
        self._made_from, self._rows, self._names = "", Rows(turn.pool.size, ()), set[str]()
        shapes = [says["shape"] for name, says in turn.about.items() if name.startswith(f"{_NAME}-")]
        self._shape: tuple[int, ...] | None = tuple(shapes[0]) if shapes else None  # then it was checked
        self._why_not: str | None = None

    def can_serve(self, samples: Samples | None = None) -> bool:
        """Return whether the model can be run from activations; looked into once, with a warning if not.

        Args:
            samples: how several answers are drawn, if they are: with dropout on, a part that drops differs each time.
        """
        if self._shape is None and self._why_not is None:
            self._why_not = self._check()
            if self._why_not is not None and self._turn.ranks.rank == 0:
                warnings.warn(
                    f"WarmStart(cached=True) is left out, and {self.part!r} runs in every pass: {self._why_not}. To be "
                    "rid of this warning: cached=False.",
                    stacklevel=2,
                )
        return self._why_not is None and not (samples is not None and dropping(self._module))

    @contextmanager
    def serving(self, ids: np.ndarray, *, steps: bool) -> Iterator[None]:
        """Have the pool serve activations, and the part pass them through.

        Args:
            ids: ``(n,)`` that will be served; those without a row go through the part first.
            steps: whether for a fit, or else for a scoring pass.
        """
        pool = self._turn.pool
        self._make(np.asarray(ids))
        if steps and self._turn.accounts.pending:
            self._commit()  # the fit may be killed; what is made is made
        pool.stand_in = self._records(int(self._turn.pool.labelled[0]))
        try:
            with passing_through(unwrapped(self._turn.model), self.part, steps=steps):
                yield
        finally:
            pool.stand_in = None

    @contextmanager
    def scoring(self, ids: np.ndarray) -> Iterator[FlopMeter]:
        """Serve activations to a scoring pass.

        Args:
            ids: ``(n,)`` that are inferred.

        Yields:
            Where its FLOPs are measured: such a pass is another kind than one through the whole model.
        """
        kind, flops = f"forward, cached {self.part}", self._turn.accounts.flops
        known: dict[Hashable, float] = {"forward": flops.per_record[kind]} if kind in flops.per_record else {}
        meter = FlopMeter(known, {"forward": flops.unknown[kind]} if kind in flops.unknown else {})
        with self.serving(ids, steps=False):
            yield meter
        if "forward" in meter.per_record:
            flops.per_record[kind] = meter.per_record["forward"]
        if "forward" in meter.unknown:
            flops.unknown[kind] = meter.unknown["forward"]

    @property
    def _module(self) -> torch.nn.Module:
        return unwrapped(self._turn.model).get_submodule(self.part)

    def _records(self, example: int) -> RecordsOfRows:
        pool = self._turn.pool
        item = pool.eval_data[example]
        place = place_of_input(item, pool.items.target_key)
        assert place is not None
        return RecordsOfRows(self._rows, item, place, pool.size)

    # ---- files ---------------------------------------------------------------------------------------------------

    def _make(self, ids: np.ndarray) -> None:
        """See to it that these ids have rows of the weights there are now."""
        self._take_stock()
        turn, missing = self._turn, self._rows.missing(ids)
        most = max(1, FILE_BYTES // (4 * max(1, int(np.prod(self._rows.shape)))))
        question = Layer(self.part, pretrained=True).question(turn.model, fitted=True)
        for start in range(0, len(missing), most):
            some = missing[start : start + most]
            self._keep(some, turn.ask(some, question, phase="embed").arrays["features"])

    def _take_stock(self) -> None:
        """Forget rows of other weights, and take in the files of these."""
        made_from = digest(self._module.state_dict())
        if made_from == self._made_from:
            return
        turn = self._turn
        assert self._shape is not None
        self._made_from, self._rows, self._names = made_from, Rows(turn.pool.size, self._shape), set()
        for name, says in turn.about.items():
            if name.startswith(f"{_NAME}-") and says["made_from"] == made_from and name in turn.saved.files:
                self._open(name, says)

    def _open(self, name: str, says: cache.About) -> None:
        try:
            self._rows.add(self._turn.read(name, partial(read, says=says), checks=True))
            self._names.add(name)
        except DamagedFile as error:
            what = f"{error.path} is stale or damaged ({error.why}): it is made again, and that is on the bill."
            warnings.warn(what, stacklevel=2)

    def _keep(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Write rows to a file of their own, and read them from there."""
        turn, file = self._turn, as_file(ids, rows)
        assert self._shape is not None
        number = next(i for i in count() if f"{_NAME}-{i}" not in self._names)
        name, path = f"{_NAME}-{number}", f"features/{_NAME}-{self._made_from}-{number}.npy"
        path = turn.write(path, partial(np.save, arr=file, allow_pickle=False))
        turn.add_file(name, path, about(file, self._made_from, self._shape))
        self._names.add(name)
        self._rows.add(np.load(turn.folder / path, mmap_mode="r", allow_pickle=False))

    # ---- whether it can be done ------------------------------------------------------------------------------------

    def _check(self) -> str | None:
        """Return why not; None where the model says and learns from activations what it does from records."""
        turn = self._turn
        ids = turn.pool.labelled[: turn.pool.batch_size or 1]
        found = self._agreed(unreadable(turn.model, turn.pool, turn.pool.labelled))
        if found is not None:
            return found
        heard = turn.ask(ids, listen(self.part), phase="embed").arrays
        if set(heard["calls"].tolist()) != {1.0} or "given" not in heard:
            return (
                f"{self.part!r} runs {heard['calls'].max():.0f} times in a forward pass; it has to be once, as "
                f"{self.part}(input), and to make one tensor of it, a row a record"
            )
        self._shape = heard["given"].shape[1:]
        self._take_stock()
        self._rows.add(as_file(ids, heard["given"]))
        found = self._agreed(self._unlike(ids, heard))
        if found is not None:  # a file in the folder says that it was checked
            self._shape = None
            return found
        self._rows = Rows(turn.pool.size, self._shape)
        self._keep(ids, heard["given"])
        return None

    def _agreed(self, why: str | None) -> str | None:
        """Return what any process has found."""
        return next((x for x in self._turn.ranks.gather(why) if x is not None), None)

    def _unlike(self, ids: np.ndarray, heard: Mapping[str, np.ndarray]) -> str | None:
        turn = self._turn
        with self.scoring(ids) as meter:
            try:
                arrays, _ = turn.infer(ids, said, phase="embed", meter=meter)
            except Exception as error:
                return f"the model cannot be run from activations: {type(error).__name__}: {error}"
            if not all(_alike(value, heard[name]) for name, value in arrays.items()):
                return f"the model answers otherwise from what {self.part!r} gives: it needs the inputs beside that"
            return unlike(turn.model, turn.pool, self.part, ids, heard)


@contextmanager
def fitting(turn: Turn, plan: FitPlan, ids: np.ndarray) -> Iterator[FitPlan]:
    """Have a fit train from activations if its plan says so and they can be had.

    Args:
        turn: the run.
        plan: of the fit; its weights are in the model.
        ids: ``(n,)`` that are trained on.

    Yields:
        The plan as it will be carried out.
    """
    kept = turn.activations
    if not (plan.cached and plan.freeze and kept is not None and kept.can_serve()):
        yield replace(plan, cached=False)
        return
    with kept.serving(ids, steps=True):
        yield plan


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4)
