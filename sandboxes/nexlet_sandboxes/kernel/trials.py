"""One harmless thing for each layer that the layer must refuse: what a throw-away worker tries to prove that it holds.

A trial runs in a process that the zygote made for nothing else, locked by the layers of a profile up to the one that is
tried and no further: what refuses it is that layer, and not a later one. No program is ever loaded into such a process,
and no worker that has one can come here. Where nothing could be refused without harm being done if it is not, the
kernel is asked what it will do, instead.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexlet_sandboxes.kernel import cgroups, landlock, libc
from nexlet_sandboxes.kernel.rlimits import NOFILE

__all__ = ["TRIALS", "Finding", "Trial"]

CANARY: Final = "NEXLET_CANARY"
_PR_GET_PDEATHSIG: Final = 2
_PR_GET_NO_NEW_PRIVS: Final = 39


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a trial: whether the layer holds, and what happened, in a few words."""

    holds: bool
    happened: str


@dataclass(frozen=True, slots=True)
class Trial:
    """How a layer is tried.

    Attributes:
        tried: what is tried, in words.
        attempt: tries it, in the locked process. Its argument is what `prepare` gave.
        prepare: what must be there before the locks, for the attempt to look for.
        kills: the signal by which the attempt ends the process where the layer holds; None where it goes on.
    """

    tried: str
    attempt: Callable[[int], Finding]
    prepare: Callable[[], int] = os.getppid
    kills: signal.Signals | None = None


def _refused(action: Callable[[], object], *expected: int) -> Finding:
    """Whether `action` fails with one of the expected error numbers."""
    try:
        action()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        if error.errno in expected:
            return Finding(True, f"refused: {os.strerror(error.errno)} ({name})")
        return Finding(False, f"it failed for another reason: {error.strerror} ({name})")
    return Finding(False, "it was possible")


