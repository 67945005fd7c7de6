"""Control groups (cgroup v2): a group for each worker, whose memory, processes and processor time the kernel bounds.

What a process charges to its group is counted for all of it, kernel memory and what it leaves in shared memory
included, which no limit on address space does. The zygote makes a group, writes its limits, has the worker born in it
(`fork_into`), and removes it when the worker is gone. Moving a process into a group that it was not born in makes the
kernel wait for a grace period, some 20 milliseconds, so that is left to kernels and containers without clone3.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst, and clone(2) about CLONE_INTO_CGROUP.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import mmap
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "CONTROLLERS",
    "TABLE",
    "Group",
    "Limit",
    "clear",
    "fork_into",
    "join",
    "limited",
    "processes",
    "ran_out_of_memory",
    "remove",
    "words",
]


@dataclass(frozen=True, slots=True)
class Limit:
    """One row: what is written to a file of the group.

    Attributes:
        controller: which must be delegated for the file to be there.
        file: its name.
        value: what is written; `{memory}` and `{processes}` are the worker's.
        why: why that.
        needed: whether a kernel that has the controller must have the file, too.
    """

    controller: str
    file: str
    value: str
    why: str
    needed: bool = True


TABLE: Final[tuple[Limit, ...]] = (
    Limit("memory", "memory.max", "{memory}", "the limit on address space, seen as what is really used, of any kind"),
    Limit("memory", "memory.swap.max", "0", "what is over its limit ends, and slows nobody down", needed=False),
    Limit("memory", "memory.oom.group", "1", "nothing of it is left when it ends", needed=False),
    Limit("pids", "pids.max", "{processes}", "a worker is one process with one thread; with namespaces two, at first"),
    Limit("cpu", "cpu.max", "100000 100000", "one thread takes one processor, and whatever it becomes takes no more"),
)
"""Limits of a worker's group, in the order in which they are written."""

CONTROLLERS: Final = tuple(dict.fromkeys(row.controller for row in TABLE))
"""What we make use of, as far as it is delegated."""

_CLEAR_TIMEOUT: Final = 5.0
"""Seconds for processes that got SIGKILL to be gone, on a busy machine."""

_CLONE3: Final = 435
"""The same on x86_64 and aarch64: this call came after the tables were unified."""

_CHILD_CLEARTID: Final = 0x00200000
_CHILD_SETTID: Final = 0x01000000
_INTO_CGROUP: Final = 0x200000000
_PR_GET_TID_ADDRESS: Final = 40
_NO_CLONE3: Final = frozenset((errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG))
"""What a kernel before 5.7, or a container's filter of system calls, says to the call."""


@dataclass(frozen=True, slots=True)
class Group:
    """A worker's group.

    Attributes:
        path: its folder.
    """

    path: Path

    @classmethod
    def make(cls, path: Path, controllers: Iterable[str], *, memory: int, processes: int) -> Group:
        """Make the group and write its limits.

        Args:
            controllers: those that its folder has.
            memory: bytes it may have at most, above what the zygote has now: a worker's copies of the zygote's pages
                are its own, and count.
            processes: at most.

        Raises:
            OSError: the kernel refuses. Nothing is left then.
        """
        path.mkdir(0o755)
        try:
            values = {"memory": memory + _resident(), "processes": processes}
            for row in TABLE:
                if row.controller in controllers:
                    _limit(path, row, row.value.format(**values))
        except OSError:
            remove(path)
            raise
        return cls(path)

    def open(self) -> int:
        """A descriptor of it, for `fork_into` and `join`."""
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def alone(self) -> None:
        """From now on one process, and no more: whoever made it in its namespaces is gone."""
        with contextlib.suppress(FileNotFoundError):  # pids is not delegated
            _write(self.path / "pids.max", "1")


def _limit(path: Path, row: Limit, value: str) -> None:
    try:
        _write(path / row.file, value)
    except FileNotFoundError:
        if row.needed:
            raise


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path.name}: {error.strerror}") from None
    finally:
        os.close(descriptor)


@functools.cache
def _resident() -> int:
    """Bytes of this process that are in memory, when it is first asked."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


# Being born in one.


class _Arguments(ctypes.Structure):
    """`struct clone_args` of Linux 5.7."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


class _Unsupported(OSError):
    pass


@functools.cache
def _without_releasing() -> ctypes.PyDLL:
    """libc with the interpreter's lock held: the child must come back with the lock it left with."""
    return ctypes.PyDLL(None, use_errno=True)


