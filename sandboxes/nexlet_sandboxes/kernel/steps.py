"""What locks a process, as data: calls that are made ready before a fork, and made after it.

A forked process shares all memory with its parent until it writes, and Python writes wherever it merely passes: each
function it enters, each object it names costs the worker pages of its own and the time to copy them. So whatever can be
worked out ahead is, in the zygote, and what is left for the worker is one loop over C functions with their arguments.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

__all__ = ["Step", "Steps", "failing", "run"]


class Step(NamedTuple):
    """One call.

    Attributes:
        call: a C function; or a Python one, where there is no way around it.
        arguments: what it is called with; a list, where that is filled in after the fork.
        expected: its result, where that matters; None means anything but -1, by which functions of libc say that they
            failed. The number of the error is then `ctypes.get_errno()`.
    """

    call: Callable[..., object]
    arguments: Sequence[object] = ()
    expected: object = None


Steps = tuple[Step, ...]


def run(steps: Iterable[Step]) -> None:
    """Make the calls, up to the first that fails.

    Raises:
        OSError: a call failed, with its error number; or it had another result than the expected one.
    """
    for call, arguments, expected in steps:
        result = call(*arguments)
        if result == -1 or (expected is not None and result != expected):
            raise refused(call, result)


def refused(call: Callable[..., object], result: object) -> OSError:
    """The error behind a result that is not as it should be."""
    name = getattr(call, "__name__", repr(call))
    if result != -1:
        return OSError(errno.EPERM, f"{name}: it answered {result}")
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")


def failing(error: OSError) -> Step:
    """A step in the place of one that cannot be made ready: it fails where it would have been made."""
    return Step(_fail, (error,))


def _fail(error: OSError) -> NoReturn:
    raise error
