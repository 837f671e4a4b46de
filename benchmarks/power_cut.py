"""What a disk may hold after the power went: a model of files and folders that keeps what was synced and nothing else.

POSIX promises no more: bytes last once their file was fsynced, a name once its folder was. What was not synced may be
there or not; which of it, :meth:`Disk.states` varies. (The idea is ALICE's: Pillai et al., OSDI 2014.)
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.syscalls import Call

Tree = dict[str, bytes | None]
"""Path within the root -> bytes, None for a folder."""


@dataclass(eq=False)
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[Call] = field(default_factory=list)

    def change(self, call: Call) -> None:
        self.pending.append(call)
        _apply(self.data, call)

    def sync(self) -> None:
        self.synced, self.pending = bytes(self.data), []


@dataclass(eq=False)
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)
    steps: list[dict[str, _File | _Folder]] = field(default_factory=list)  # names after every change since the sync

    def change(self, name: str, node: _File | _Folder | None) -> None:
        self.names = {k: v for k, v in self.names.items() if k != name} | ({} if node is None else {name: node})
        self.steps.append(self.names)

    def sync(self) -> None:
        self.synced, self.steps = self.names, []


def _apply(data: bytearray, call: Call) -> None:
    if call.name == "truncate":
        del data[call.offset :]
    if len(data) < call.offset:
        data.extend(bytes(call.offset - len(data)))
    data[call.offset : call.offset + len(call.data)] = call.data


class Disk:
    """Follows the calls of a program.

    Args:
        root: folder that everything happens in; it is there, whatever happens.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._top = os.path.realpath(root), _Folder()

    def apply(self, call: Call) -> None:
        """Do a call that has succeeded."""
        folder, name = self._place(call.path)
        if name == "..":  # it comes from elsewhere; what was never synced here is nothing to count on
            folder, name = self._place(call.to)
            folder.change(name, _File())
        elif call.name == "rename":
            to, new = self._place(call.to)
            to.change(new, folder.names[name])
            folder.change(name, None)
            if to is folder:
                del folder.steps[-2]  # a rename is there or not, never in part
        elif call.name in ("create", "mkdir"):
            folder.change(name, _File() if call.name == "create" else _Folder())
        elif call.name in ("unlink", "rmdir"):
            folder.change(name, None)
        elif call.name == "sync":
            (folder.names[name] if name else self._top).sync()
        elif call.name in ("write", "truncate"):
            node = folder.names[name]
            assert isinstance(node, _File)
            node.change(call)
        else:
            raise NotImplementedError(f"what {call.name} of {call.path} leaves on a disk")

    def put(self, path: Path, data: bytes) -> None:
        """Save a file as an editor does: whole, and synced, where it stands already."""
        folder, name = self._place(os.path.realpath(path))
        if name not in folder.names:
            self.apply(Call("create", os.path.realpath(path)))
            folder.sync()
        node = folder.names[name]
        assert isinstance(node, _File)
        node.data = bytearray(data)
        node.sync()

    def _place(self, path: str) -> tuple[_Folder, str]:
        parts = [part for part in os.path.relpath(path, self._root).split("/") if part != "."]
        folder = self._top
        if parts[:1] == [".."]:
            return folder, ".."
        for part in parts[:-1]:
            inner = folder.names[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, parts[-1] if parts else ""

    def states(self, rng: random.Random) -> Iterator[tuple[str, Tree]]:
        """What may be there if the power goes now: the worst cases, and one at random.

        Args:
            rng: of the last one, which keeps some unsynced writes of every file and the first changes of every folder.
        """
        yield "nothing unsynced", dict(_tree(self._top, names=False, data=False))
        yield "names, not data", dict(_tree(self._top, names=True, data=False))
        yield "data, not names", dict(_tree(self._top, names=False, data=True))
        yield "some of it", dict(_tree(self._top, names=rng, data=rng))


def _tree(
    folder: _Folder, *, names: bool | random.Random, data: bool | random.Random, path: str = ""
) -> Iterator[tuple[str, bytes | None]]:
    if isinstance(names, random.Random):
        kept = names.choice([folder.synced, *folder.steps])
    else:
        kept = folder.names if names else folder.synced
    for name, node in kept.items():
        where = f"{path}{name}"
        if isinstance(node, _Folder):
            yield where, None
            yield from _tree(node, names=names, data=data, path=f"{where}/")
        else:
            yield where, _content(node, data)


def _content(file: _File, data: bool | random.Random) -> bytes:
    if not isinstance(data, random.Random):
        return bytes(file.data) if data else file.synced
    content = bytearray(file.synced)
    for call in file.pending:
        if data.random() < 0.5:
            _apply(content, call)
    return bytes(content)


def lay_out(tree: Tree, root: Path) -> None:
    """Make the files and folders of a state."""
    for path, data in tree.items():
        if data is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(data)
