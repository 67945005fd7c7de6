"""What this machine has for us, or what the control groups around us leave of it: memory, processes, descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

__all__ = ["descriptors", "memory", "processes"]

_TREE: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def memory(*, tree: Path = _TREE, own: Path = _OWN) -> int:
    """Bytes: of the machine, or of the tightest group that we are in.

    Args:
        tree: where control groups (v2) are mounted.
        own: which of them we are in.
    """
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([pages, *_limits("memory.max", tree, own)])


def processes(*, tree: Path = _TREE, own: Path = _OWN) -> int | None:
    """How many the tightest group that we are in may have; None without a limit."""
    return min(_limits("pids.max", tree, own), default=None)


def descriptors() -> int:
    """How many this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def _limits(file: str, tree: Path, own: Path) -> list[int]:
    """What this file says in our group and in those around it; a container sees none beyond its own."""
    found = []
    with contextlib.suppress(OSError):  # no /proc, or no control groups: then they limit nothing that we can see
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers:
                continue  # of cgroup v1
            group = tree / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(tree):
                    with contextlib.suppress(OSError, ValueError):  # the root has none; "max" is none
                        found.append(int((folder / file).read_text()))
    return found
