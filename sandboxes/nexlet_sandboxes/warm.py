"""How many workers may stand idle, of all pools together: a worker is two MiB, and a thousand functions are two GiB.

A function's last worker stays for a while after it was needed (`limits.idle`), so that the next message finds it warm.
Where many functions are used now and then, those add up; beyond a number the ones that have been idle for longest go,
whatever they may still have had of their time. A function without a worker gets one in a few milliseconds, in which a
warm one answers a hundred messages: where a thousand functions are asked in turn, and there is room for their workers,
the number must not be what keeps these from staying. So it follows from the machine (`most_idle`).

It is looked at when a worker was started, and not for each message: only then do they become more. What was busy at
that moment may stand idle beyond the number until the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nexlet_sandboxes.growth import Growth
    from nexlet_sandboxes.link import Link

__all__ = ["EACH", "Warm", "most_idle"]

MIB: Final = 1024 * 1024
EACH: Final = 2 * MIB
"""Bytes that an idle worker takes, about; more where its function keeps something."""

LEAST: Final = 128
"""Idle workers for which there is room on any machine: about 250 MiB."""

MEMORY_SHARE: Final = 8
"""One part in so many of the memory is for idle workers ..."""

LIMITS_SHARE: Final = 2
"""... and one in so many of the processes and descriptors that we may have: busy workers need theirs, too."""

DESCRIPTORS: Final = 3
"""Of each worker, in the nexlet."""

SLACK: Final = 8
"""One part in so many of them is let go ahead, so that not every start looks at every pool."""


def most_idle(memory: int, descriptors: int, processes: int | None) -> int:
    """How many workers may stand idle on a machine that has so much (see `machine`), where nobody says."""
    most = max(LEAST, memory // MEMORY_SHARE // EACH)
    most = min(most, descriptors // LIMITS_SHARE // DESCRIPTORS)
    if processes is not None:
        most = min(most, processes // LIMITS_SHARE)
    return max(1, most)


class Warm:
    """The idle workers of the pools that share it.

    Attributes:
        most: how many may stand idle; a function's `min` workers stay in any case.
        retired: how many were ended because they were too many.
    """

    __slots__ = ("_pools", "_since", "most", "retired")

    def __init__(self, most: int = LEAST) -> None:
        """No pool has joined."""
        self.most = most
        self.retired = 0
        self._pools: set[Growth] = set()
        self._since = 0

    @property
    def slack(self) -> int:
        """So many workers may be started before the next look."""
        return self.most // SLACK

    def join(self, pool: Growth) -> None:
        """Its idle workers count from now on."""
        self._pools.add(pool)

    def leave(self, pool: Growth) -> None:
        """It is closed."""
        self._pools.discard(pool)

    def started(self) -> None:
        """A pool has one worker more."""
        self._since += 1
        if self._since > self.slack:
            self._since = 0
            self._look()

    def _look(self) -> None:
        idle: list[tuple[int, int, Growth, Link]] = []
        for pool in self._pools:
            # The number keeps pools from being compared.
            idle += [(link.since_ns, len(idle) + at, pool, link) for at, link in enumerate(pool.spare())]
        # By the next look there may be that many more.
        too_many = len(idle) - (self.most - self.slack)
        if too_many <= 0:
            return
        idle.sort()
        for _, _, pool, link in idle[:too_many]:
            pool.retire(link)
        self.retired += too_many
