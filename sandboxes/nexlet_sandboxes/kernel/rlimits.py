"""Resource limits of a worker, as a table: what is limited, to how much, and why that number.

`memory` is growth above the worker as it is when it is ready to load: the limit on address space is what it has then
and the growth on top. RLIMIT_NPROC does not bind root; a worker of a root nexlet needs the kernel locks for that.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import resource
from dataclasses import dataclass
from typing import Final

__all__ = ["NOFILE", "TABLE", "Limit", "address_space", "limit_address_space", "limit_resources", "prepared"]


NOFILE: Final = 16
"""Descriptors of a worker at most."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One row: the name of the limit (`RLIMIT_` and the name in capitals), its value both soft and hard, and why."""

    name: str
    value: int
    why: str


TABLE: Final[tuple[Limit, ...]] = (
    Limit("core", 0, "a core dump would hold environment and messages"),
    Limit("nproc", 0, "a worker is one process with one thread"),
    Limit("fsize", 0, "a worker writes no file"),
    Limit("nofile", NOFILE, "standard descriptors, its socket, and a few for libraries"),
    Limit("memlock", 0, "locked pages escape the accounting of memory"),
    Limit("msgqueue", 0, "POSIX queues outlive the process"),
)


@functools.cache
def prepared() -> tuple[tuple[int, tuple[int, int]], ...]:
    """The table as the system takes it. Elsewhere than on Linux not all of the limits exist, and importing must work.

    Raises:
        OSError: this system does not know one of them.
    """
    found = []
    for row in TABLE:
        number = getattr(resource, f"RLIMIT_{row.name.upper()}", None)
        if number is None:
            raise OSError(f"this system has no limit '{row.name}'")
        found.append((number, (row.value, row.value)))
    return tuple(found)


def limit_resources() -> None:
    """Apply the table to this process.

    Raises:
        OSError, ValueError: a limit is refused, or not known here; the worker must not go on.
    """
    for number, values in prepared():
        resource.setrlimit(number, values)


def address_space() -> int:
    """Bytes of address space this process has, from /proc/self/statm.

    Raises:
        OSError: there is no /proc to read.
    """
    # In a fresh fork: no file object, whose buffers alone are several pages.
    descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 128).split(maxsplit=1)[0]) * mmap.PAGESIZE
    finally:
        os.close(descriptor)


def limit_address_space(growth: int, *, base: int) -> None:
    """Allow `growth` bytes above `base` (the stack counts, too)."""
    total = base + growth
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        total = min(total, hard)
    resource.setrlimit(resource.RLIMIT_AS, (total, total))
    with contextlib.suppress(ValueError, OSError):  # not every kernel limits it, and AS is the wall
        resource.setrlimit(resource.RLIMIT_DATA, (total, total))
