"""No capability is left to a worker: not of root, not those a service manager gave to an ordinary user, and not the
full set that comes with a user namespace of one's own.

Source: capabilities(7), and the kernel's include/uapi/linux/capability.h.
"""

from __future__ import annotations

import ctypes
from typing import Final

from nexlet_sandboxes.kernel import libc
from nexlet_sandboxes.kernel.steps import Steps

__all__ = ["drop_all"]

_VERSION_3: Final = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_NOTHING: Final = (ctypes.byref(_Header(_VERSION_3, 0)), (ctypes.c_uint32 * 6)())
"""For this process: none effective, permitted, inheritable, in two words of 32 bits each."""


def drop_all() -> Steps:
    """Give up every effective, permitted and inheritable capability; the ambient ones go with them."""
    return (libc.call_step("capset", *_NOTHING),)
