"""An unprivileged identity of its own for each worker, where the nexlet runs as root.

Root may signal, trace and read everybody, and RLIMIT_NPROC does not bind it. Workers get a user id that nobody else
has, from a range that the common schemes (login users, systemd's dynamic users and containers) leave alone; see
systemd's "Users, Groups, UIDs and GIDs" (docs/UIDS-GIDS.md).
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["FIRST_ID", "IDS", "become_nobody"]

FIRST_ID: Final = 0x70000000
IDS: Final = 0x10000


def become_nobody(number: int) -> None:
    """Give up root for the user and group id of worker `number`; nothing happens where we are not root.

    Raises:
        OSError: the ids are not to be had, such as in a user namespace that does not map them.
    """
    if os.geteuid() != 0:
        return
    identity = FIRST_ID + number % IDS
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)