def _cgroup(group: int) -> Finding:
    if os.getpid() not in cgroups.processes(group):
        return Finding(False, "it is not in its group")
    limited = cgroups.limited(group)
    if not limited:
        return Finding(False, f"its group limits nothing: none of {', '.join(cgroups.CONTROLLERS)} is delegated")
    if "cpu" in limited and cgroups.words("cpu.max", folder=group)[0] == "max":
        return Finding(False, "it may take every processor")
    if "pids" in limited:
        found = _refused(_fork, errno.EAGAIN)
        if not found.holds:
            return Finding(False, f"another process: {found.happened}")
    if "memory" in limited:
        _take(2 * int(cgroups.words("memory.max", folder=group)[0]))
        return Finding(False, "it took twice its memory")
    return Finding(True, f"limited, as far as that is delegated: {', '.join(limited)}")


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _take(size: int) -> None:
    """Take memory for good: every page is written to."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        for start in range(0, size, mmap.PAGESIZE):
            taken[start] = 1


def _plant_variable() -> int:
    os.putenv(CANARY, "here")  # where libc and the kernel keep it; Python's own copy is the zygote's
    return 0


def _environment(_: int) -> Finding:
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    left = sorted({*os.environ} - {"TZ"})
    if left or getenv(CANARY.encode()) is not None:
        return Finding(False, f"it was still there{f', with {len(left)} others' if left else ''}")
    return Finding(True, "there is none")


def _plant_descriptor() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def _descriptors(planted: int) -> Finding:
    return _refused(lambda: os.fstat(planted), errno.EBADF)


def _identity(_: int) -> Finding:
    if os.geteuid() == 0:
        return Finding(False, "it is root still")
    return _refused(lambda: os.setresuid(0, 0, 0), errno.EPERM, errno.EINVAL)


def _namespaces(zygote: int) -> Finding:
    found = _refused(lambda: os.kill(zygote, 0), errno.ESRCH)
    interfaces = [name for _, name in socket.if_nameindex() if name != "lo"]
    if found.holds and interfaces:
        return Finding(False, f"it sees the network interfaces {', '.join(interfaces)}")
    return found


def _session(_: int) -> Finding:
    own = os.getpid()
    if (os.getsid(0), os.getpgid(0)) != (own, own):
        return Finding(False, "it is in a session that others are in")
    return _refused(lambda: os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY), errno.ENXIO, errno.ENOENT, errno.EACCES)


def _parent_death(_: int) -> Finding:
    number = ctypes.c_int(0)
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    if number.value != signal.SIGKILL:
        return Finding(False, "it would live on")
    return Finding(True, "it would be killed: SIGKILL is set")


def _not_dumpable(_: int) -> Finding:
    return _refused(lambda: os.close(os.open("/proc/self/mem", os.O_RDONLY)), errno.EACCES, errno.EPERM)


def _rlimits(_: int) -> Finding:
    def open_many() -> None:
        opened: list[int] = []
        try:
            for _ in range(NOFILE + 1):
                opened.append(os.dup(0))
        finally:
            for descriptor in opened:
                os.close(descriptor)

    memory = _refused(lambda: mmap.mmap(-1, TRIAL_MEMORY * 2), errno.ENOMEM)
    descriptors = _refused(open_many, errno.EMFILE)
    happened = f"memory: {memory.happened}; descriptors: {descriptors.happened}"
    return Finding(memory.holds and descriptors.holds, happened)


def _empty_root(_: int) -> Finding:
    seen = list(Path("/").iterdir())
    if seen:
        return Finding(False, f"there are {len(seen)} files and folders to see")
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        return Finding(False, "there is nothing to see, but files can be made")
    return _refused(lambda: Path("/proc/self").stat(), errno.ENOENT)


def _capabilities(_: int) -> Finding:
    return _refused(lambda: os.chroot("/"), errno.EPERM)


def _no_new_privs(_: int) -> Finding:
    if libc.prctl(_PR_GET_NO_NEW_PRIVS, 0) != 1:
        return Finding(False, "a set-uid program would gain what it asks for")
    return Finding(True, "it would gain nothing")


def _landlock(zygote: int) -> Finding:
    abi = landlock.abi_version()
    tries: list[tuple[str, Callable[[], object], int]] = [("files", lambda: list(Path("/").iterdir()), errno.EACCES)]
    if abi >= landlock.NET_SINCE:
        tries.append(("TCP", _bind, errno.EACCES))
    if abi >= landlock.SCOPE_SINCE and os.getpid() != 1:
        # In a pid namespace of its own it has nobody to signal.
        tries.append(("signals", lambda: os.kill(zygote, 0), errno.EPERM))
    for what, action, expected in tries:
        found = _refused(action, expected)
        if not found.holds:
            return Finding(False, f"{what}: {found.happened}")
    covered = ", ".join(what for what, _, _ in tries)
    missing = "" if abi >= landlock.SCOPE_SINCE else f"; what version {abi} does not know stays to seccomp"
    return Finding(True, f"refused: {covered} (Landlock version {abi}{missing})")


def _bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))


def _seccomp(_: int) -> Finding:
    os.getpgid(0)
    return Finding(False, "it was answered")


TRIAL_MEMORY: Final = 64 * 1024 * 1024
"""Bytes that a throw-away worker may grow by."""

TRIALS: Final[dict[str, Trial]] = {
    "cgroup": Trial("start a process, and take twice the memory of its group", _cgroup, kills=signal.SIGKILL),
    "environment": Trial("read a variable of the process it was made from", _environment, _plant_variable),
    "descriptors": Trial("use a descriptor of the process it was made from", _descriptors, _plant_descriptor),
    "identity": Trial("become root", _identity),
    "namespaces": Trial("find the process that made it, and a network", _namespaces),
    "session": Trial("reach a terminal, and the processes of another session", _session),
    "parent-death": Trial("outlive the process that made it (asked, not tried)", _parent_death),
    "not-dumpable": Trial("open its own memory as a debugger does", _not_dumpable),
    "rlimits": Trial("take twice the memory and one descriptor more than allowed", _rlimits),
    "empty-root": Trial("see any file or folder", _empty_root),
    "capabilities": Trial("change its root folder, for which it takes a capability", _capabilities),
    "no-new-privs": Trial("gain rights by executing a set-uid program (asked, not tried)", _no_new_privs),
    "landlock": Trial("read a folder, open a TCP port, signal another process", _landlock),
    "seccomp": Trial("ask for its process group, a system call that is not on the list", _seccomp, kills=signal.SIGSYS),
}
"""For every layer of `locks.LAYERS`."""
