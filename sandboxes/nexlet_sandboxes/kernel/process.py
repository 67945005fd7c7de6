"""Process attributes of a worker: environment, descriptors, session, whom it dies with, what may look at it.

Each function gives the steps to be made, over prctl(2) and close_range(2). Linux has them all; elsewhere each raises an
`OSError` that says so.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from nexlet_sandboxes.kernel import libc
from nexlet_sandboxes.kernel.steps import Step, Steps

__all__ = [
    "adopt_orphans",
    "clear_environment",
    "die_with_outer_parent",
    "die_with_parent",
    "dumpable",
    "keep_only",
    "no_new_privileges",
]

_MAX_DESCRIPTOR: Final = (1 << 31) - 1
"""More than any limit on descriptors: close_range(2) takes no longer for it."""

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38


def die_with_parent(parent: int) -> Steps:
    """Have the kernel kill this process when `parent` (a pid) ends; and fail if it has ended already.

    The signal is set for the parent's thread that forked us, and cleared by a change of uid: set it after that.
    """
    return (libc.prctl_step(PR_SET_PDEATHSIG, signal.SIGKILL), Step(os.getppid, (), parent))


def die_with_outer_parent(parent: int) -> Steps:
    """The same in a pid namespace of one's own, in which the parent has no number and getppid() is 0.

    The /proc that is still mounted is the outer one, and knows the number.
    """
    return (libc.prctl_step(PR_SET_PDEATHSIG, signal.SIGKILL), Step(_outer_parent, (), parent))


def _outer_parent() -> int:
    with open("/proc/self/status", "rb") as file:  # noqa: PTH123  # called in a fresh fork: as little as can be
        return next(int(line.split()[1]) for line in file if line.startswith(b"PPid:"))


def adopt_orphans() -> Steps:
    """Become the parent of every descendant whose own parent ends."""
    return (libc.prctl_step(PR_SET_CHILD_SUBREAPER, 1),)


def dumpable(allowed: bool) -> Steps:
    """Without it: no core dumps, no ptrace, and /proc/PID of this process belongs to root."""
    return (libc.prctl_step(PR_SET_DUMPABLE, int(allowed)),)


def no_new_privileges() -> Steps:
    """What is executed from here on gains nothing by set-uid bits or file capabilities."""
    return (libc.prctl_step(PR_SET_NO_NEW_PRIVS, 1),)


def keep_only(null: int, *descriptors: int) -> Steps:
    """Close every descriptor but these, and let 0, 1 and 2 be what `null` is, so that no later one takes their number.

    None of them may be below 3.
    """
    kept = sorted(descriptors)
    gaps = zip([3, *(one + 1 for one in kept)], [*kept, _MAX_DESCRIPTOR], strict=True)
    return (
        *(Step(os.dup2, (null, standard)) for standard in (0, 1, 2)),
        *(Step(os.closerange, (low, high)) for low, high in gaps if low < high),
    )


def clear_environment() -> Steps:
    """Leave one variable, to libc and to what is executed. What Python itself remembers of it the zygote has cleared.

    Without TZ libc goes and looks for the machine's own: see `zygote`.
    """
    return (libc.call_step("clearenv"), Step(os.putenv, ("TZ", "UTC")))
