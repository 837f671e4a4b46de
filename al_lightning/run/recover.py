"""Rebuilds a run whose folder was damaged: its database from its journal, or its journal from its database."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from al_lightning.errors import ActiveLearningError, DamagedFile
from al_lightning.run.changes import Change, Saved
from al_lightning.run.durable import digest_of, move, sync_names, write_aside, writing
from al_lightning.run.journal import Body, Position, Reading, whole_file
from al_lightning.run.journal import read as read_journal
from al_lightning.run.lines import snapshot
from al_lightning.run.meta import Meta
from al_lightning.run.paths import DATABASE, JOURNAL, QUERIES, check_folder, inside
from al_lightning.run.reading import checked, connect, journal_of, load, take_in
from al_lightning.run.salvage import salvage
from al_lightning.run.schema import Checksums, migrate, position, put_position, take_checksums, version
from al_lightning.run.store import Store, locked, transaction

_NEW = ".run.sqlite.part"
_QUERY = re.compile(r"round-(\d+)\.[a-z]+")


@dataclass(frozen=True)
class Recovered:
    """Hold what came back of a run.

    Args:
        folder: where it goes on.
        saved: what it knows now.
        done: sentences on what was done.
        lost: sentences on what could not be restored.
    """

    folder: Path
    saved: Saved
    done: tuple[str, ...]
    lost: tuple[str, ...]


def recover(folder: Path, out: Path | None = None) -> Recovered:
    """Make a run folder whole again, as far as what is in it allows.

    What is replaced is kept beside it, as ``NAME.damaged``.

    Args:
        folder: the run folder.
        out: a new folder to copy it to first, so that ``folder`` stays as it is; default: in place.

    Raises:
        ActiveLearningError: there is no run, or nothing of it can be read.
        RunLocked: another process has it open.
    """
    if not folder.is_dir():
        raise ActiveLearningError(f"{folder} is no run folder: it has no {DATABASE}. Give the run_dir of a run.")
    check_folder(folder)
    if out is not None:
        folder = _copied(folder, out)
    with writing(folder), closing_lock(folder):
        done, lost = _agree(folder)
    with closing(Store(folder)) as store:
        lost += _mend(store, folder)
        return Recovered(folder, store.load(), tuple(done), tuple(lost))


@contextmanager
def closing_lock(folder: Path) -> Iterator[None]:
    """Have a run folder to oneself."""
    lock = locked(folder)
    try:
        yield
    finally:
        lock.release()


def _copied(folder: Path, out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ActiveLearningError(f"{out} is not empty. Give a new folder.")
    with writing(out):
        shutil.copytree(folder, out, symlinks=True, dirs_exist_ok=True)
    return out


# ---- the database and the journal ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Database:
    """Hold what a database knows; one that is damaged knows nothing."""

    saved: Saved | None
    why: str = ""
    at: Position | None = None
    """How much of a journal is in it; None where an older format had none."""


def _agree(folder: Path) -> tuple[list[str], list[str]]:
    """Make the database and the journal say the same, from the one that knows more."""
    database, data = _look(folder), journal_of(folder)
    known = read_journal(data)
    if database.saved is None and not known.groups and not known.salvaged:
        raise ActiveLearningError(
            f"nothing can be recovered in {folder}: {database.why}, and {JOURNAL} has no line that can be read. What "
            "people typed is still in its queries/."
        )
    if database.saved is None or _more_in_journal(folder, database, data, known):
        return _from_journal(folder, known, database.why)
    if database.at is None or _goes_with(database.at, data, known):
        return [], []
    return _from_database(folder, bool(data))


def _look(folder: Path) -> _Database:
    path = folder / DATABASE
    if not path.exists() or not path.stat().st_size:
        return _Database(None, f"{DATABASE} is {'empty' if path.exists() else 'gone'}")
    try:
        with checked(folder), closing(connect(path)) as db:
            there = version(db)
            (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            saved = load(db, folder) if there and said == "ok" else Saved()
            if saved.step == "new":
                return _Database(None, f"{DATABASE} holds no run" if said == "ok" else f"{DATABASE}: {said}")
            return _Database(saved, at=position(db) if there >= 4 else None)
    except DamagedFile as error:
        return _Database(None, f"{DATABASE}: {error.why}")


def _goes_with(at: Position, data: bytes, known: Reading) -> bool:
    ends = [Position(), *(group.end for group in known.groups)]
    return at in ends and known.whole and bool(data) and ends.index(at) >= len(ends) - 2


def _more_in_journal(folder: Path, database: _Database, data: bytes, known: Reading) -> bool:
    """Return whether the journal knows of changes that the database has lost; the two may also be of different runs."""
    saved, at = database.saved, database.at
    if saved is None or (at is not None and _goes_with(at, data, known)):
        return False
    if at is not None and at.bytes and at in [group.end for group in known.groups]:
        return True
    if not known.whole or (at is None and len(known.groups) <= 1):
        return False  # an older format has begun a journal at most
    replayed = _replayed(known)
    return _worth(folder, replayed) > _worth(folder, saved)


def _worth(folder: Path, saved: Saved) -> tuple[int, int, int]:
    return sum(_is_whole(folder, saved, name) for name in saved.files), len(saved.answers), len(saved.rounds)


def _replayed(known: Reading) -> Saved:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        _fill(db, known)
        return load(db, Path())


def _fill(db: sqlite3.Connection, known: Reading) -> list[Body]:
    """Take a journal into an empty database; returns lines that could not be."""
    left: list[Body] = []

    def change() -> None:
        migrate(db, 0)
        take_checksums(db)
        checksums = Checksums(db)
        for group in known.groups:
            take_in(db, checksums, group.bodies, group.end)
        if known.salvaged:
            left.extend(salvage(db, known.salvaged))
            checksums.write()

    transaction(db, change)
    return left


def _from_journal(folder: Path, known: Reading, why: str) -> tuple[list[str], list[str]]:
    aside, new, data = [], folder / _NEW, b""
    new.unlink(missing_ok=True)
    with checked(folder), closing(sqlite3.connect(new, isolation_level=None)) as db:
        left = _fill(db, known)
        if not known.whole:
            data, at = whole_file(snapshot(db))
            transaction(db, lambda: put_position(db, at))
        saved = load(db, folder)
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"):
        aside += _set_aside(folder / name)
    if not known.whole:
        aside += _set_aside(folder / JOURNAL)
        write_aside(folder / JOURNAL, lambda file: file.write(data))
    move(new, folder / DATABASE)
    said = f" ({why})" if why else ", which it was ahead of"
    counts = f"{len(saved.answers)} labels and refusals, {len(saved.queries)} queries, {len(saved.statements)} answers"
    done = [f"{DATABASE} was rebuilt from {JOURNAL}{said}: {counts} of people", *_kept(aside)]
    lost = [f"line {line} of {JOURNAL} is damaged, and what it said is lost" for line in known.lost if not known.whole]
    lost += [f"the label of id {body['id']} belongs to no query" for body in left]
    return done, lost + _unasked(folder, len(saved.queries))


def _unasked(folder: Path, rounds: int) -> list[str]:
    """Set the files of queries aside that nobody has asked any more: the run would refuse the ids in them."""
    lost = []
    for path in sorted((folder / QUERIES).glob("round-*")):
        found = _QUERY.fullmatch(path.name)
        if found and int(found[1]) > rounds:
            (kept,) = _set_aside(path)
            lost.append(f"the query of {QUERIES}/{path.name}; what people typed into it is kept as {kept.name}")
    return lost


def _from_database(folder: Path, there: bool) -> tuple[list[str], list[str]]:
    aside = _set_aside(folder / JOURNAL)
    with checked(folder), closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:

        def change() -> None:
            data, at = whole_file(snapshot(db))
            write_aside(folder / JOURNAL, lambda file: file.write(data))
            put_position(db, at)

        transaction(db, change)
    what = "was damaged or of another run" if there else "was gone"
    return [f"{JOURNAL}, which {what}, was written anew from {DATABASE}", *_kept(aside)], []


def _set_aside(path: Path) -> list[Path]:
    if not path.exists():
        return []
    names = (path.with_name(f"{path.name}.damaged{f'-{n}' if n > 1 else ''}") for n in count(1))
    to = next(name for name in names if not name.exists())
    os.replace(path, to)
    sync_names(path.parent)
    return [to]


def _kept(paths: Sequence[Path]) -> list[str]:
    return [f"what was there is kept as {', '.join(path.name for path in paths)}"] if paths else []


# ---- weights and other files --------------------------------------------------------------------------------------


def _is_whole(folder: Path, saved: Saved, name: str) -> bool:
    try:
        found = digest_of(inside(folder, saved.files[name]))
    except (OSError, DamagedFile):
        return False
    return saved.digests.get(name, found) == found


def _mend(store: Store, folder: Path) -> list[str]:
    """Leave out files that are damaged or gone, and have what is needed of them made again."""
    saved = store.load()
    again = saved.meta.get("about") or {}  # noticed, and made again, by whoever needs them
    gone = [name for name in saved.files if name not in again and not _is_whole(folder, saved, name)]
    if not gone:
        return []
    lost = [f"{saved.files[name]} is damaged or gone{_MEANS.get(name, '')}" for name in gone]
    step = saved.step
    meta: Meta = {"recovered": [*saved.meta.get("recovered", []), *gone]}
    if {"weights", "target"} & {*gone}:
        meta["attempt"] = int(saved.meta.get("attempt", 1)) + 1  # it begins from the run's initial weights
        step = saved.step if saved.step in ("label", "train") else "train"
        gone += [name for name in ("moments",) if name in saved.files and name not in gone]
    store.commit(Change(step=step, round=len(saved.queries), meta=meta, dropped=tuple(gone)))
    return lost


_MEANS = {
    "weights": ": the last round is trained again, from the run's initial weights",
    "target": ": the last round is trained again, and the target after it",
    "initial": ": the weights your module starts with are taken for the run's initial ones",
    "target_initial": ": the weights your module starts with are taken for the run's initial ones",
    "moments": ": the next fit's optimiser starts without what the last one's had learnt",
    "scores": ": candidates that are not scored again have no score of earlier rounds",
    "stop_set": ": the next round has no agreement with the last",
}
