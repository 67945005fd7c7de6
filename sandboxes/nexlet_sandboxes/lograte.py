"""A token bucket for lines of output: so many bytes a second, four times that in a burst, and what it dropped.

It runs twice: in the worker, so that a flood costs the author's time and not the nexlet's, and in the nexlet over all
workers of a function, because a worker's word is no limit.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BURST", "LEAST", "LogRate"]

BURST: Final = 4
"""A burst may be this many seconds' worth of the rate."""

LEAST: Final = 32
"""Bytes that the shortest line counts for."""

_NANOSECONDS: Final = 1_000_000_000


class LogRate:
    """Decides line by line; the caller gives the time, so that nobody's clock is read per line.

    Attributes:
        dropped: lines refused since the last `take_dropped`.
    """

    __slots__ = ("_at", "_capacity", "_rate", "_tokens", "dropped")

    def __init__(self, rate: int, now: int) -> None:
        """`rate` in bytes a second, `now` in nanoseconds of a monotonic clock. The bucket begins full."""
        self._rate = rate
        self._capacity = rate * BURST
        self._tokens = float(self._capacity)
        self._at = now
        self.dropped = 0

    def allows(self, size: int, now: int) -> bool:
        """Whether a line of `size` bytes passes; counted as dropped where it does not.

        No line is cheaper than `LEAST`: each is a message of its own, whatever is in it.
        """
        size = max(size, LEAST)
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate / _NANOSECONDS)
        self._at = now
        if size > self._tokens:
            self.dropped += 1
            return False
        self._tokens -= size
        return True

    def take_dropped(self) -> int:
        """The count of dropped lines, and begin anew."""
        dropped, self.dropped = self.dropped, 0
        return dropped
