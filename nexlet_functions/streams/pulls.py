"""What a consumer was asked for and has not given yet, and what it says of that.

`Pulls` keeps as many messages asked for as the workers have room for, with requests that stay open for a while. It asks
for more when half of that is done, so that the next ones are here before the last have ended; it asks anew where the
connection was lost, where the consumer is silent, and, after a pause that grows, where it gives nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from nexlet_functions.natsio.connection import Connection, ConnectionState
from nexlet_functions.natsio.protocol import decode_headers

if TYPE_CHECKING:
    from nexlet_functions.streams.consumers import Wanted
    from nexlet_sandboxes.pool import Pool

__all__ = ["HEARTBEAT", "Pulls", "Way"]

EXPIRES: Final = 30.0
"""Seconds that a request for messages stays open."""

HEARTBEAT: Final = 5.0
"""Seconds between two signs of life while there are no messages; after two that did not come it is asked anew."""

RETRY: Final = (0.25, 5.0)
"""Seconds until a consumer that does not answer is asked again: at first, and at last."""

PULLS: Final = 16
"""Requests at a time at most, where `batch` is less than there is room for."""

LEAST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of messages that one request brings, or one message that is larger."""

_TELL_AFTER: Final = 4
"""Times that a consumer gave nothing, until the log says so."""


class Way(Protocol):
    """The way out: what is said joins the batch, which leaves with the next flush. The function's dispatcher."""

    def say(self, blob: bytes) -> None: ...

    def flush(self) -> None: ...


class Pulls:
    """The requests to one consumer.

    For each message its taker keeps the first three of these itself, so that a message costs no call here, and calls
    `well` where `absent` is not 0, and `refill` where no more than `refill_at` are in hand or asked for.

    Attributes:
        asked: messages that were asked for and have not come.
        heard_ns: CLOCK_MONOTONIC of the last word or message.
        absent: how often in a row it was asked for nothing.
        refill_at: messages in hand and asked for together, at or below which there is room for more.
        pulling: whether anything is asked for.
        trouble: why nothing comes at the moment; "" where all is well.
    """

    def __init__(
        self,
        wanted: Wanted,
        held: Sized,
        *,
        inbox: str,
        pool: Pool,
        way: Way,
        connection: Connection,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            held: the messages in hand.
            inbox: messages, and words about requests, come on `INBOX.*.*`.
            pool: says how many messages there is room for.
        """
        self.asked = 0
        self.heard_ns = 0
        self.absent = 0
        self.refill_at = 0
        self.pulling = False
        self.trouble = ""
        self._held = held
        self._trigger = wanted.trigger
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{wanted.stream}.{wanted.name}"
        self._inbox = inbox
        self._pool = pool
        self._say, self._flush = way.say, way.flush
        self._connection = connection
        self._log = log
        self._generation = self._number = 0
        self._retry: asyncio.TimerHandle | None = None
        self._forget: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Ask from now on."""
        self.pulling = True
        self._forget = self._connection.on_state(self._on_state)
        self._begin_anew()

    def stop(self) -> None:
        """Ask for nothing more. Safe to repeat."""
        self.pulling = False
        self._forget()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def refill(self) -> None:
        """Ask for as many as there is room for; what is said leaves with the next flush."""
        if not self.pulling or self._retry is not None or not self._connection.connected:
            return
        room = min(self._pool.capacity(), self._trigger.max_ack_pending)
        most = self._trigger.batch
        for _ in range(PULLS):
            ask = min(room - len(self._held) - self.asked, most)
            if ask < 1:
                break
            self._pull(ask)
        self.refill_at = room - max(1, min(room, most) // 2)

    def _pull(self, ask: int) -> None:
        self._number += 1
        body = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d,"max_bytes":%d}' % (
            ask,
            int(EXPIRES * 1e9),
            int(HEARTBEAT * 1e9),
            max(LEAST_BYTES, self._connection.max_payload + 8192),
        )
        reply = f"{self._inbox}.{self._generation}.{self._number}"
        self._say(b"PUB %b %b %d\r\n%b\r\n" % (self._subject.encode(), reply.encode(), len(body), body))
        self.asked += ask

    def look(self, now: int) -> None:
        """Ask for what there is room for by now, or anew where nothing was heard for long.

        Args:
            now: CLOCK_MONOTONIC, in nanoseconds.
        """
        if self.asked and now - self.heard_ns > 2 * HEARTBEAT * 1e9 and self._connection.connected:
            self._log.info("a consumer is silent, asking anew")
            self._begin_anew()
        else:
            self.refill()

    def _begin_anew(self) -> None:
        """Give up what was asked for, and ask again."""
        self._generation += 1
        self.asked = 0
        self.heard_ns = time.monotonic_ns()
        self.refill()
        self._flush()

    def _on_state(self, state: ConnectionState, reason: str) -> None:
        if state is ConnectionState.CONNECTED and self.pulling:
            self._begin_anew()

    def _on_retry(self) -> None:
        self._retry = None
        if self.pulling:
            self._begin_anew()

    def status(self, subject: bytes, headers: bytes) -> None:
        """A word about a request, in place of messages."""
        words = subject.split(b".")
        if len(words) < 2 or words[-2] != b"%d" % self._generation:
            return  # about a request that we have given up
        said = decode_headers(headers)
        status = said.get("Status", "")
        if status in ("100", "400"):
            if self.absent:
                self.well()
            return
        if status == "503":
            self._unwell(
                "the consumer does not answer: JetStream is not there, or the consumer was deleted; it is made anew "
                "where the function is deployed again"
            )
            return
        description = said.get("Description", "")
        left = said.get("Nats-Pending-Messages", "")
        if left.isdecimal():
            self.asked = max(0, self.asked - int(left))
        if "deleted" in description.lower():
            self._unwell("the consumer was deleted; it is made anew where the function is deployed again")
        elif status != "408" and not left:
            # Too many requests wait, or its server is about to go: asked at once, it would say so again.
            self._unwell(f"the consumer gives nothing: {description or status}")

    def well(self) -> None:
        """It gives messages."""
        self.absent = 0
        if self.trouble:
            self.trouble = ""
            self._log.info("the consumer answers again")

    def _unwell(self, trouble: str) -> None:
        self.asked = 0
        self.absent += 1
        # A server that comes back has its streams a moment later: no reason yet for a line.
        if self.absent >= _TELL_AFTER and self.trouble != trouble:
            self.trouble = trouble
            self._log.warning("a stream trigger gets nothing", reason=trouble)
        if self._retry is None and self.pulling:
            first, last = RETRY
            pause = min(last, first * 2.0 ** min(self.absent - 1, 10))
            self._retry = asyncio.get_running_loop().call_later(pause, self._on_retry)
