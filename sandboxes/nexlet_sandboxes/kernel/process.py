"""Process attributes of a worker: its session, its descriptors, whom it dies with, what may look at it.

Thin ctypes over prctl(2) and close_range(2). Linux has them all; elsewhere each says that it is missing, and the caller
decides whether that is permitted.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from nexlet_sandboxes.kernel import libc

__all__ = ["adopt_orphans", "die_with_parent", "dumpable", "keep_only", "no_new_privileges"]

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` (a pid) ends; and end now if it has ended already.

    The signal is set for the parent's thread that forked us, and cleared by a change of uid: set it after that.

    Raises:
        OSError: the kernel does not know how.
        SystemExit: the parent was gone before the signal was set.
    """
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if _parent() != parent:
        raise SystemExit("the parent is gone")


def _parent() -> int:
    """The parent's number as the parent itself knows it.

    In a pid namespace of one's own it has none, and getppid() is 0; the /proc that is still mounted is the outer one.
    """
    inner = os.getppid()
    if inner:
        return inner
    with open("/proc/self/status", "rb") as file:  # noqa: PTH123  # called in a fresh fork: as little as can be
        return next(int(line.split()[1]) for line in file if line.startswith(b"PPid:"))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends.

    Raises:
        OSError: the kernel does not know how.
    """
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def dumpable(allowed: bool) -> None:
    """Without it: no core dumps, no ptrace, and /proc/PID of this process belongs to root.

    Raises:
        OSError: the kernel does not know how.
    """
    libc.prctl(PR_SET_DUMPABLE, int(allowed))


def no_new_privileges() -> None:
    """What is executed from here on gains nothing by set-uid bits or file capabilities.

    Raises:
        OSError: the kernel does not know how.
    """
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)


def keep_only(*descriptors: int) -> None:
    """Close every descriptor but these, and let 0, 1 and 2 be /dev/null, so that no later one takes their number."""
    kept = sorted({0, 1, 2, *descriptors})
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in descriptors:
            os.dup2(null, standard)
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
