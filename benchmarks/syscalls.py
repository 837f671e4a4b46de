"""Stops a child process at every system call that changes files in a folder: before it, after it, and what it wrote.

Below Python, so that SQLite's writes are seen like any other, and a writer that is added tomorrow as well. The child
asks the kernel to report the calls in :data:`CALLS` alone (seccomp), and the parent stops it there (ptrace); between
them it runs at full speed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import stat
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CALLS = {
    1: "write",
    2: "open",
    18: "pwrite64",
    20: "writev",
    40: "sendfile",
    74: "fsync",
    75: "fdatasync",
    76: "truncate",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    85: "creat",
    86: "link",
    87: "unlink",
    88: "symlink",
    257: "openat",
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    266: "symlinkat",
    285: "fallocate",
    296: "pwritev",
    316: "renameat2",
    326: "copy_file_range",
    328: "pwritev2",
}
"""System calls of x86-64 that change what a folder holds, or make it last."""
_UNKNOWN = ("writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "fallocate", "link", "linkat", "symlink",
            "symlinkat", "truncate")  # fmt: skip
"""Calls nothing here makes so far: points like all others, but what they write is not kept."""

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
_SYSGOOD, _CLONE, _SECCOMP, _EXITKILL = 1, 1 << 3, 1 << 7, 1 << 20
_EVENT_SECCOMP = 7
_WALL = 0x40000000
_AT_FDCWD, _O_APPEND = -100, os.O_APPEND

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _Info(ctypes.Structure):
    """``struct ptrace_syscall_info``; the first number is the call's, or what it returned."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("number", ctypes.c_int64),
        ("args", ctypes.c_int64 * 6),
        ("data", ctypes.c_uint64),
    ]


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


@dataclass
class Call:
    """A system call that changes a file or a folder.

    Args:
        name: ``create``, ``write``, ``truncate``, ``sync``, ``rename``, ``unlink``, ``mkdir``, ``rmdir``, or the name
            of a call whose effect is not known here.
        path: what it changes.
        to: the new name, of a rename.
        offset: where it writes, or the new length.
        data: what it wrote.
    """

    name: str
    path: str
    to: str = ""
    offset: int = 0
    data: bytes = b""


Handler = Callable[[Call, bool], bool]
"""Told of a call, before it and (True) after it has succeeded; whether to kill the child there."""


def check_platform() -> None:
    """Raise where system calls have other numbers."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise OSError(f"system calls are followed on Linux on x86-64, not on {sys.platform} on {platform.machine()}.")


def forked(action: Callable[[], None]) -> int:
    """Pid of a forked child that does it and exits with 0, or 1 where it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def traced(action: Callable[[], None], root: Path, handler: Handler) -> int:
    """Do it in a forked child, and stop at every call that changes something under a folder.

    Args:
        action: what the child does.
        root: the folder.
        handler: told of every call.

    Returns:
        Wait status of the child.
    """

    def child() -> None:
        _libc.ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        _report_calls()
        action()

    pid = forked(child)
    os.waitpid(pid, _WALL)
    _ask(_SETOPTIONS, pid, _SYSGOOD | _CLONE | _SECCOMP | _EXITKILL)
    _ask(_CONT, pid)
    return _Tracer(pid, root, handler).follow()


