"""Landlock: no file, no TCP port, no abstract socket and no foreign process, as far as the running kernel knows how.

A ruleset that handles every right and has no rule denies everything it handles. Which rights there are depends on the
kernel's ABI version; asking for one it does not know would fail, so the table below says from which version each is.
Source: the kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. ctypes, three calls.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from nexlet_sandboxes.kernel import libc
from nexlet_sandboxes.kernel.steps import Step, Steps

__all__ = ["NET_SINCE", "SCOPE_SINCE", "abi_version", "make_ruleset", "restrict", "rights"]

_CREATE_RULESET: Final = 444
_RESTRICT_SELF: Final = 446
"""The same on x86_64 and aarch64: these calls came after the tables were unified."""

_ASK_VERSION: Final = 1

_FILES_BY_ABI: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which ABI version how many rights over files there are: bits 0 to n - 1 (execute ... make_sym; refer; truncate;
ioctl_dev)."""

NET_SINCE: Final = 4
_NET: Final = 0b11
"""bind_tcp, connect_tcp."""

SCOPE_SINCE: Final = 6
_SCOPE: Final = 0b11
"""abstract unix sockets, signals."""


def abi_version() -> int:
    """The kernel's Landlock ABI; 0 where it has none, or has it turned off."""
    try:
        return libc.syscall(
            "landlock_create_ruleset", _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)
        )
    except OSError:
        return 0


def rights(version: int) -> tuple[int, ...]:
    """Every right that an ABI version (1 or later) knows, as the words of its `struct landlock_ruleset_attr`."""
    bits = max(count for since, count in _FILES_BY_ABI if since <= version)
    words = [(1 << bits) - 1]
    if version >= NET_SINCE:
        words.append(_NET)
    if version >= SCOPE_SINCE:
        words.append(_SCOPE)
    return tuple(words)


def make_ruleset() -> int:
    """A ruleset that denies everything Landlock can deny, as a descriptor. What it does not know is not denied.

    Processes may share it: each that is restricted by it is restricted by itself.

    Raises:
        OSError: the kernel has no Landlock, or refuses.
    """
    version = abi_version()
    if version == 0:
        raise OSError("this kernel has no Landlock, or it is not enabled at boot (lsm=landlock)")
    words = rights(version)
    attributes = (ctypes.c_uint64 * len(words))(*words)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return libc.syscall("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(attributes), size, ctypes.c_uint32(0))


def restrict(ruleset: int) -> Steps:
    """Deny this process what `ruleset` denies, and close that. Needs no_new_privs or CAP_SYS_ADMIN."""
    return (
        libc.syscall_step(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)),
        Step(os.close, (ruleset,)),
    )
