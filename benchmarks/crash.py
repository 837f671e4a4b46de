"""Kills a run that people answer, everywhere, and cuts its power; the same command goes on, and nothing is lost.

    OMP_NUM_THREADS=1 python -m benchmarks.crash          # all of it; what is done already is not done again
    OMP_NUM_THREADS=1 python -m benchmarks.crash --only fits    # that part alone; the others' rows are kept

A small real run: a pretrained layer embeds the pool, clusters choose the candidates, a module is fitted from warm
weights, queries go out as files after approval, answers come back through the files and through ``al-lightning label``.

- *random*: ``kill -9`` after a random time, and again after another one, until the run has ended; 300 times, and on
  until every phase of a round has been hit;
- *planted*: ``kill -9`` before and after every system call that changes a file of the run: every write, fsync, rename,
  creation and removal, SQLite's included (benchmarks/syscalls.py finds them; no list has to be kept). After one is
  before the next, since nothing between them outlives the process: each is a single point;
- *power*: what the disk may hold where only what was synced is sure to be there (benchmarks/power_cut.py);
- *fits*: ``kill -9`` in every epoch of another run's fits, which go on (benchmarks/crash_fits.py);
- *kinds*: ``kill -9`` at random in runs of many other kinds, from a proxy to a sweep (benchmarks/crash_parts.py,
  benchmarks/crash_ray.py).

After each the same command is started again, until the run is done. Then every label people have typed must be there,
nobody may have been asked for a record twice, and labelled ids, labels, trained records and weights must be those of a
run that was never stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial, wraps
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset

from al_lightning import ActiveLearner, PoolDataModule, WarmStart
from al_lightning import learner as learner_module
from al_lightning.candidates import Representatives
from al_lightning.cli import people as people_module
from al_lightning.cli.problems import Classifier
from al_lightning.features import Layer
from al_lightning.features.provider import Features
from al_lightning.fit import meter
from al_lightning.oracles import FileOracle, file_oracle
from al_lightning.query import DistanceWeighted, KCenterGreedy, Margin
from al_lightning.round_size import Listed
from al_lightning.run import files as run_files
from al_lightning.run.durable import read_tensors
from al_lightning.run.store import Store, read_run
from al_lightning.scoring.trainer import TrainerScorer
from al_lightning.steps import label as label_module
from al_lightning.steps import train as train_module
from benchmarks import crash_fits, crash_parts, crash_ray
from benchmarks.common import RESULTS, UNFINISHED, claim, write_results
from benchmarks.people import Person
from benchmarks.power_cut import Disk, Tree, lay_out
from benchmarks.syscalls import Call, check_platform, forked, traced

KILLS, MOST, MANY = 300, 4, 1000
"""Random kills of this run, up to so many times more where a phase has not been hit; and of all kinds of run."""
RECORDS, CLASSES, SIZES, EPOCHS = 60, ["cat", "dog", "owl"], [6, 6, 6], 2
PARTS = {
    "random": "random_kills",
    "planted": "planted_points",
    "power": "power_cuts",
    "fits": "fits_killed",
    "kinds": "runs_of_other_kinds",
}
"""Parts of the results, and what their points are."""
_COUNTS = ("points", "survived", "identical", "lost", "twice")
Row = dict[str, Any]
Start = Callable[[str, Callable[[], None]], int]
"""Name of a command, and the command -> wait status of the process that did it."""


# ---- the run -------------------------------------------------------------------------------------------------------


def start(folder: Path) -> None:
    """What a user's program does."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(RECORDS + 9) % len(CLASSES)
    x = torch.randn(RECORDS + 9, 4, generator=generator) + 2 * torch.eye(4)[y]
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(monitor="val_loss")],
    )  # fmt: skip
    learner = ActiveLearner(
        trainer,
        query=DistanceWeighted(Margin()),
        initial=KCenterGreedy(),
        candidates=Representatives(0.5, n_clusters=4),
        fit=WarmStart("keep", stable=True, final="previous"),
        round_size=Listed(SIZES),
        stop_set=6,
        oracle=FileOracle(classes=CLASSES, approve=not (folder / "queries" / "round-001.csv").exists()),
        run_dir=folder,
    )
    pool = PoolDataModule(
        TensorDataset(x[:RECORDS], y[:RECORDS]),
        task="multiclass",
        val=TensorDataset(x[RECORDS:], y[RECORDS:]),
        batch_size=4,
        features=Layer("trunk", pretrained=True),
    )
    learner.fit(Classifier(4, len(CLASSES), hidden=(8,)), datamodule=pool)


