"""The few calls of libc and the kernel that Python has no name for, with errors as `OSError`.

Linux only; elsewhere each call says so. Nothing is loaded before the first call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Final

from nexlet_sandboxes.kernel.steps import Step, refused

__all__ = ["call", "call_step", "prctl", "prctl_step", "syscall", "syscall_step"]

_UNUSED: Final = ctypes.c_ulong(0)


@functools.cache
def _libc() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError(f"the locks of a worker are Linux's; this is {sys.platform}")
    return ctypes.CDLL(None, use_errno=True)


def call_step(name: str, *arguments: object) -> Step:
    """A call of the function `name` of libc, to be made later.

    Raises:
        OSError: this is not Linux.
    """
    return Step(getattr(_libc(), name), arguments)


def prctl_step(option: int, argument: int, pointer: object = _UNUSED) -> Step:
    """A prctl(2) with one argument, and a second where there is one, to be made later.

    Raises:
        OSError: this is not Linux.
    """
    return call_step("prctl", option, ctypes.c_ulong(argument), pointer, _UNUSED, _UNUSED)


def syscall_step(number: int, *arguments: object) -> Step:
    """A system call that libc has no function for, to be made later.

    Raises:
        OSError: this is not Linux.
    """
    return call_step("syscall", ctypes.c_long(number), *arguments)


def call(name: str, *arguments: object) -> int:
    """Call the function `name` of libc; its result.

    Raises:
        OSError: it returned -1, with its errno; or this is not Linux.
    """
    function = getattr(_libc(), name)
    result: int = function(*arguments)
    if result == -1:
        raise refused(function, result)
    return result


def prctl(option: int, argument: int, pointer: object = _UNUSED) -> int:
    """prctl(2) with one argument, and a second where there is one.

    Raises:
        OSError: the kernel refuses, or does not know the option.
    """
    try:
        return call("prctl", option, ctypes.c_ulong(argument), pointer, _UNUSED, _UNUSED)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"prctl({option}, {argument}): {os.strerror(error.errno)}") from None


def syscall(what: str, number: int, *arguments: object) -> int:
    """A system call that libc has no function for; `what` is its name in an error.

    Raises:
        OSError: the kernel refuses, or does not know it.
    """
    try:
        return call("syscall", ctypes.c_long(number), *arguments)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"{what}: {os.strerror(error.errno)}") from None
