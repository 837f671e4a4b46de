"""Damages every file of a run folder, one at a time: whatever opens then is the run that it was, or it is refused.

    OMP_NUM_THREADS=1 python -m benchmarks.damage              # all of it; what is done already is not done again
    OMP_NUM_THREADS=1 python -m benchmarks.damage --share 0.02   # a part of it; writes nothing

A small run that people answer, with features, clusters, weights, moments, scores and a stop set, is copied at four
moments: while it waits for labels, with refusals and corrections in it; as a kill leaves it between two commits and
within a fit, with its write-ahead log and a fit that is kept; and when it has ended. To a copy one of these is done:

- *flip*: one bit of a file; *cut*: its end, its beginning or a part of it is gone; *delete*; *swap*: the bytes of
  another file of the folder, or of the same file at an earlier moment of the run;
- *plant*: a link, a hard link or a pipe in a file's place; a link in the place of each folder; names of files outside
  in the database, with its sums made right.

Then the folder is read and opened, and all files that its commits name are read, as a start does. That gives what the
undamaged folder gives (*equal*), an error of ours (*refused*), or a file that is made again, which a run says (*said*).
Everything else is counted: *silent* differences, *raw* errors, anything *outside* that was touched. What was refused is
recovered, and has to have all labels. Every fiftieth folder really goes on: labels, weights, metrics and the work on
the bill have to be those of the undamaged run.

What people type into files of queries is input, and a flipped bit in it is another word of theirs: such a file is read
(``status``), and kept apart from what the run knows.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch.utils.data import TensorDataset

from al_lightning import ActiveLearner, PoolDataModule, WarmStart
from al_lightning.candidates import Representatives
from al_lightning.cli.people import people
from al_lightning.cli.problems import Classifier
from al_lightning.errors import ActiveLearningError
from al_lightning.features import Layer, cache
from al_lightning.fit import resume as fit_resume
from al_lightning.oracles import FileOracle
from al_lightning.pool.fingerprint import digest
from al_lightning.query import DistanceWeighted, KCenterGreedy, Margin
from al_lightning.report.labels import labelled_rows
from al_lightning.round_size import Listed
from al_lightning.run.durable import check_seal, digest_of, read_arrays, read_tensors
from al_lightning.run.paths import inside
from al_lightning.run.recover import recover
from al_lightning.run.schema import take_checksums
from al_lightning.run.store import Saved, Store, read_run
from benchmarks.common import UNFINISHED, barebones_trainer, claim, write_results

RECORDS, CLASSES, SIZES, EPOCHS = 60, ["cat", "dog", "owl"], [6, 6, 6], 3
FLIPS, CUTS, SWAPS = 150, 24, 8
GO_ON = 50
"""Every so many-th folder goes on to the run's end."""
Row = dict[str, Any]
Tree = dict[str, bytes]


# ---- the run ---------------------------------------------------------------------------------------------------------


class _Copied(BaseException):
    pass


class _CopyAt(L.Callback):
    """Copies the folder as a kill would leave it, in the last fit's second epoch, and ends the process's part in it."""

    def __init__(self, folder: Path, to: Path) -> None:
        self.folder, self.to = folder, to

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (self.folder / "scratch" / "fit.pt").exists():
            shutil.copytree(self.folder, self.to)
            raise _Copied


