"""Who is whose child, so that a test can say that a command left nobody behind."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.polling import eventually

__all__ = ["catches", "descendants", "none_left"]


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal by now."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def descendants(pid: int) -> set[tuple[int, int]]:
    """All processes below `pid`, each with the time of its start: a number may be given away again."""
    parents: dict[int, tuple[int, int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which is in brackets and may have anything in it.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        parents[int(stat.parent.name)] = (int(fields[1]), int(fields[19]))
    found: set[tuple[int, int]] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for child, (of, began) in parents.items():
            if of == parent:
                found.add((child, began))
                waiting.append(child)
    return found


def _alive(process: tuple[int, int]) -> bool:
    pid, began = process
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == began and fields[0] != "Z"


async def none_left(processes: set[tuple[int, int]], *, within: float = 5.0) -> None:
    """Return once all of `processes` have ended.

    Raises:
        AssertionError: some live on.
    """
    await eventually(lambda: not any(map(_alive, processes)), within=within, what="processes are left")
