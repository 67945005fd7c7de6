"""What waits for workers over all pools together, and how much of the room for it one pool may have.

Each pool has limits of its own; a hundred pools at their limits would still be more than a machine has memory for. The
room is shared by a rule that needs no list of who there is: a pool may have no more waiting than is still free for
everybody. One pool alone gets at most half of it, two a third each, and whoever comes next always finds some.

Source of the rule: A. K. Choudhury, E. L. Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
IEEE/ACM Transactions on Networking 6 (1998), with alpha = 1.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_BYTES", "MAX_CALLS", "Backlog"]

MAX_CALLS: Final = 131_072
"""So that one function may have the 65,536 waiting that are the ceiling of its own `max_pending`."""

MAX_BYTES: Final = 256 * 1024 * 1024


class Backlog:
    """The room for waiting calls that pools share.

    Attributes:
        calls, size: how many wait now, and their bytes.
        max_calls, max_bytes: how many may.
    """

    __slots__ = ("calls", "max_bytes", "max_calls", "size")

    def __init__(self, max_calls: int = MAX_CALLS, max_bytes: int = MAX_BYTES) -> None:
        """Nothing waits."""
        self.calls = self.size = 0
        self.max_calls = max_calls
        self.max_bytes = max_bytes

    def admits(self, calls: int, waiting: int, size: int) -> bool:
        """Whether a pool with so many calls and so many bytes waiting may have one more, of `size` bytes.

        Between pools that have nothing waiting the last of the room goes to the first.
        """
        return calls < self.max_calls - self.calls and waiting + size <= self.max_bytes - self.size

    def add(self, size: int) -> None:
        """One more waits."""
        self.calls += 1
        self.size += size

    def remove(self, size: int) -> None:
        """One waits no more."""
        self.calls -= 1
        self.size -= size