def start(folder: Path, *callbacks: L.Callback) -> Any:
    """What a user's program does."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(RECORDS + 9) % len(CLASSES)
    x = torch.randn(RECORDS + 9, 4, generator=generator) + 2 * torch.eye(4)[y]
    L.seed_everything(0, verbose=False)
    trainer = barebones_trainer(EPOCHS)
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    learner = ActiveLearner(
        trainer,
        query=DistanceWeighted(Margin()),
        initial=KCenterGreedy(),
        candidates=Representatives(0.5, n_clusters=4),
        fit=WarmStart("keep", stable=True, final="previous"),
        round_size=Listed(SIZES),
        stop_set=6,
        oracle=FileOracle(classes=CLASSES),
        run_dir=folder,
    )
    pool = PoolDataModule(
        TensorDataset(x[:RECORDS], y[:RECORDS]),
        task="multiclass",
        val=TensorDataset(x[RECORDS:], y[RECORDS:]),
        batch_size=4,
        features=Layer("trunk", pretrained=True),
    )
    return learner.fit(Classifier(4, len(CLASSES), hidden=(8,)), datamodule=pool)


def answer(folder: Path, change: int = 0) -> bool:
    """Type labels into every file of a query where none are, or with ``change`` other ones; whether anything was."""
    typed = False
    for path in sorted((folder / "queries").glob("*.csv")):
        head, *rows = path.read_text().splitlines()
        new = []
        for row in rows:
            id, key, label = row.split(",")[:3]
            said = "skip" if int(id) % 7 == 0 else CLASSES[int(id) % 3]
            if change and int(id) % 5 == 0:
                said = CLASSES[(int(id) + change) % 3]
            new.append(f"{id},{key},{said if change or not label else label}")
        typed |= new != rows
        path.write_text("\n".join([head, *new]) + "\n")
    return typed


def whole_run(folder: Path) -> None:
    """Go on until it has ended."""
    while start(folder).reason.kind == "waiting":
        answer(folder)


def moments(root: Path) -> dict[str, Tree]:
    """The folder of a run at several moments."""
    folder = root / "run"
    start(folder)
    answer(folder)
    start(folder)
    answer(folder, change=1)
    start(folder)
    found = {"waiting": tree(folder)}
    answer(folder)
    fit_resume.SAVE_SECONDS, fit_resume.SHARE = 0.0, float("inf")
    try:
        start(folder, _CopyAt(folder, root / "fit"))
    except _Copied:
        found["killed in a fit"] = tree(root / "fit")
    store = Store(folder)
    store.note("approvals", [])
    found["killed between commits"] = tree(folder)
    store.close()
    whole_run(folder)
    found["finished"] = tree(folder)
    return found


def tree(folder: Path) -> Tree:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def lay_out(files: Tree, folder: Path) -> None:
    """Make the files of a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


# ---- damage ----------------------------------------------------------------------------------------------------------


Damage = Callable[[Path], None]


