"""What waits to be sent: in order, bounded, handed to the client a batch at a time.

Batches make themselves: while the client has one, what is published meanwhile becomes the next. What waits outlives the
client; what the client had when it was lost may be lost with it, and is never sent twice.
"""

from __future__ import annotations

from nexlet_functions.natsio.life import Life

__all__ = ["Outgoing"]


class Outgoing:
    """One connection's outgoing messages.

    Attributes:
        size: bytes that wait.
        published, dropped: messages taken and refused so far.
        closed: whether nothing is taken any more.
    """

    def __init__(self, limit: int) -> None:
        """Nothing waits.

        Args:
            limit: bytes that may wait.
        """
        self.size = self.published = self.dropped = 0
        self.closed = False
        self._limit = limit
        self._blobs: list[bytes] = []
        self._life: Life | None = None
        self._busy = False

    def attach(self, life: Life | None) -> None:
        """Send through this client from now on; None holds everything back."""
        self._life = life
        self._busy = False
        self.pump()

    def write(self, blob: bytes, count: int) -> bool:
        """See `Connection.write`."""
        size = self.size + len(blob)
        if size > self._limit or self.closed:
            self.dropped += count
            return False
        self._blobs.append(blob)
        self.size = size
        self.published += count
        if not self._busy:
            self.pump()
        return True

    def pump(self, *, at_once: bool = False) -> None:
        """Hand over what waits, if the client has taken the batch before or `at_once`."""
        life = self._life
        if life is None or not self._blobs or (self._busy and not at_once) or not life.wire.alive:
            return
        blobs, size = self._blobs, self.size
        self._blobs, self.size = [], 0
        self._busy = True
        life.wire.send(blobs, size, lambda: self._taken(life))

    def _taken(self, life: Life) -> None:
        if self._life is life:
            self._busy = False
            self.pump()