def verb(name: str, *arguments: object) -> None:
    """One of the commands for people."""
    code = people_module.people(name, [str(argument) for argument in arguments])
    if code:
        raise SystemExit(code)


class Life:
    """A run from a start of its program to its end, with the person who answers.

    Args:
        root: holds the run folder.
        command: that comes next.
        person: who answers, and what they know.
    """

    def __init__(self, root: Path, command: str = "run", person: Person | None = None) -> None:
        self.folder, self.command = root / "run", command
        self.person = person or Person(CLASSES, RECORDS)
        self.stopped = 0

    def commands(self) -> dict[str, Callable[[], None]]:
        """What can be done."""
        return {
            "run": partial(start, self.folder),
            "approve": partial(verb, "approve", self.folder),
            "label": partial(verb, "label", self.folder, self.person.own_file(self.folder)),
        }

    def live(self, doing: Start, begins: Callable[[Life], None] = lambda life: None) -> None:
        """Do command after command until the run has ended; one that is killed is started again.

        Args:
            doing: starts a command in a process of its own.
            begins: told before each.
        """
        while True:
            begins(self)
            status = doing(self.command, self.commands()[self.command])
            self.person.look(self.folder)
            if os.WIFSIGNALED(status):
                self.stopped += 1
                continue
            if status:
                raise RuntimeError(f"{self.command} in {self.folder} ended with {os.waitstatus_to_exitcode(status)}.")
            saved = read_run(self.folder)
            if saved.step == "done":
                return
            if self.command != "run":
                self.command = "run"
            elif file_oracle.pending(self.folder / "queries", len(saved.queries)):
                self.command = "approve"
            else:
                self.command = self.person.answer(self.folder, len(saved.queries))

    def end(self) -> Row:
        """What it came to."""
        saved = read_run(self.folder)
        weights = read_tensors(self.folder / saved.files["weights"])
        return {
            "labelled": list(saved.answers),
            "queries": saved.queries,
            "labels": list(saved.answers.values()),
            "trained": sum(entry.records for entry in saved.entries if entry.phase == "train"),
            "weights": {name: value.tolist() for name, value in weights.items()},
        }

    def verdict(self, whole: Row) -> Row:
        """Whether that is what it should have come to."""
        end = self.end()
        lost = self.person.lost + sum(CLASSES.index(v) != end_of(end, i) for i, v in self.person.typed.items())
        same = end == whole
        return {"lost": lost, "twice": self.person.twice, "identical": same, "survived": same and not lost}


def end_of(end: Row, id: int) -> int | None:
    """The label that a record ended with."""
    found: dict[int, int] = dict(zip(end["labelled"], end["labels"], strict=True))
    return found.get(id)


def untouched(name: str, action: Callable[[], None]) -> int:
    """Do it in a process of its own."""
    return os.waitpid(forked(action), 0)[1]


# ---- kills at random -------------------------------------------------------------------------------------------------

_phase = mmap.mmap(-1, 1)
_PHASES = ("between", "fit", "scoring", "features", "clustering", "query", "label import", "file", "store write")
_WHERE: list[tuple[Any, str, str]] = [
    (train_module, "run_fit", "fit"),
    (train_module, "run_inference", "scoring"),
    (TrainerScorer, "run", "scoring"),
    (Features, "get", "features"),
    (Features, "clusters", "clustering"),
    (learner_module, "select", "query"),
    (label_module, "take_in", "label import"),
    (people_module, "take_in", "label import"),
    (run_files, "write_aside", "file"),
    (file_oracle, "write_aside", "file"),
    (Store, "commit", "store write"),
    (Store, "note", "store write"),
]


def note_phases() -> None:
    """Have every process that is forked from this one note what it is doing where this one can read it."""

    def noting(function: Any, phase: int) -> Any:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, _phase[0] = _phase[0], phase
            try:
                return function(*args, **kwargs)
            finally:
                _phase[0] = before

        return wrapped

    for place, name, phase in _WHERE:
        setattr(place, name, noting(getattr(place, name), _PHASES.index(phase)))


