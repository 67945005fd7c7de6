"""Where messages go: one synchronous call for each, made from the connection's reader.

A `MessageSink` is what a subscription delivers to. There is no queue and no task between the socket and the sink, so a
sink takes the message and returns: it puts it in line, counts it, or refuses it, and never waits.

A `BatchSink` is for whoever gains by knowing which messages came together: it takes the bytes of subjects as they came,
and is told when the reader has no more for now.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["BatchSink", "MessageSink"]


class MessageSink(Protocol):
    """Takes the messages of a subscription."""

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """One message, in the order it came. Must return at once and not raise (what it raises is logged).

        Args:
            subject: the subject it was published on.
            reply: where an answer is awaited; "" where none is.
            payload: the body.
            headers: the raw header block, `NATS/1.0\\r\\n...\\r\\n\\r\\n`, or b"" where there is none.
        """
        ...


@runtime_checkable
class BatchSink(Protocol):
    """Takes messages in batches, subjects as bytes. Where a sink is one, `MessageSink.message` is not called."""

    def take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        """One message of a batch, as in `MessageSink.message`. Subjects need not be UTF-8."""
        ...

    def batch_end(self) -> None:
        """The reader has no more for now: what was held back to do together is done now. Must not raise."""
        ...
