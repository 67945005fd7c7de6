"""Many questions over one connection, with as little as can be for each: one subscription takes all their answers.

`Questions` is for who asks often and for short, such as a function that reads a bucket: `ask` writes one message and
waits for one future. `Connection.request` does the same with nothing to be opened before, for what happens seldom.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nexlet_functions.natsio.complaints import Violation
from nexlet_functions.natsio.connection import Connection, ConnectionState
from nexlet_functions.natsio.errors import (
    ConnectionLost,
    NatsioError,
    NoResponders,
    PublishRefused,
    RequestTimeout,
)
from nexlet_functions.natsio.subscriptions import Subscription

__all__ = ["Answer", "Questions"]

_NO_RESPONDERS: Final = b"NATS/1.0 503"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        payload: as it came.
        headers: the raw block; b"" for none.
    """

    payload: bytes
    headers: bytes


_TAKEN: Final = Answer(b"", b"")


class _Open:
    __slots__ = ("answer", "meant", "subject")

    def __init__(
        self, subject: str, answer: asyncio.Future[Answer], meant: Callable[[Answer], bool] | None = None
    ) -> None:
        self.subject = subject
        self.answer = answer
        self.meant = meant


class Questions:
    """Questions of one user of a connection. Implements `MessageSink`. `open` comes first, `close` last."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is subscribed yet."""
        self.connection = connection
        self._prefix = f"_INBOX.{secrets.token_urlsafe(16)}."
        self._open: dict[str, _Open] = {}
        self._told: list[_Open] = []  # what the next flush is for
        self._flushing: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._ends = [connection.on_violation(self._violation), connection.on_state(self._state)]

    @property
    def under_way(self) -> int:
        """Questions that have no answer yet."""
        return len(self._open)

    async def open(self) -> None:
        """Be ready for answers.

        Raises:
            SubscriptionRefused: the server does not let these credentials hear them.
            ConnectFailed, ConnectionLost, ConnectionClosed: it could not be asked.
        """
        self._subscription = await self.connection.subscribe(f"{self._prefix}*", sink=self, repeatable=True)

    async def close(self) -> None:
        """End the subscription, and every question that is open."""
        for end in self._ends:
            end()
        self._lose()
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: bytes = b"",
        deadline_ns: int,
        meant: Callable[[Answer], bool] | None = None,
    ) -> Answer:
        """Ask, and wait for the first answer.

        Args:
            headers: a raw block.
            deadline_ns: CLOCK_MONOTONIC until which it waits.
            meant: which answer, where several may answer; None takes whoever is first.

        Raises:
            NoResponders: nobody listens there.
            RequestTimeout: no answer in time.
            PublishRefused: the server forbids publishing there.
            ConnectionLost: there is no connection, or it went.
            ValueError: `subject` is none, or it is too large for the server.
        """
        return await self._wait(subject, payload, headers, deadline_ns, answered=True, meant=meant)

    async def tell(self, subject: str, payload: bytes, *, headers: bytes = b"", deadline_ns: int) -> None:
        """Publish, and return when the server has taken the message. Those that come together wait for one flush.

        Args, and what it raises, as for `ask`; that nobody listens is no error.
        """
        await self._wait(subject, payload, headers, deadline_ns, answered=False)

    async def _wait(
        self,
        subject: str,
        payload: bytes,
        headers: bytes,
        deadline_ns: int,
        *,
        answered: bool,
        meant: Callable[[Answer], bool] | None = None,
    ) -> Answer:
        if not self.connection.connected:
            # What waits for a connection would be sent after all when there is one, and be done without anyone knowing.
            raise ConnectionLost(f"a message to {subject!r}")
        loop = asyncio.get_running_loop()
        # Not to be guessed: whoever answers one question sees its subject, and is not to answer the next one as well.
        token = secrets.token_urlsafe(12)
        found = self._open[token] = _Open(subject, loop.create_future(), meant)
        left = max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
        timer = loop.call_later(left, self._expire, token, left)
        try:
            reply = self._prefix + token if answered else ""
            if not self.connection.publish(subject, payload, headers=headers, reply=reply):
                if len(headers) + len(payload) > self.connection.max_payload:
                    raise ValueError(f"{len(headers) + len(payload)} bytes are more than the server takes")
                raise ConnectionLost("a message: too much waits to be sent")
            if not answered:
                self._told.append(found)
                if self._flushing is None:
                    self._flushing = loop.create_task(self._flush(), name="flush what functions publish")
            return await found.answer
        finally:
            timer.cancel()
            del self._open[token]
            if found.answer.done() and not found.answer.cancelled():
                found.answer.exception()  # seen, also where whoever asked was cancelled in the same moment

    async def _flush(self) -> None:
        try:
            while self._told:
                told, self._told = self._told, []
                try:
                    await self.connection.flush()
                except NatsioError:
                    for found in told:
                        if not found.answer.done():
                            found.answer.set_exception(ConnectionLost(f"a message to {found.subject!r}"))
                for found in told:
                    # What the server forbids it says before it answers the flush.
                    if not found.answer.done():
                        found.answer.set_result(_TAKEN)
        finally:
            self._flushing = None

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """An answer."""
        token = subject[len(self._prefix) :]
        found = self._open.get(token)
        if found is None or found.answer.done():
            return  # it came too late, or twice
        if not payload and headers.startswith(_NO_RESPONDERS):
            found.answer.set_exception(NoResponders(found.subject))
            return
        answer = Answer(payload, headers)
        if found.meant is None or found.meant(answer):
            found.answer.set_result(answer)

    def _expire(self, token: str, timeout: float) -> None:
        found = self._open[token]
        if not found.answer.done():
            found.answer.set_exception(RequestTimeout(found.subject, timeout))

    def _violation(self, violation: Violation) -> None:
        if violation.kind == "publish":
            for found in self._open.values():
                if found.subject.lower() == violation.subject and not found.answer.done():
                    found.answer.set_exception(PublishRefused(found.subject, violation.text))

    def _state(self, state: ConnectionState, reason: str) -> None:
        if state is not ConnectionState.CONNECTED:
            self._lose()

    def _lose(self) -> None:
        for found in self._open.values():
            if not found.answer.done():
                found.answer.set_exception(ConnectionLost(f"a message to {found.subject!r}"))
