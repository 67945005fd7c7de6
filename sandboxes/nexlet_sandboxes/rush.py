"""What becomes of the time of workers while calls wait for too long: how much of it goes into calls, and how.

A first look at a worker counts from then on, the next ones tell what came since. Nothing is asked of the kernel while
no calls wait for too long.
"""

from __future__ import annotations

from typing import Final

from nexlet_sandboxes.link import Link
from nexlet_sandboxes.processor import runnable, used_ns, waited_ns
from nexlet_sandboxes.scaling import BURNS, takes_ns

__all__ = ["AS_LONG_AGO_NS", "Rush"]

AS_LONG_AGO_NS: Final = 1_000_000_000
"""What processors were used for longer ago than this (nanoseconds) says nothing of the function as it is."""


class Rush:
    """A time in which calls wait for too long: since when, and what becomes of the workers' time.

    Attributes:
        since_ns: when it began.
    """

    __slots__ = ("_answers", "_before", "since_ns")

    def __init__(self, now: int, links: list[Link]) -> None:
        """It begins `now`, by CLOCK_MONOTONIC."""
        self.since_ns = now
        self._before: dict[Link, tuple[int, int, int, int, int]] = {}
        self._answers: dict[Link, int] = {}
        self.measured(now, links)

    def measured(self, now: int, links: list[Link]) -> tuple[float, float]:
        """Since the first look at each worker, or the last one that is long ago.

        Returns:
            The share of the time in which a worker uses a processor or waits for one, 0 to 1; and what `takes_ns` says,
            0.0 where that means nothing, because one has been at the same call since the last look.
        """
        shares: list[float] = []
        ended = ran = used = waited = 0
        moving = True
        for link in links:
            pid = link.process.pid
            # In this order: being asked for what was used brings the kernel's count of both up to now.
            at = now, used_ns(pid), waited_ns(pid), link.answers, link.ran_ns
            since, *before = self._before.setdefault(link, at)
            moving = moving and (link.answers != self._answers.get(link) or not link.running_ns(now))
            self._answers[link] = link.answers
            if now <= since:
                continue
            more_used, more_waited, more_ended, more_ran = (is_ - was for is_, was in zip(at[1:], before, strict=True))
            share = max(0.0, min(1.0, (more_used + more_waited) / (now - since)))
            # One that waits for a processor at this moment may have done so for all of the time, uncounted.
            shares.append(1.0 if share < BURNS and runnable(pid) else share)
            used += more_used
            waited += more_waited
            ended += more_ended
            ran += more_ran
            if now - since >= AS_LONG_AGO_NS:
                self._before[link] = at
        takes = takes_ns(ended, ran, max(0, used), waited) if moving else 0.0
        return sum(shares) / len(shares) if shares else 0.0, takes
