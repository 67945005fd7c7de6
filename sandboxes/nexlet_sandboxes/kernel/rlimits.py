"""Resource limits of a worker, as a table: what is limited, to how much, and why that number.

`memory` is growth above the worker as it is when it is ready to load: the limit on address space is what it has then
and the growth on top. RLIMIT_NPROC does not bind root; a worker of a root nexlet needs the kernel locks for that.
"""

from __future__ import annotations

import mmap
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexlet_sandboxes.kernel.steps import Step, Steps

__all__ = ["NOFILE", "TABLE", "Limit", "address_space", "limit_address_space", "limit_resources"]


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


def limit_resources() -> Steps:
    """Apply the table.

    Raises:
        OSError: this system does not know one of the limits. (Importing must work elsewhere than on Linux, too.)
    """
    steps = []
    for row in TABLE:
        number = getattr(resource, f"RLIMIT_{row.name.upper()}", None)
        if number is None:
            raise OSError(f"this system has no limit '{row.name}'")
        steps.append(Step(resource.setrlimit, (number, (row.value, row.value))))
    return tuple(steps)


def address_space() -> int:
    """Bytes of address space this process has, from /proc/self/statm.

    Raises:
        OSError: there is no /proc to read.
    """
    return int(Path("/proc/self/statm").read_bytes().split(maxsplit=1)[0]) * mmap.PAGESIZE


def limit_address_space(space: list[object]) -> Step:
    """Limit all memory, the stack included, to what `space` will say: RLIMIT_AS and its two values (bytes)."""
    return Step(resource.setrlimit, space)
