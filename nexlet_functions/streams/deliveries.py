"""One message of a stream in hand: what it is called, and the words that its consumer is told about it.

The subject that a message is acknowledged on says which of the stream's messages it is, when it was stored, and how
often it was handed out. Stream, consumer, sequence and time of storage together are its `identity`: the same for every
attempt, on whichever nexlet, and another one where a stream of that name was made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nexlet_sandboxes.calls import Call, Result

if TYPE_CHECKING:
    from nexlet_functions.streams.puller import Puller

__all__ = ["ACK", "IN_PROGRESS", "NAK", "TERM", "Delivery", "Key", "ack_parts", "nak_after"]

Key = tuple[bytes, bytes]
"""Sequence and time of storage, as they stand in the acknowledgement subject."""

ACK: Final = b"PUB %b 4\r\n+ACK\r\n"
NAK: Final = b"PUB %b 4\r\n-NAK\r\n"
TERM: Final = b"PUB %b 5\r\n+TERM\r\n"
IN_PROGRESS: Final = b"PUB %b 4\r\n+WPI\r\n"
"""What a consumer is told, as protocol bytes; the one value is the acknowledgement subject.

Source: https://docs.nats.io/nats-concepts/jetstream/consumers (acknowledgement types)."""

_OLD_FORM: Final = 9
"""Words of `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.CONSUMER_SEQUENCE.TIME.PENDING`; newer servers may have domain
and account after the second (nats-server ADR-15), and so have more."""


def nak_after(reply: bytes, seconds: float) -> bytes:
    """Have a message handed out again after a pause."""
    word = b'-NAK {"delay": %d}' % int(seconds * 1e9)
    return b"PUB %b %d\r\n%b\r\n" % (reply, len(word), word)


def ack_parts(reply: bytes) -> tuple[Key, int]:
    """Which message it is, and how often it was handed out.

    Raises:
        ValueError, IndexError: it is no acknowledgement subject.
    """
    words = reply.split(b".")
    first = 4 if len(words) == _OLD_FORM else 6
    return (words[first + 1], words[first + 3]), int(words[first])


class Delivery:
    """One message in hand. It is the `tag` of its call.

    Attributes:
        reply: the acknowledgement subject of the last time it was handed out.
        attempt: how often that was.
        told_ns: CLOCK_MONOTONIC of the last sign to the consumer that it is still worked on.
        call: of the attempt that waits or runs.
        waits: whether there was no room for it, and it is yet to be put in line.
    """

    __slots__ = ("_puller", "attempt", "call", "key", "reply", "told_ns", "waits")

    def __init__(self, puller: Puller, key: Key, reply: bytes, attempt: int, now: int) -> None:
        self._puller = puller
        self.key = key
        self.reply = reply
        self.attempt = attempt
        self.told_ns = now
        self.waits = False
        self.call: Call

    def ended(self, call: Call, result: Result) -> bool:
        """Its invocation has ended; False where it was not run, and is tried again without a word to anybody."""
        return self._puller.ended(self, call, result)

    @property
    def sequence(self) -> int:
        """Of the message in its stream."""
        return int(self.key[0])

    @property
    def identity(self) -> str:
        """Of the message, the same for every attempt: `STREAM:CONSUMER:SEQUENCE:TIME`."""
        sequence, stamp = self.key
        return f"{self._puller.stream}:{self._puller.consumer}:{sequence.decode()}:{stamp.decode()}"

    @property
    def event_fields(self) -> bytes:
        """What the event about its invocation says on top."""
        return b',"stream":"%b","sequence":%b' % (self._puller.stream_json, self.key[0])

    def __repr__(self) -> str:
        return f"<Delivery {self.identity} attempt {self.attempt}>"
