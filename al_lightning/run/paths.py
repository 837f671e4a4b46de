"""Paths of a run folder: they are relative, stay inside it and follow no links, whoever wrote the folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from al_lightning.errors import DamagedFile

DATABASE, JOURNAL, LOCK, OWNER = "run.sqlite", "journal.jsonl", "run.lock", "run.pid"
QUERIES, FEATURES, SCRATCH = "queries", "features", "scratch"
"""Folders within a run folder. The last holds what a step would not want to do again if it were killed; it is void once
the step is committed."""

_IN_PLACE = re.compile(r"run\.(sqlite(-wal|-shm|-journal)?|lock|pid)|journal\.jsonl")
"""Files that are written in place, not aside."""
_FOLDERS = re.compile(rf"(round-[0-9]{{3,}}|final)(-attempt-[0-9]+)?|{QUERIES}|{FEATURES}|{SCRATCH}")
_OURS = re.compile(rf"{_IN_PLACE.pattern}|{_FOLDERS.pattern}|(initial|target)[-0-9]*\.pt|scores-.*\.npz|\..*\.part")
_SINCE_THE_FIRST_STEP = re.compile(rf"{_FOLDERS.pattern}|scores-.*\.npz")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a run folder.

    Args:
        folder: the run folder.
        name: of the file, relative to the folder.

    Raises:
        DamagedFile: the name leads out of the folder or through a link, or is that of a file no step writes.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name else ()
    if not parts or parts[0] == "/" or ".." in parts:
        raise DamagedFile(folder / DATABASE, folder, f"it names the file {name!r}, which is not inside the folder")
    if _IN_PLACE.fullmatch(parts[0]) or parts[0] == QUERIES:
        raise DamagedFile(folder / DATABASE, folder, f"it names the file {name!r}, which is none of a step's files")
    path = folder
    for part in parts:
        path = path / part
        _check(path, folder)
    return path


def check_folder(folder: Path) -> None:
    """Look at every place in a run folder that a run reads or writes, without following any.

    Links and special files are refused, and so is a second name (a hard link) of a file that is written in place. What
    else lies in the folder, for example a logger's files, is not looked at. A link of a ModelCheckpoint
    (``save_last="link"``) may point to another file of the folder, and a file of answers, which is only read, may be
    kept elsewhere.

    Args:
        folder: the run folder; it may itself be reached by a link.

    Raises:
        DamagedFile: such a place is a link, or no plain file or folder.
    """
    for entry in _scan(folder):
        if not _OURS.fullmatch(entry.name):
            continue
        _check(Path(entry.path), folder)
        if entry.is_dir(follow_symlinks=False):
            _check_below(Path(entry.path), folder)
        elif _IN_PLACE.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_nlink > 1:
            raise DamagedFile(entry.path, folder, "it is a hard link: another file would change with it", _WAY)


def trace(folder: Path) -> Path | None:
    """Return a file or folder that only a run with a first step leaves, or None."""
    found = sorted(e.name for e in _scan(folder) if _SINCE_THE_FIRST_STEP.fullmatch(e.name))
    full = (folder / name for name in found if not (folder / name).is_dir() or any((folder / name).iterdir()))
    return next(full, None)


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _check_below(path: Path, folder: Path) -> None:
    for entry in _scan(path):
        if not (entry.is_symlink() and _may_link(path, Path(entry.path), folder)):
            _check(Path(entry.path), folder)
        if entry.is_dir(follow_symlinks=False):
            _check_below(Path(entry.path), folder)


def _may_link(where: Path, link: Path, folder: Path) -> bool:
    if where.name == "checkpoints":
        return link.resolve().is_relative_to(folder.resolve())
    return where == folder / QUERIES and link.is_file()


_WAY = (
    "Put a plain file or folder in its place. The run folder itself may be reached by a link, and "
    "FileOracle(folder=...) keeps the files of queries elsewhere."
)


def _check(path: Path, folder: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise DamagedFile(path, folder, str(error)) from error
    if stat.S_ISLNK(mode):
        raise DamagedFile(path, folder, f"it is a link, to {os.readlink(path)}, and no link is followed", _WAY)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DamagedFile(path, folder, "it is neither a file nor a folder", _WAY)
