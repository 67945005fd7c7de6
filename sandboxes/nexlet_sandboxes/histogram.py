"""How long things took, counted so that counting costs next to nothing: one addition in a list of a fixed length.

The index of a duration is the number of bits of its microseconds, so each bucket is twice as wide as the one before it:
bucket 0 is less than a microsecond, bucket n from 2^(n-1) to less than 2^n microseconds. That is within a factor of two
from a microsecond to longer than anything runs, and takes no search, no float and no allocation.
"""

from __future__ import annotations

from typing import Final, Self

__all__ = ["BUCKETS", "Histogram"]

BUCKETS: Final = 65
"""As many as the microseconds of any 64-bit number of nanoseconds have bits, and one for none."""


class Histogram:
    """Durations.

    Attributes:
        buckets: how many fell into each. On the hot path it is added to directly; `add` is for everywhere else.
        sum_ns: all of them together.
    """

    __slots__ = ("buckets", "sum_ns")

    def __init__(self, buckets: list[int] | None = None, sum_ns: int = 0) -> None:
        self.buckets = buckets if buckets is not None else [0] * BUCKETS
        self.sum_ns = sum_ns

    def add(self, duration_ns: int) -> None:
        """Count one; a negative duration (clocks of two processes) counts as none."""
        duration_ns = max(duration_ns, 0)
        self.buckets[(duration_ns // 1000).bit_length()] += 1
        self.sum_ns += duration_ns

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets)

    def copy(self) -> Self:
        """What it is now, unchanged by what comes."""
        return type(self)(self.buckets.copy(), self.sum_ns)

    def __add__(self, other: Histogram) -> Histogram:
        both = zip(self.buckets, other.buckets, strict=True)
        return Histogram([one + another for one, another in both], self.sum_ns + other.sum_ns)

    def __sub__(self, earlier: Histogram) -> Histogram:
        """What came since `earlier`, which was a copy of it."""
        both = zip(self.buckets, earlier.buckets, strict=True)
        return Histogram([now - then for now, then in both], self.sum_ns - earlier.sum_ns)

    def quantile(self, share: float) -> float:
        """Seconds that `share` (0 to 1) of the durations stayed within, estimated within their bucket; 0.0 of none."""
        wanted = share * self.count
        below = 0
        for index, count in enumerate(self.buckets):
            if count and below + count >= wanted:
                low, high = (1 << index >> 1), 1 << index
                return (low + (high - low) * (wanted - below) / count) / 1e6
            below += count
        return 0.0