@functools.cache
def _thread_id() -> int:
    """Where libc keeps the number of the main thread, which fork(2) of libc sets anew in the child; 0 if unknown.

    The kernel knows: it is what libc gave it with set_tid_address(2). That is glibc's way; a libc that has something
    else there shows by its not being our number.
    """
    place = ctypes.c_void_p(0)
    prctl = _without_releasing().prctl
    if prctl(_PR_GET_TID_ADDRESS, ctypes.byref(place), 0, 0, 0) or not place.value:
        return 0
    return place.value if ctypes.c_int.from_address(place.value).value == os.getpid() else 0


def fork_into(descriptor: int) -> tuple[int, bool]:
    """fork(2), with the child born in a group. For a process of one thread.

    Args:
        descriptor: of the group's folder.

    Returns:
        As fork does, the child's number, 0 in the child; and whether the child is in the group. Where this kernel, or
        the filter of a container, does not know clone3, it is not, and has to `join`.

    Raises:
        OSError: the kernel does not let a process into that group, or has none to give.
    """
    try:
        return _clone(descriptor), True
    except _Unsupported:
        return os.fork(), False


def _clone(descriptor: int) -> int:
    number = _thread_id()
    flags = _INTO_CGROUP | (_CHILD_SETTID | _CHILD_CLEARTID if number else 0)
    arguments = _Arguments(flags=flags, child_tid=number, exit_signal=signal.SIGCHLD, cgroup=descriptor)
    call, python = _without_releasing().syscall, ctypes.pythonapi
    given = (ctypes.c_long(_CLONE3), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))
    before, in_child, in_parent = python.PyOS_BeforeFork, python.PyOS_AfterFork_Child, python.PyOS_AfterFork_Parent
    # Between the first and the last of these calls the interpreter's own locks are taken: nothing may be collected.
    collecting = gc.isenabled()
    gc.disable()
    try:
        before()
        pid: int = call(*given)
        if pid == 0:
            in_child()
        else:
            in_parent()
    finally:
        if collecting:
            gc.enable()
    if pid < 0:
        code = ctypes.get_errno()
        kind = _Unsupported if code in _NO_CLONE3 else OSError
        raise kind(code, f"clone3: {os.strerror(code)}")
    return pid


def join(descriptor: int) -> None:
    """Move this process into a group.

    Args:
        descriptor: of the group's folder; -1 where it is in its group already.

    Raises:
        OSError: the kernel does not let us.
    """
    if descriptor < 0:
        return
    procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        os.write(procs, b"0")
    finally:
        os.close(procs)


# Looking, and the end.


def words(path: Path | str, *, folder: int | None = None) -> list[str]:
    """What a file of a group says, in words.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        text = b""
        while data := os.read(descriptor, 65536):
            text += data
    finally:
        os.close(descriptor)
    return text.decode("ascii", "replace").split()


def processes(folder: int) -> list[int]:
    """Numbers of the processes in a group; 0 for one that is in another pid namespace.

    Raises:
        OSError: it cannot be read.
    """
    return [int(word) for word in words("cgroup.procs", folder=folder)]


def limited(folder: int) -> tuple[str, ...]:
    """Controllers whose limits a group has."""
    present = set(os.listdir(folder))
    return tuple(name for name in CONTROLLERS if f"{name}.max" in present)


def ran_out_of_memory(path: Path) -> bool:
    """Whether something in the group was killed because the group was at its own limit."""
    try:
        said = words(path / "memory.events")
    except OSError:
        return False  # memory is not delegated, or it is gone
    events = dict(zip(said[::2], said[1::2], strict=False))
    # A machine that is out of memory kills, too, and counts that as oom_kill alone.
    return all(int(events.get(name, "0")) > 0 for name in ("oom", "oom_kill"))


def remove(path: Path) -> bool:
    """Remove a group; whether it is gone. Where something still runs in it that is killed, and it takes another try."""
    for last in (False, True):
        try:
            path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            if not last:
                _kill(path)
            continue
        return True
    return False


def _kill(path: Path) -> None:
    try:
        _write(path / "cgroup.kill", "1")
    except OSError:  # Linux 5.14 brought it
        with contextlib.suppress(OSError):
            for pid in map(int, words(path / "cgroup.procs")):
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def clear(path: Path) -> bool:
    """End everything in a group and those below it, and remove them all; whether that is done. Waits for their end."""
    due = time.monotonic() + _CLEAR_TIMEOUT
    _kill(path)
    return _settled(path, due) and all(remove(one) for one in (*_below(path), path))


def _below(path: Path) -> Sequence[Path]:
    found = (Path(folder) for folder, _, _ in os.walk(path, topdown=False))
    return [folder for folder in found if folder != path]


def _settled(path: Path, due: float) -> bool:
    """Wait until nothing runs in a group or below it: the kernel says so with POLLPRI on its events."""
    try:
        descriptor = os.open(path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return not path.is_dir()
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLPRI)
        while b"populated 1" in os.pread(descriptor, 4096, 0):
            left = due - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
        return True
    finally:
        os.close(descriptor)
