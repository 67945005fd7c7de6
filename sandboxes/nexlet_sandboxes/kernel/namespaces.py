"""Namespaces of a worker's own: users, processes, network, mounts, IPC and host name; and an empty file system.

A process cannot enter a new pid namespace itself, only its children do. So the forked child makes the namespaces,
forks once more and ends; the zygote, being a subreaper, becomes the parent of the inner process. The two meet over the
leash, a socket: the first child says the inner process's number, or why there is none; the zygote says "go" once it
has reaped the first child. Not before: a parent-death signal that is set earlier would fire at that very end.

Source: user_namespaces(7), pid_namespaces(7), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import Final

from nexlet_sandboxes.kernel import libc
from nexlet_sandboxes.kernel.process import dumpable
from nexlet_sandboxes.kernel.steps import run

__all__ = ["GO", "empty_root", "enter"]

GO: Final = b"go"
"""What the zygote says to the inner process when it has become its parent."""

_NEW_MOUNTS: Final = 0x00020000
_NEW_UTS: Final = 0x04000000
_NEW_IPC: Final = 0x08000000
_NEW_USER: Final = 0x10000000
_NEW_PID: Final = 0x20000000
_NEW_NET: Final = 0x40000000
_ALL: Final = _NEW_MOUNTS | _NEW_UTS | _NEW_IPC | _NEW_USER | _NEW_PID | _NEW_NET

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}


def enter(leash: socket.socket) -> None:
    """Go on as the first process of new namespaces. Returns in the inner process only.

    The caller's user and group are mapped onto themselves, so the process stays who it is outside, and has every
    capability over its own namespaces and none over anything else; `capabilities` takes those away, too.

    Args:
        leash: the child's end; it is closed when this returns.

    Raises:
        OSError: the kernel does not let us; nothing was forked then.
        SystemExit: the zygote ended meanwhile.
    """
    user, group = os.geteuid(), os.getegid()
    # The files in /proc/self belong to root as long as we are not dumpable, and the maps are written there.
    run(dumpable(True))
    try:
        libc.call("unshare", _ALL)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    finally:
        run(dumpable(False))
    inner = os.fork()
    if inner:
        leash.send(b"%d" % inner)
        os._exit(0)
    with leash:
        if leash.recv(len(GO)) != GO:
            raise SystemExit("the zygote is gone")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def empty_root() -> None:
    """Let the root be an empty, read-only file system, and everything else be gone. Needs a mount namespace of its own.

    Raises:
        OSError: the kernel does not let us, such as where the root is the initial RAM file system.
    """
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise OSError(f"the number of pivot_root on {machine} is not known; on {', '.join(_SYS_PIVOT_ROOT)} it is")
    libc.call("mount", b"none", b"/", None, _ulong(_MS_REC | _MS_PRIVATE), None)
    flags = _ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    # Any folder does to mount over; /proc is the one that a worker must find anyway.
    libc.call("mount", b"none", b"/proc", b"tmpfs", flags, b"size=4k,nr_inodes=1,mode=0555")
    os.chdir("/proc")
    # The old root comes to lie over the new one, in the same place, and is let go: no folder is needed for it.
    libc.syscall("pivot_root", _SYS_PIVOT_ROOT[machine], b".", b".")
    libc.call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def _ulong(value: int) -> object:
    return ctypes.c_ulong(value)
