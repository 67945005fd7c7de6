"""An unprivileged identity of its own for each worker, where the nexlet runs as root.

Root may signal, trace and read everybody, and RLIMIT_NPROC does not bind it. Workers get a user id that nobody else
has, from a range that the common schemes (login users, systemd's dynamic users and containers) leave alone; see
systemd's "Users, Groups, UIDs and GIDs" (docs/UIDS-GIDS.md).
"""

from __future__ import annotations

import os
from typing import Final

from nexlet_sandboxes.kernel.steps import Step, Steps

__all__ = ["FIRST_ID", "IDS", "become", "of_worker"]

FIRST_ID: Final = 0x70000000
IDS: Final = 0x10000


def of_worker(number: int) -> int:
    """The user and group id of worker `number`."""
    return FIRST_ID + number % IDS


def become(ids: list[object]) -> Steps:
    """Give up root for `ids`, three times that of a worker; no steps where we are not root.

    They fail where the ids are not to be had, such as in a user namespace that does not map them.
    """
    if os.geteuid() != 0:
        return ()
    return (Step(os.setgroups, ([],)), Step(os.setresgid, ids), Step(os.setresuid, ids))