class Killer:
    """Kills processes after random times.

    Args:
        seconds: what a run takes; times are drawn between 0 and that.
        rng: draws them.
    """

    def __init__(self, seconds: float, rng: random.Random) -> None:
        self._seconds, self._rng = seconds, rng
        self._left = rng.uniform(0, seconds)
        self.phases: list[str] = []

    def __call__(self, name: str, action: Callable[[], None]) -> int:
        """Start a command, and kill it if its time is up before it has ended."""
        began = time.perf_counter()
        _phase[0] = 0
        pid = forked(action)
        process = os.pidfd_open(pid)
        try:
            if not select.select([process], [], [], self._left)[0]:
                os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        finally:
            os.close(process)
        if os.WIFSIGNALED(status):
            self.phases.append(_PHASES[_phase[0]])
            self._left = self._rng.uniform(0, self._seconds)
        else:
            self._left = max(0.0, self._left - (time.perf_counter() - began))
        return status


def at_random(whole: Row, seconds: float, seed: int) -> Row:
    """One run, killed at random until it has ended."""
    with tempfile.TemporaryDirectory() as root:
        life, killer = Life(Path(root)), Killer(seconds, random.Random(seed))
        life.live(killer)
        return {"kills": len(killer.phases), "phases": killer.phases, **life.verdict(whole)}


# ---- kills that are planted ------------------------------------------------------------------------------------------


class Recorder:
    """Every call of every command of one run, and how things stood when each command began."""

    def __init__(self, root: Path, copies: Path) -> None:
        self.root, self.copies = root, copies
        self.calls: list[list[Call]] = []
        self.began: list[tuple[str, Person]] = []
        self.seconds = 0.0

    def begins(self, life: Life) -> None:
        """Keep how things stand."""
        shutil.copytree(self.root, self.copies / str(len(self.began)))
        self.began.append((life.command, deepcopy(life.person)))
        self.calls.append([])

    def __call__(self, name: str, action: Callable[[], None]) -> int:
        """Start a command, and note its calls."""
        began = time.perf_counter()
        try:
            return traced(action, self.root, self._note)
        finally:
            self.seconds += time.perf_counter() - began

    def _note(self, call: Call, after: bool) -> bool:
        if after:
            self.calls[-1].append(call)
        return False

    def again(self, k: int, root: Path) -> Life:
        """The run at the beginning of its k-th command, somewhere else."""
        shutil.copytree(self.copies / str(k), root, dirs_exist_ok=True)
        command, person = self.began[k]
        return Life(root, command, deepcopy(person))


class Planted:
    """Kills a process before or after its n-th call, once; later ones are left alone."""

    def __init__(self, root: Path, n: int, after: bool) -> None:
        self._root, self._n, self._after, self._count = root, n, after, -1
        self.done = False

    def __call__(self, name: str, action: Callable[[], None]) -> int:
        """Start a command, and kill it there."""
        return untouched(name, action) if self.done else traced(action, self._root, self._look)

    def _look(self, call: Call, after: bool) -> bool:
        self._count += not after
        self.done = self.done or (self._count == self._n and after == self._after)
        return self.done


def planted(recorder: Recorder, whole: Row, k: int, n: int, after: bool) -> Row:
    """One run, killed at the n-th call of its k-th command."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        life, killer = recorder.again(k, root), Planted(root, n, after)
        life.live(killer)
        call, command = recorder.calls[k][n], recorder.began[k][0]
        where = {"command": command, "call": call.name, "file": kind_of(call.to or call.path, recorder.root)}
        return {**where, "when": "after" if after else "before", "kills": life.stopped, **life.verdict(whole)}


def kind_of(path: str, root: Path) -> str:
    """A file's name without what differs from round to round."""
    name = os.path.relpath(path, os.path.realpath(root / "run"))
    return "".join("n" if c.isdigit() else c for c in name).replace("nnn", "n")


# ---- power cuts ------------------------------------------------------------------------------------------------------


def cuts(recorder: Recorder, rng: random.Random) -> Iterator[tuple[int, str, Tree]]:
    """What the disk may hold after every call, every different state once: command, which state, and what is there."""
    disk, seen = Disk(recorder.root), set()
    for k, calls in enumerate(recorder.calls):
        for path, data in recorder.began[k][1].saved.items():
            disk.put(recorder.root / path, data)
        for call in calls:
            disk.apply(call)
            for kind, tree in disk.states(rng):
                held = hash(tuple(sorted((path, data or b"") for path, data in tree.items() if "-shm" not in path)))
                if (k, held) not in seen:
                    seen.add((k, held))
                    yield k, kind, tree


