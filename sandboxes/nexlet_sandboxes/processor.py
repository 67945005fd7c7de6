"""What processes have used of the processors, and have waited for them: the kernel's count, whatever they say."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["processors", "runnable", "used_ns", "waited_ns"]


def used_ns(pid: int) -> int:
    """Nanoseconds of processor time that a process has used; 0 where it is gone.

    The clock of another process: `clock_getcpuclockid(3)`, which Python does not have; the number is made as there
    (`MAKE_PROCESS_CPUCLOCK` of the kernel's include/linux/posix-timers.h).
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0


def waited_ns(pid: int) -> int:
    """Nanoseconds in which a process could have run and had no processor, of its first thread; 0 where it is gone.

    The kernel's `run_delay` (Documentation/scheduler/sched-stats.rst), where a wait is counted when it is over. A
    kernel that does not count it says nothing of it, as does one that hides the processes of others from us: 0 as well.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def runnable(pid: int) -> bool:
    """Whether it runs at this moment, or would if it had a processor."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"R"
    except (OSError, IndexError):
        return False


def processors() -> int:
    """How many this process may run on, and with it those that it starts; where nobody can say which, all there are."""
    if not hasattr(os, "sched_getaffinity"):  # where functions are checked, and nowhere run
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))
