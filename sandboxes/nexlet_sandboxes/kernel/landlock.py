"""Landlock: no file, no TCP port, no abstract socket and no foreign process, as far as the running kernel knows how.

A ruleset that handles every right and has no rule denies everything it handles. Which rights there are depends on the
kernel's ABI version; asking for one it does not know would fail, so the table below says from which version each is.
Source: the kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. ctypes, three calls.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Final

from nexlet_sandboxes.kernel import libc

__all__ = ["NET_SINCE", "SCOPE_SINCE", "abi_version", "deny_everything", "prepare", "rights"]

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


@functools.cache
def _attributes(version: int) -> tuple[object, ctypes.c_size_t]:
    words = rights(version)
    attributes = (ctypes.c_uint64 * len(words))(*words)
    return ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes))


def prepare() -> None:
    """Make what the running kernel is handed, before there are workers: they share it."""
    version = abi_version()
    if version:
        _attributes(version)


def deny_everything() -> int:
    """Deny this process everything Landlock can deny. Needs no_new_privs or CAP_SYS_ADMIN.

    Returns:
        The ABI version that was used: what is not in it is not denied here.

    Raises:
        OSError: the kernel has no Landlock, or refuses.
    """
    version = abi_version()
    if version == 0:
        raise OSError("this kernel has no Landlock, or it is not enabled at boot (lsm=landlock)")
    attributes, size = _attributes(version)
    ruleset = libc.syscall("landlock_create_ruleset", _CREATE_RULESET, attributes, size, ctypes.c_uint32(0))
    try:
        libc.syscall("landlock_restrict_self", _RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version