def power(recorder: Recorder, whole: Row, k: int, kind: str, tree: Tree) -> Row:
    """One run that goes on from such a state."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(tree, Path(folder))
        command, person = recorder.began[k]
        life = Life(Path(folder), command, deepcopy(person))
        life.person.look(life.folder)
        life.live(untouched)
        return {"command": command, "kind": kind, **life.verdict(whole)}


# ---- kills within fits -----------------------------------------------------------------------------------------------


def within_fits(done: Done, every: int = 1) -> list[Row]:
    """Runs that are killed within a fit, or while it is kept."""
    whole = crash_fits.whole()
    points = [(f"fit {point}", partial(crash_fits.within_fit, whole, point)) for point in crash_fits.points()]
    points += [(f"kept {n}", partial(crash_fits.while_kept, whole, n)) for n in crash_fits.keeping()]
    return [done(key, make) for key, make in points[::every]]


def _of_fits(killed: list[Row]) -> list[Row]:
    rows = _summary("fits", killed, "fit", "when")
    for row in rows:
        lost = [
            k.get("epochs_lost", EPOCHS)
            for k in killed
            if (k.get("fit", "?"), k.get("when", "?")) == (row["fit"], row["when"])
        ]
        row["epochs_lost_max"] = max(lost)
    return rows


# ---- kills in runs of other kinds ------------------------------------------------------------------------------------


def other_kinds(done: Done, every: int = 1) -> list[Row]:
    """Runs of every other kind, each until it has been killed often enough."""
    rows: list[Row] = []
    for name, part in (crash_parts.PARTS | crash_ray.PARTS).items():
        whole, seconds = crash_parts.undisturbed(part)
        kills = seed = 0
        while kills < part.kills // every:
            row = done(f"kind {name} {seed}", partial(crash_parts.one, part, seed, seconds, whole))
            rows.append({**row, "kind": name})
            kills, seed = kills + row.get("kills", 1), seed + 1
        print(f"{name}: {kills} kills in {seed} runs of {seconds:.1f} s", file=sys.stderr, flush=True)
    return rows


def _of_kinds(killed: list[Row]) -> list[Row]:
    rows = _summary("kinds", killed, "kind")
    for row in rows:
        row["kills"] = sum(k.get("kills", 0) for k in killed if k["kind"] == row["kind"])
    return rows


# ---- all of it -------------------------------------------------------------------------------------------------------


class Done:
    """What has been done already, a line each, so that it is not done again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {row["key"]: row for row in map(json.loads, lines)}

    def __call__(self, key: str, make: Callable[[], Row]) -> Row:
        """The row of this key; made if there is none."""
        if key not in self.rows:
            try:
                row = make()
            except RuntimeError as error:  # a command that does not go on is what this looks for
                row = {"failed": str(error), "lost": 0, "twice": 0, "identical": False, "survived": False}
            self.rows[key] = {"key": key, **row}
            with self._path.open("a") as file:
                file.write(json.dumps(self.rows[key]) + "\n")
            if not row["survived"]:
                print(self.rows[key], file=sys.stderr, flush=True)
        return self.rows[key]


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # of the commands; what is said here goes to stderr


def _record(folder: Path) -> tuple[Recorder, Row, float]:
    root, copies = folder / "whole", folder / "copies"
    root.mkdir()
    copies.mkdir()
    began = time.perf_counter()
    plain = Life(folder / "plain")
    plain.folder.parent.mkdir()
    plain.live(untouched)
    seconds = time.perf_counter() - began
    recorder, life = Recorder(root, copies), Life(root)
    life.live(recorder, recorder.begins)
    whole = life.end()
    if whole != plain.end():
        raise RuntimeError("two runs with the same seed differ: nothing can be compared here.")
    return recorder, whole, seconds


def _enough(killed: list[Row], kills: int) -> bool:
    """Whether there were as many kills, and one in every phase; a phase of a millisecond may want many more."""
    phases = [phase for row in killed for phase in row.get("phases", [])]
    return len(phases) >= kills and (len(set(phases)) == len(_PHASES) or len(phases) >= MOST * kills)


