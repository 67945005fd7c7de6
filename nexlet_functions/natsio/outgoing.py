"""What waits to be sent: in order, bounded, handed to the client a batch at a time.

Batches make themselves: while the client has one, what is published meanwhile becomes the next. What waits outlives the
client. Of what the client had when it was lost, that which never left it waits again; the rest may have arrived or not,
is never sent twice, and is counted (`unconfirmed`). Where a server takes less than there is to send, what can be spared
(events, logs) is dropped before what somebody waits for.
"""

from __future__ import annotations

from typing import Final

from nexlet_functions.natsio.life import Life
from nexlet_functions.natsio.protocol import encode_publish, parse_publishes

__all__ = ["Outgoing"]

BATCH: Final = 1024 * 1024
"""Bytes handed to the client at a time, or one message more: what it holds is not in our count, so it holds little."""


class Outgoing:
    """One connection's outgoing messages.

    Attributes:
        size: bytes that wait.
        published, dropped: messages taken, and refused or given up, so far.
        unconfirmed: messages that were on their way when a client was lost, and may not have arrived.
        oversized: messages that waited for a server which then took none of their size.
        closed: whether nothing is taken any more.
    """

    def __init__(self, limit: int) -> None:
        """Nothing waits.

        Args:
            limit: bytes that may wait.
        """
        self.size = self.published = self.dropped = self.unconfirmed = self.oversized = 0
        self.closed = False
        self._limit = limit
        self._blobs: list[tuple[bytes, int]] = []  # each with how many messages it is
        self._handed = self._confirmed = 0  # messages that this client was given, and that its server had
        self._life: Life | None = None
        self._busy = False

    def attach(self, life: Life, max_payload: int) -> None:
        """Send through this client from now on.

        Args:
            max_payload: bytes its server takes. What waits may have been published for one that took more, and
                would end the connection.
        """
        self.detach()
        self._life = life
        self._fit(max_payload)
        self.pump()

    def move(self, life: Life, max_payload: int) -> int:
        """As `attach`, from a client that still lives.

        Returns:
            How many messages that one has whose arrival is not known yet. They are counted where a flush of it fails.
        """
        unknown = self._release()
        self._life = life
        self._fit(max_payload)
        self.pump()
        return unknown

    def detach(self) -> None:
        """Hold everything back until there is another client; the one that was is lost, or has been flushed."""
        self.unconfirmed += self._release()

    def _release(self) -> int:
        life, self._life = self._life, None
        self._busy = False
        if life is None:
            return 0
        back = [(blob, sum(1 for _ in parse_publishes(blob))) for blob in life.wire.take_back()]
        messages = sum(count for _, count in back)
        unknown = max(0, self._handed - messages - self._confirmed)
        self._blobs[:0] = back
        self.size += sum(len(blob) for blob, _ in back)
        self._handed = self._confirmed = 0
        return unknown

    def mark(self) -> int:
        """What `confirm` takes, when everything that was handed over until now is known to have arrived."""
        return self._handed

    def confirm(self, life: Life, mark: int) -> None:
        """What `mark` stands for has arrived."""
        if self._life is life:
            self._confirmed = max(self._confirmed, mark)

    @property
    def crowded(self) -> bool:
        """Whether half of the room is taken: from then on there is none for what can be spared."""
        return 2 * self.size > self._limit

    def write(self, blob: bytes, count: int, *, spare: bool = False) -> bool:
        """See `Connection.write`."""
        size = self.size + len(blob)
        if size > self._limit or self.closed or (spare and 2 * size > self._limit):
            self.dropped += count
            return False
        self._blobs.append((blob, count))
        self.size = size
        self.published += count
        if not self._busy:
            self.pump()
        return True

    def take_over(self, other: Outgoing) -> None:
        """Send what waits at another one, as far as there is room for it; it counts as published there."""
        waiting, other._blobs, other.size = other._blobs, [], 0
        for blob, count in waiting:
            if self.write(blob, count):
                self.published -= count
            else:
                other.dropped += count
                self.dropped -= count

    def end(self) -> None:
        """Give up what waits still, and count it: nobody will send it."""
        self.closed = True
        self.dropped += sum(count for _, count in self._blobs)
        self._blobs, self.size = [], 0

    def pump(self, *, at_once: bool = False) -> None:
        """Hand over what waits, if the client has taken the batch before or `at_once`."""
        life = self._life
        if life is None or not self._blobs or (self._busy and not at_once) or not life.wire.alive:
            return
        taken, size = self._blobs, self.size
        if size > BATCH and not at_once:
            taken, size = self._first_batch()
        self._blobs, self.size = self._blobs[len(taken) :], self.size - size
        self._handed += sum(count for _, count in taken)
        self._busy = True
        life.wire.send([blob for blob, _ in taken], size, lambda: self._taken(life))

    def _first_batch(self) -> tuple[list[tuple[bytes, int]], int]:
        size = end = 0
        while size < BATCH:
            size += len(self._blobs[end][0])
            end += 1
        return self._blobs[:end], size

    def _taken(self, life: Life) -> None:
        if self._life is life:
            self._busy = False
            self.pump()

    def _fit(self, max_payload: int) -> None:
        """Drop what is larger than the server takes, and count it."""
        for number, (blob, _) in enumerate(self._blobs):
            if len(blob) <= max_payload:  # and so is each message in it
                continue
            kept = []
            for one in parse_publishes(blob):
                if len(one.headers) + len(one.payload) <= max_payload:
                    kept.append(encode_publish(one.subject, one.payload, headers=one.headers, reply=one.reply))
                else:
                    self.oversized += 1
            self._blobs[number] = (b"".join(kept), len(kept))
        self._blobs = [(blob, count) for blob, count in self._blobs if blob]
        self.size = sum(len(blob) for blob, _ in self._blobs)
