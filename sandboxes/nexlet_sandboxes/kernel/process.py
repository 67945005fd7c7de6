"""Process attributes of a worker: its session, its descriptors, whom it dies with, what may look at it.

Thin ctypes over prctl(2) and close_range(2). Linux has them all; elsewhere each says that it is missing, and the caller
decides whether that is permitted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

__all__ = ["die_with_parent", "keep_only", "no_new_privileges", "not_dumpable"]

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38


def _prctl(option: int, argument: int) -> None:
    if sys.platform != "linux":
        raise OSError(f"prctl is Linux's; this is {sys.platform}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {argument}): {os.strerror(number)}")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` (a pid) ends; and end now if it has ended already.

    The signal is set for the parent's thread that forked us, and cleared by a change of uid: set it after that.

    Raises:
        OSError: the kernel does not know how.
        SystemExit: the parent was gone before the signal was set.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")


def not_dumpable() -> None:
    """No core dumps, no ptrace, and /proc/PID of this process belongs to root.

    Raises:
        OSError: the kernel does not know how.
    """
    _prctl(PR_SET_DUMPABLE, 0)


def no_new_privileges() -> None:
    """What is executed from here on gains nothing by set-uid bits or file capabilities.

    Raises:
        OSError: the kernel does not know how.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def keep_only(*descriptors: int) -> None:
    """Close every descriptor but these, and let 0, 1 and 2 be /dev/null, so that no later one takes their number."""
    kept = sorted({0, 1, 2, *descriptors})
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in descriptors:
            os.dup2(null, standard)
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