def _summary(part: str, rows: list[Row], *names: str) -> list[Row]:
    """Rows of the results, one for each of what these names say: how many, and what came of them."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row.get(name, "?") for name in names)
        counts = found.setdefault(
            key, {"part": part, **dict(zip(names, key, strict=True)), **dict.fromkeys(_COUNTS, 0)}
        )
        for name, value in zip(_COUNTS, (1, *(row[name] for name in _COUNTS[1:])), strict=True):
            counts[name] += value
    return [found[key] for key in sorted(found, key=str)]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="of the planted points and power cuts; writes nothing")
    parser.add_argument("--only", choices=PARTS, help="this part; the others' rows stay as they are")
    options = parser.parse_args()
    every, only = options.every, options.only
    check_platform()
    _quiet()
    note_phases()
    meter.NOTE_SECONDS = 0.0  # every batch is noted, as it would be in fits that take longer
    done = Done(UNFINISHED / f"crash{f'-{every}' if every > 1 else ''}.jsonl")
    made: dict[str, list[Row]] = {}
    if only in (None, "fits"):
        made["fits"] = _of_fits(within_fits(done, every))
    if only in (None, "kinds"):
        made["kinds"] = _of_kinds(other_kinds(done, every))
    if only not in ("fits", "kinds"):
        made |= everywhere(done, every, only)
    return report(made, write=every == 1)


def everywhere(done: Done, every: int, only: str | None) -> dict[str, list[Row]]:
    """The parts that one and the same run is stopped in."""
    made: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recorder, whole, seconds = _record(Path(folder))
        points = [(k, n, False) for k, calls in enumerate(recorder.calls) for n in range(len(calls))]
        points += [(k, len(calls) - 1, True) for k, calls in enumerate(recorder.calls)]
        print(f"{seconds:.1f} s a run, {len(recorder.calls)} commands, {len(points)} points", file=sys.stderr)
        if only in (None, "random"):
            killed, seed = list[Row](), 0
            while not _enough(killed, KILLS // every):
                killed.append(done(f"random {seed}", partial(at_random, whole, seconds, seed)))
                seed += 1
            made["random"] = _summary("random", list(_phases_of(killed)), "phase")
        if only in (None, "planted"):
            hit = [
                done(f"planted {k} {n} {after}", partial(planted, recorder, whole, k, n, after))
                for k, n, after in points[::every]
            ]
            made["planted"] = _summary("planted", hit, "command", "call", "file", "when")
        if only in (None, "power"):
            cut = [
                done(f"power {i} {k} {kind}", partial(power, recorder, whole, k, kind, tree))
                for i, (k, kind, tree) in enumerate(list(cuts(recorder, random.Random(0)))[::every])
            ]
            made["power"] = _summary("power", cut, "command", "kind")
    return made


def _phases_of(killed: list[Row]) -> Iterator[Row]:
    """A row a kill; what was lost is on the first of a run."""
    for row in killed:
        for i, phase in enumerate(row.get("phases", ["?"])):
            yield {**row, "phase": phase, **({} if i == 0 else {"lost": 0, "twice": 0})}


def report(made: dict[str, list[Row]], *, write: bool) -> int:
    """Put these parts in the place of those in the results, and say whether everything held."""
    path = RESULTS / "crash.json"
    there = json.loads(path.read_text())["rows"] if path.exists() else []
    of = {part: made.get(part) or [row for row in there if row["part"] == part] for part in PARTS}
    claims = claims_of(of if write else {part: made.get(part, []) for part in PARTS})
    if write:
        rows = [row for part in PARTS for row in of[part]]
        print(write_results("crash", "OMP_NUM_THREADS=1 python -m benchmarks.crash", rows, claims), file=sys.stderr)
    return _said(claims)


def claims_of(of: dict[str, list[Row]]) -> list[Row]:
    """Claims on the rows of all parts."""

    def total(name: str, *parts: str) -> int:
        return sum(row.get(name, 0) for part in parts or PARTS for row in of[part])

    kills = total("points", "random") + total("kills", "kinds")
    claims = [
        claim("kills", kills, ">=", MANY),
        claim("labels_lost", total("lost"), "==", 0),
        claim("duplicate_queries", total("twice"), "==", 0),
        claim("identical_share", total("identical") / max(1, total("points")), "==", 1),
        claim("phases_killed", len(of["random"]), "==", len(_PHASES)),
        claim("epochs_lost_max", max((row["epochs_lost_max"] for row in of["fits"]), default=EPOCHS), "<=", 1),
    ]
    for part, name in PARTS.items():
        points = total("points", part)
        claims += [claim(name, points, ">=", 1), claim(f"{name}_survived", total("survived", part), "==", points)]
    return claims


def _said(claims: list[Row]) -> int:
    for one in claims:
        print(one, file=sys.stderr)
    return 0 if all(one["holds"] for one in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