class _Tracer:
    def __init__(self, pid: int, root: Path, handler: Handler) -> None:
        self.pid, self.handler = pid, handler
        self.root = os.path.realpath(root)
        self.running: dict[int, tuple[Call, int]] = {}  # thread -> its call, and where the bytes are

    def follow(self) -> int:
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):
                if thread == self.pid:
                    return status
                continue
            number, event = os.WSTOPSIG(status), status >> 16
            if event == _EVENT_SECCOMP:
                self._before(thread)
            elif number == signal.SIGTRAP | 0x80:
                self._after(thread)
            else:
                _ask(_CONT, thread, 0 if event or number in (signal.SIGSTOP, signal.SIGTRAP) else number)

    def _before(self, thread: int) -> None:
        info = _info(thread)
        try:
            call = self._call(CALLS[info.number], info.args)
        except FileNotFoundError:
            call = None
        if call is None:
            _ask(_CONT, thread)
        elif self.handler(call, False):
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.running[thread] = call, info.args[1]
            _ask(_SYSCALL, thread)

    def _after(self, thread: int) -> None:
        call, address = self.running.pop(thread)
        result = _info(thread).number
        if result >= 0:
            if call.name == "write":
                call.data = self._memory(address, result)
            if self.handler(call, True):
                os.kill(self.pid, signal.SIGKILL)
                return
        _ask(_CONT, thread)

    def _call(self, name: str, args: ctypes.Array[ctypes.c_int64]) -> Call | None:
        if name in ("open", "openat", "creat"):
            return self._opened(name, args)
        if name in ("write", "pwrite64"):
            call = self._of_file("write", args[0])
            if call is not None:
                call.offset = args[3] if name == "pwrite64" else self._position(args[0], call.path)
            return call
        if name in ("fsync", "fdatasync"):
            return self._of_file("sync", args[0])
        if name == "ftruncate":
            call = self._of_file("truncate", args[0])
            if call is not None:
                call.offset = args[1]
            return call
        if name in ("rename", "renameat", "renameat2"):
            at = [(_AT_FDCWD, args[0]), (_AT_FDCWD, args[1])] if name == "rename" else [args[0:2], args[2:4]]
            path, to = (self._path(*where) for where in at)
            return Call("rename", path, to) if self._inside(path) or self._inside(to) else None
        if name in ("mkdir", "rmdir", "unlink", "mkdirat", "unlinkat"):
            path = self._path(args[0], args[1]) if name.endswith("at") else self._path(_AT_FDCWD, args[0])
            kind = "rmdir" if name == "unlinkat" and args[2] else name.removesuffix("at")
            return Call(kind, path) if self._inside(path) else None
        assert name in _UNKNOWN, name
        return self._of_file(name, args[0]) if not name.startswith(("link", "symlink", "truncate")) else None

    def _opened(self, name: str, args: ctypes.Array[ctypes.c_int64]) -> Call | None:
        at, address, flags = (_AT_FDCWD, args[0], args[1]) if name != "openat" else args[0:3]
        flags = os.O_CREAT | os.O_TRUNC if name == "creat" else flags
        if not flags & (os.O_CREAT | os.O_TRUNC):
            return None
        path = self._path(at, address)
        if not self._inside(path):
            return None
        if not os.path.exists(path):
            return Call("create", path) if flags & os.O_CREAT else None
        return Call("truncate", path) if flags & os.O_TRUNC else None

    def _of_file(self, name: str, descriptor: int) -> Call | None:
        path = os.readlink(f"/proc/{self.pid}/fd/{descriptor}")
        return Call(name, path) if self._inside(path) else None

    def _position(self, descriptor: int, path: str) -> int:
        lines = Path(f"/proc/{self.pid}/fdinfo/{descriptor}").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return os.stat(path).st_size if int(fields["flags"], 8) & _O_APPEND else int(fields["pos"])

    def _inside(self, path: str) -> bool:
        # SQLite's shared memory is a file in name only: it is mapped, and made anew by whoever comes first.
        return (path == self.root or path.startswith(self.root + "/")) and not path.endswith("-shm")

    def _path(self, at: int, address: int) -> str:
        text, page = b"", address
        while b"\0" not in text:  # up to the end of a page at a time: the next one may not be there
            text += self._memory(page, 4096 - page % 4096)
            page += 4096 - page % 4096
        name = os.fsdecode(text[: text.index(b"\0")])
        at = ctypes.c_int(at).value
        folder = os.readlink(f"/proc/{self.pid}/" + ("cwd" if at == _AT_FDCWD else f"fd/{at}"))
        path = os.path.join(folder, name)
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))

    def _memory(self, address: int, length: int) -> bytes:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), length, address)


def is_folder(path: str) -> bool:
    """Whether a folder is there; of what a sync is of."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _ask(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}): {os.strerror(ctypes.get_errno())}")


def _info(thread: int) -> _Info:
    info = _Info()
    size = ctypes.sizeof(info)
    if _libc.ptrace(_GET_SYSCALL_INFO, thread, size, ctypes.addressof(info)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace(PTRACE_GET_SYSCALL_INFO): Linux 5.3 has it")
    return info


def _report_calls() -> None:
    """Have the kernel report :data:`CALLS` of this process to its tracer, and let all others pass."""
    load, equal, give, allow, report = 0x20, 0x15, 0x06, 0x7FFF0000, 0x7FF00000
    numbers = sorted(CALLS)
    steps = [(load, 0, 0, 0), *((equal, len(numbers) - i, 0, n) for i, n in enumerate(numbers))]
    steps += [(give, 0, 0, allow), (give, 0, 0, report)]
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), instructions)
    no_new_privileges, set_seccomp, as_filter = 38, 22, 2
    _libc.prctl(no_new_privileges, 1, 0, 0, 0)
    if _libc.prctl(set_seccomp, as_filter, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp is not allowed here")
