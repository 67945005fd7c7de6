"""What other processes are at, as the kernel counts it: processor time, memory, and who is below whom.

A process that has gone has used no time and holds no memory: workers come and go while they are looked at.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["alive", "cpu_seconds", "descendants", "proportional_mib", "together_mib"]

_TICKS = os.sysconf("SC_CLK_TCK")


def alive(pid: int) -> bool:
    """Whether it runs; not, where it has ended and nobody has looked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_seconds(pid: int, *, ended: bool = False) -> float:
    """User and system time of a process so far, all its threads together, to the nanosecond.

    Read from its clock, as `clock_getcpuclockid(3)` names it: /proc counts in hundredths of a second, which is as much
    as an idle nexlet takes in a few.

    Args:
        ended: add that of its children that have ended, which is known to a hundredth of a second.
    """
    try:
        own = time.clock_gettime(~pid << 3 | 2)
        if not ended:
            return own
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return own + sum(map(int, fields[13:15])) / _TICKS


def descendants(pid: int) -> list[int]:
    """Ids of all processes below one."""
    found: list[int] = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return found
    for child in map(int, children):
        found += [child, *descendants(child)]
    return found


def proportional_mib(pid: int) -> float:
    """Memory of a process in MiB (PSS): of what several share, each has its part.

    Raises:
        PermissionError: it lets nobody look but root, as the nexlet and its workers do.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def together_mib(pid: int) -> float:
    """The same of a process and all below it."""
    return sum(proportional_mib(each) for each in [pid, *descendants(pid)])
