"""How many workers a function is worth: the rules by which a pool grows and shrinks, as functions of what is known.

A pool grows for the time that calls wait, and not for their number. What the last in line will have waited when it
begins follows from how many wait before it and how long its workers take for one (`wait_ns`). Where that is longer than
the function's `workers.wait`, it has more workers (`more`), but for three cases in which they would be of no use:

- the present ones will have finished before another could be ready. What lasts is no burst, though: one that has lasted
  for as long as a start takes is believed to go on. (It is the ski-rental rule: who waits for as long as buying would
  have cost is never worse off than twice the best. R. Karp, "On-line algorithms versus off-line algorithms", 1992.)
- it computes, and there are two for each processor: one runs while the answer of the other is on its way. A worker of
  a function that waits for others (for a bucket, an HTTP host) takes next to nothing of one, and is not held back.
- there may be no more: `workers.max`.

At one time a pool at most doubles, so that a guess that was wrong does not go far. It shrinks slowly: a worker that a
rush needed stays for `SURPLUS` seconds after its last call, the last one of a function for `limits.idle` (`surplus`).
What comes and goes by the second finds its workers there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["BURNS", "SURPLUS", "more", "stays", "surplus", "takes_ns", "wait_ns"]

BURNS: Final = 0.5
"""A function computes whose workers want a processor for this share of the time or more."""

PER_PROCESSOR: Final = 2
"""Workers for each processor, of a function that computes all the time. On two processors that others used as well,
two or three got through half of what eight did, and five through nine tenths (`python -m benchmarks rushes`)."""

SURPLUS: Final = 60.0
"""Seconds without a call after which a worker goes that is beyond the first, and beyond `workers.min`."""


def wait_ns(waiting: int, runs_ns: Sequence[float]) -> int:
    """For how long the last of those that wait will wait yet.

    Args:
        waiting: how many wait, in the queue or sent ahead behind another.
        runs_ns: of each worker, how long a call takes it.
    """
    if waiting <= 0 or not runs_ns:
        return 0
    return int(waiting / sum(1 / max(run, 1.0) for run in runs_ns))


def takes_ns(ended: int, ran: int, used: int, waited: int) -> float:
    """How long a call takes a worker, without the time in which something else has its processor; 0.0 of none.

    That time is no reason for another worker, which would not get a processor either.

    Args:
        ended: how many calls have ended.
        ran: for how long they ran, all together, in nanoseconds.
        used: how much of a processor the workers used, for what is around the calls as well.
        waited: for how long they had none and wanted one.
    """
    return (used + max(0, ran - used - waited)) / ended if ended else 0.0


def more(
    wait: int, target: int, *, start: int, lasted: int, workers: int, room: int, share: float, processors: float
) -> int:
    """How many workers more a pool is to have.

    Args:
        wait: of the last in line, nanoseconds.
        target: how long it may wait.
        start: how long a worker takes until it is ready.
        lasted: for how long the wait has been too long.
        workers: how many there are; one at least.
        room: how many more there may be.
        share: of the time in which one of them wants a processor, 0 to 1.
        processors: how many there are for all of them together.
    """
    if wait <= target or (wait <= start and lasted < start):
        return 0
    # With so many the last in line waits as long as it may.
    wanted = math.ceil(workers * wait / max(target, 1)) - workers
    count = min(wanted, workers, room)
    if share >= BURNS:
        count = min(count, math.floor(PER_PROCESSOR * processors / share + 0.5) - workers)
    return max(count, 0)


def stays(workers: int, idle: float) -> float:
    """For how many seconds the longest idle of so many stays, where the last one stays for `idle`."""
    return min(idle, SURPLUS) if workers > 1 else idle


def surplus(idle_ns: Sequence[int], workers: int, least: int, stay: float) -> tuple[int, int]:
    """How many of the longest idle go now, and in how many nanoseconds the next one does (0: there is none).

    Args:
        idle_ns: for how long each has been idle that is, longest first.
        workers: how many there are, busy ones among them.
        least: how many are kept.
        stay: seconds for which the last ones stay.
    """
    for gone, idle in enumerate(idle_ns):
        left = workers - gone
        if left <= least:
            break
        may_ns = int(stays(left, stay) * 1e9)
        if idle < may_ns:
            return gone, may_ns - idle
    else:
        gone = len(idle_ns)
    return gone, 0