def damages(files: Tree, others: list[Tree], name: str, outside: Path, share: float) -> Iterator[tuple[str, Damage]]:
    """Damages to a file of a folder, the same ones each time."""
    data, rng = files[name], random.Random(name)

    def put(new: bytes, folder: Path) -> None:
        (folder / name).write_bytes(new)

    for _ in range(round(FLIPS * share) if data else 0):
        new, bit = bytearray(data), rng.randrange(8 * len(data))
        new[bit // 8] ^= 1 << bit % 8
        yield "flip", partial(put, bytes(new))
    for k in range(round(CUTS * share) if data else 0):
        a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        yield "cut", partial(put, (data[:a], data[b:], data[:a] + data[b:])[k % 3])
    swaps = [other for other in files.values() if other != data]
    swaps = rng.sample(swaps, min(SWAPS, len(swaps)))
    swaps += [other[name] for other in others if other.get(name, data) != data]
    for other in swaps[: max(1, round(len(swaps) * share))]:
        yield "swap", partial(put, other)
    yield "delete", lambda folder: (folder / name).unlink()
    yield "plant", partial(_link, name, outside / "file")
    yield "plant", partial(_hard_link, name, outside / "file")
    yield "plant", partial(_pipe, name)


def planted(files: Tree, outside: Path) -> Iterator[tuple[str, str, Damage]]:
    """Links in the place of folders, and names in the database."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    for name in sorted({*folders, "scratch", "round-002", "round-003", "final", "features", "queries"}):
        yield name, "plant", partial(_link_folder, name, outside)
    for path in (str(outside / "file"), "../outside/file", "round-001/../../outside/file", "run.sqlite", "queries"):
        for file in ("initial", "weights", "moments", "scores", "stop_set"):
            yield "run.sqlite", "plant", partial(_name, file, path)


def _link(name: str, to: Path, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(to)


def _hard_link(name: str, to: Path, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).hardlink_to(to)


def _pipe(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def _link_folder(name: str, to: Path, folder: Path) -> None:
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(to)


def _name(file: str, path: str, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE file SET path = ? WHERE name = ?", (path, file))
        take_checksums(db)


# ---- what comes of it ------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a folder gives when it is opened, and what of it is made again."""

    saved: Saved
    rows: Any
    files: dict[str, str]
    said: list[str] = field(default_factory=list)


def opened(folder: Path) -> Seen:
    """Read a folder as those do who only look, open it, and read every file that a start may read."""
    look, rows = read_run(folder), labelled_rows(folder)
    with closing(Store(folder)) as store:
        saved = store.load()
    seen = Seen(saved, (look, rows), {})
    for name, path in saved.files.items():
        where, says = inside(folder, path), (saved.meta.get("about") or {}).get(name)
        if says is not None:
            try:
                seen.files[name] = digest(cache.read(where, says))
            except Exception as error:
                seen.said.append(f"{name} is made again: {error}")
            continue
        seen.files[name] = _read(where, saved.digests.get(name))
    fit = folder / "scratch" / "fit.pt"
    if fit.exists():
        try:
            check_seal(fit)
            seen.files["fit"] = digest(read_tensors(fit))
        except Exception as error:
            seen.said.append(f"the fit begins again: {error}")
    return seen


def _read(path: Path, known: str | None) -> str:
    if not path.exists() or (known is not None and digest_of(path) != known):
        raise ActiveLearningError(f"{path} is damaged")  # as RunFiles.read says
    if path.suffix == ".npy":
        return digest(np.load(path, allow_pickle=False))
    return digest(read_arrays(path) if path.suffix == ".npz" else read_tensors(path))


def end(folder: Path, *, bill: bool = True) -> dict[str, Any]:
    """What a run comes to that goes on to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole_run(folder)
    saved = read_run(folder)
    work = Counter[str]()
    for entry in saved.entries:
        work[entry.phase] += entry.records
    found = {"answers": list(saved.answers.items()), "metrics": [r.metrics for r in saved.rounds]}
    found["weights"] = digest(read_tensors(folder / saved.files["weights"]))
    return {**found, "work": dict(work)} if bill else found


class Moment:
    """A folder at one moment of a run, and what comes of damaged copies of it.

    Args:
        name: of the moment.
        files: of the folder.
        others: the folder at earlier moments.
        root: folder to work in.
    """

    def __init__(self, name: str, files: Tree, others: list[Tree], root: Path) -> None:
        self.name, self.files, self.others = name, files, others
        self.folder, self.outside = root / "copy", root / "outside"
        lay_out({"file": b"precious", "deep/weights.pt": b"precious"}, self.outside)
        self.precious = tree(self.outside)
        lay_out(files, self.folder)
        self.seen = opened(self.folder)
        self.end: dict[str, Any] | None = None
        self.count = 0

    def rows(self, share: float, done: set[tuple[str, str]]) -> Iterator[Row]:
        """What came of the damages to each file."""
        for name in self.files:
            if (self.name, name) not in done:
                yield self.row(name, damages(self.files, self.others, name, self.outside, share))
        if (self.name, "*") not in done:
            yield self.row("*", ((kind, damage) for _, kind, damage in planted(self.files, self.outside)))

    def row(self, name: str, todo: Iterator[tuple[str, Damage]]) -> Row:
        """What came of some damages."""
        found = Counter[str]()
        failures: list[str] = []
        for kind, damage in todo:
            lay_out(self.files, self.folder)
            damage(self.folder)
            found["mutations"] += 1
            found[kind] += 1
            try:
                result = self.look(name, found, kind)
            except Exception as error:
                result = "raw"
                failures.append(f"{kind}: {type(error).__name__}: {error}"[:300])
            found[result] += 1
            if result in ("silent", "not recovered"):
                failures.append(f"{kind}: {result}")
            if tree(self.outside) != self.precious:
                found["outside"] += 1
                lay_out(self.precious, self.outside)
        kinds = {key: value for key, value in found.items() if value}
        return {"moment": self.name, "file": name, **kinds, "failures": failures[:5]}

    def look(self, name: str, found: Counter[str], kind: str) -> str:
        """Open it, and every so often go on."""
        try:
            seen, whole = opened(self.folder), self.seen
        except ActiveLearningError:
            return self.refused(kind, found)
        if name.startswith("queries/"):
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                people("status", [str(self.folder)])
        same = seen.saved == whole.saved and seen.rows == whole.rows
        if not (same and all(whole.files.get(n) == d for n, d in seen.files.items())):
            return "silent"
        self.count += 1
        if self.count % GO_ON == 0 and not name.startswith("queries/"):
            found["went on"] += 1
            if self.goes_on(bill=not seen.said) is False:
                return "silent"
        return "said" if seen.said else "equal"

    def goes_on(self, *, bill: bool) -> bool:
        """Whether it ends as the undamaged one does."""
        ended = end(self.folder)
        if self.end is None:
            lay_out(self.files, self.folder)
            self.end = end(self.folder)
        return all(ended[key] == self.end[key] for key in ended if bill or key != "work")

    def refused(self, kind: str, found: Counter[str]) -> str:
        """Recover it: the labels have to be there. What was planted is taken away first."""
        found["recoverable"] += 1
        if kind == "plant":
            lay_out({n: data for n, data in self.files.items() if n in tree(self.folder)}, self.folder)
        try:
            saved = recover(self.folder).saved
        except ActiveLearningError:
            return "not recovered"
        if saved.answers != self.seen.saved.answers or saved.statements != self.seen.saved.statements:
            return "not recovered"
        found["recovered"] += 1
        if found["recovered"] % GO_ON == 0:
            found["went on"] += 1
            if end(self.folder, bill=False)["answers"] != self._answers():
                return "silent"
        return "refused"

    def _answers(self) -> Any:
        if self.end is None:
            copy = self.folder.with_name("whole")
            lay_out(self.files, copy)
            self.end = end(copy)
        return self.end["answers"]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    share = parser.parse_args().share
    unfinished = UNFINISHED / "damage.jsonl"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in unfinished.open()] if unfinished.exists() and share == 1 else []
    done = {(row["moment"], row["file"]) for row in rows}
    warnings.simplefilter("ignore")
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as root, redirect_stderr(io.StringIO()):
        found = moments(Path(root))
        for name, files in found.items():
            others = [found[moment] for moment in list(found)[: list(found).index(name)]]
            for row in Moment(name, files, others, Path(root)).rows(share, done):
                print(row, flush=True)
                rows.append(row)
                if share == 1:
                    with unfinished.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    total = Counter[str]()
    for row in rows:
        total.update({key: value for key, value in row.items() if isinstance(value, int)})
    claims = [
        claim("mutations", total["mutations"], ">=", 10_000),
        claim("silent_differences", total["silent"], "==", 0),
        claim("outside_touched", total["outside"], "==", 0),
        claim("raw_errors", total["raw"], "==", 0),
        claim("labels_recovered_share", total["recovered"] / max(1, total["recoverable"]), "==", 1),
    ]
    print(dict(total), claims)
    if share == 1:
        print(write_results("damage", "OMP_NUM_THREADS=1 python -m benchmarks.damage", rows, claims))
        unfinished.unlink()
    return 0 if all(c["holds"] for c in claims[1:]) else 1


if __name__ == "__main__":
    sys.exit(main())
