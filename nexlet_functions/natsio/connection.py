"""A connection to NATS that stays: lost ones are followed by new ones, with the same subscriptions, without end.

- `Connection`: publish without waiting, subscribe with the server's verdict, request, flush, close.
- `ConnectionState`, `ConnectionStats`: what it tells of itself; `Reply`: what a request brought.

One task, owned by the connection, makes a client, waits for its loss, and begins again after a pause that grows and
varies. What is published meanwhile waits, up to a bound. Messages go from the reader to their sink in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import nats.errors
import structlog
from nats.aio.client import Client

from nexlet_functions.natsio import complaints
from nexlet_functions.natsio.backoff import Backoff, Servers
from nexlet_functions.natsio.complaints import Violation
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    CredentialsInvalid,
    NoResponders,
    PublishRefused,
    RequestTimeout,
    SubscriptionRefused,
)
from nexlet_functions.natsio.life import Life, Options, Pulse
from nexlet_functions.natsio.outgoing import Outgoing
from nexlet_functions.natsio.protocol import encode_publish
from nexlet_functions.natsio.sinks import BatchSink, MessageSink
from nexlet_functions.natsio.subscriptions import Subscription, Subscriptions
from nexlet_models.connection import redact_url
from nexlet_models.subjects import valid_subject

__all__ = ["Connection", "ConnectionState", "ConnectionStats", "Reply"]

_WATCH = 1.0
"""Seconds between looks at a client that may have died without telling."""
_LEAVE_WITHIN = 2.0
"""Seconds for a server that is left to say that it has had everything, and for what was asked by way of it."""
_SPREAD = 1.0
"""Seconds, at most, before leaving a server that says it is about to go: it says so to all of its clients at once."""
_KEPT_VIOLATIONS = 1000
_LITERAL = re.compile(r"[^\s\x00-\x20\x7f.*>]+(?:\.[^\s\x00-\x20\x7f.*>]+)*")
"""A subject to publish on, and surely no more than that: checked for every message, so not with `valid_subject`."""

_log = structlog.stdlib.get_logger("nexlet_functions.natsio")


class ConnectionState(enum.StrEnum):
    """What a connection is at the moment."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """Counts since the connection was made.

    Attributes:
        connects: how often it was connected after it was not; `moves`, how often it went to another server without
            a gap.
        published: messages handed over by `publish` and `write`.
        dropped: messages refused because too much was waiting, or that waited still when it was closed.
        unconfirmed: messages that were on their way when a connection was lost, and may not have arrived.
        oversized: messages refused because the server takes none of that size.
        publish_violations: messages the server turned down.
        sink_errors: messages whose sink raised.
        outgoing_bytes: what waits to be sent now.
        subscriptions: what is subscribed; `refused` of them, by the server, after they once were allowed.
    """

    connects: int
    moves: int
    published: int
    dropped: int
    unconfirmed: int
    oversized: int
    publish_violations: int
    sink_errors: int
    outgoing_bytes: int
    subscriptions: int
    refused: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request."""

    payload: bytes
    headers: Mapping[str, str]


class Connection:
    """One supervised connection. Make it with `open`, or `start` one and look at `connected`.

    Attributes:
        max_payload: bytes of headers and payload together that the server takes; of the last one while there is none.
            Read for each answer, and set by nobody else.
    """

    def __init__(
        self, credentials: Credentials, *, name: str = "", options: Options | None = None, passing: bool = False
    ) -> None:
        """Nothing runs yet.

        Args:
            name: shown on the server, where the credentials have none.
            passing: made for a moment only, so that its coming and going is no news for the log.
        """
        self.credentials = credentials
        self.name = credentials.name or name or "nexlet-functions"
        self._options = options or Options()
        self._log = _log.bind(connection=self.name, servers=", ".join(credentials.addresses))
        self._passing = passing
        self._state = ConnectionState.DISCONNECTED
        self._life: Life | None = None
        self._next: Life | None = None  # while it takes over from the other one
        self._up = asyncio.Event()
        self._other_credentials = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._failure: ConnectFailed | None = None
        self._failures: set[asyncio.Future[ConnectFailed]] = set()
        self._servers = Servers(credentials)
        self._backoff = Backoff(
            first=self._options.backoff_first,
            longest=self._options.backoff_max,
            refused=self._options.backoff_refused,
        )
        self.max_payload = 1024 * 1024
        self._others_wait: Callable[[], bool] | None = None
        self._outgoing = Outgoing(self._options.max_outgoing)
        self._subscriptions = Subscriptions(flush_timeout=self._options.flush_timeout, log=self._log)
        self._publish_waiters: dict[str, set[asyncio.Future[str]]] = {}
        self._seen_violations: set[tuple[str, str]] = set()
        self._state_callbacks: list[Callable[[ConnectionState, str], None]] = []
        self._violation_callbacks: list[Callable[[Violation], None]] = []
        self._connects = self._moves = self._oversized = self._publish_violations = self._sink_errors = 0

    # --- life and state ------------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        credentials: Credentials,
        *,
        name: str = "",
        options: Options | None = None,
        timeout: float = 10.0,
        passing: bool = False,
    ) -> Self:
        """A connected connection.

        Args:
            timeout: seconds to wait for it.
            passing: see the constructor.

        Raises:
            ConnectFailed: not within that time, or the server turned the credentials down. Nothing is left running.
        """
        connection = cls(credentials, name=name, options=options, passing=passing)
        connection.start()
        try:
            await connection.wait_connected(timeout)
        except BaseException:
            await connection.close()
            raise
        return connection

    def start(self) -> None:
        """Begin to connect, in the background and without end."""
        if self._supervisor is None and self._state is not ConnectionState.CLOSED:
            self._supervisor = asyncio.create_task(self._supervise(), name=f"natsio-{self.name}")

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Return as soon as it is connected and its subscriptions are live.

        Args:
            timeout: seconds; None waits without end, through refusals too.

        Raises:
            ConnectFailed: not within `timeout`, or, with one, the server turned the credentials down.
            ConnectionClosed: it was closed.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while not self._up.is_set():
            if timeout is not None and self._failure is not None and self._failure.refused:
                raise self._failure
            failure: asyncio.Future[ConnectFailed] = asyncio.get_running_loop().create_future()
            self._failures.add(failure)
            up = asyncio.ensure_future(self._up.wait())
            try:
                left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
                done, _ = await asyncio.wait((up, failure), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._failures.discard(failure)
                up.cancel()
            if not done:
                raise self._failure or ConnectFailed(self.credentials.addresses, "no answer in time")
        if self._state is ConnectionState.CLOSED:
            raise ConnectionClosed

    def renew(self, credentials: Credentials) -> None:
        """Connect by these credentials from now on: at once where the others did not do, else when it is lost."""
        self.credentials = credentials
        self._servers = Servers(credentials)
        self._log = _log.bind(connection=self.name, servers=", ".join(credentials.addresses))
        if not self.connected:
            self._failure = None
            self._other_credentials.set()

    @property
    def state(self) -> ConnectionState:
        return self._state

    @property
    def connected(self) -> bool:
        return self._state is ConnectionState.CONNECTED

    @property
    def last_failure(self) -> ConnectFailed | None:
        """Why the last attempt failed; None once connected."""
        return self._failure

    @property
    def uses_fast_path(self) -> bool:
        """Whether nats-py's private names are used at the moment (see `fast`)."""
        return self._life is not None and self._life.wire.fast

    @property
    def received(self) -> int:
        """Messages that the client of this moment has got; fewer than before where it is another one."""
        return self._life.client.stats["in_msgs"] if self._life is not None else 0

    @property
    def socket(self) -> int:
        """The descriptor of what messages come over; -1 where there is none, or it is not known."""
        return self._life.wire.socket if self._life is not None else -1

    def give_way(self, others_wait: Callable[[], bool] | None) -> None:
        """Have what comes over this connection be looked at in pieces, and others have their turn between them.

        Args:
            others_wait: says whether there are such; asked after each piece. None: there never are.
        """
        self._others_wait = others_wait
        if self._life is not None:
            self._life.wire.give_way(others_wait)

    @property
    def client(self) -> Client:
        """nats-py's client of this moment, for what is not on the hot path: JetStream, buckets. Do not keep it.

        Raises:
            ConnectionLost: there is none at the moment.
        """
        if self._life is None:
            raise ConnectionLost("the use of its client")
        return self._life.client

    def on_state(self, callback: Callable[[ConnectionState, str], None]) -> Callable[[], None]:
        """Have each change of state told, with its reason ("" for none); returns what ends that."""
        self._state_callbacks.append(callback)
        return lambda: self._state_callbacks.remove(callback) if callback in self._state_callbacks else None

    def on_violation(self, callback: Callable[[Violation], None]) -> Callable[[], None]:
        """Have everything told that the server forbids after the fact; returns what ends that."""
        self._violation_callbacks.append(callback)
        return lambda: self._violation_callbacks.remove(callback) if callback in self._violation_callbacks else None

    def violated(self, violation: Violation) -> None:
        """Tell those who listen here of what was forbidden to another connection by the same credentials."""
        for callback in tuple(self._violation_callbacks):
            self._call(callback, violation)

    def stats(self) -> ConnectionStats:
        return ConnectionStats(
            connects=self._connects,
            moves=self._moves,
            published=self._outgoing.published,
            dropped=self._outgoing.dropped,
            unconfirmed=self._outgoing.unconfirmed,
            oversized=self._oversized + self._outgoing.oversized,
            publish_violations=self._publish_violations,
            sink_errors=self._sink_errors,
            outgoing_bytes=self._outgoing.size,
            subscriptions=len(self._subscriptions),
            refused=len(self._subscriptions.refused()),
        )

    async def close(self, *, flush_timeout: float = 2.0) -> None:
        """Send what waits, for at most `flush_timeout` seconds where connected, and end. May be called again."""
        if self._state is ConnectionState.CLOSED:
            return
        if flush_timeout > 0:
            await self.prove(flush_timeout)
        self._set_state(ConnectionState.CLOSED)
        self._outgoing.closed = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))  # once is enough, also where whoever closes is cancelled
        life, self._life = self._life, None
        if life is not None:  # it had just taken over, and what it took over from was being closed
            self._outgoing.detach()
            self._let_go(life)
        await asyncio.gather(*self._closing, return_exceptions=True)
        self._outgoing.end()
        await self._subscriptions.close()
        self._up.set()  # whoever waits learns that it is closed

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- publishing ------------------------------------------------------------------------------------------------

    def publish(
        self, subject: str, payload: bytes = b"", *, headers: bytes = b"", reply: str = "", spare: bool = False
    ) -> bool:
        """Put one message in line to be sent. Never waits.

        Args:
            headers: a raw block, of `protocol.encode_headers`.
            spare: see `write`.

        Returns:
            False where it was dropped and counted: it is larger than the server takes, or too much waits already.

        Raises:
            ValueError: a subject that is none: it could carry other commands to the server.
        """
        for one in (subject, reply) if reply else (subject,):
            if _LITERAL.fullmatch(one) is None:
                reason = valid_subject(one, wildcards=False) or "is not a subject"
                raise ValueError(f"cannot publish on {one!r}: it {reason}")
        if len(headers) + len(payload) > self.max_payload:
            self._oversized += 1
            return False
        return self.write(encode_publish(subject, payload, headers=headers, reply=reply), 1, spare=spare)

    @property
    def crowded(self) -> bool:
        """Whether so much waits to be sent that there is no room for what can be spared."""
        return self._outgoing.crowded

    def write(self, blob: bytes, count: int, *, spare: bool = False) -> bool:
        """Put `count` encoded messages (`protocol.encode_publish`) in line to be sent. Never waits, checks nothing.

        Args:
            spare: nobody waits for these: they get the first half of the room, the rest of it is for answers.

        Returns:
            False where they were dropped and counted, because too much waits already.
        """
        return self._outgoing.write(blob, count, spare=spare)

    def hand_over(self, to: Connection) -> None:
        """Have what waits to be sent leave by another connection, in its order; what that has no room for is dropped.

        For one that is lost and is to be closed.
        """
        to._outgoing.take_over(self._outgoing)

    async def flush(self, timeout: float | None = None) -> None:
        """Return when the server has processed everything published and subscribed before.

        Args:
            timeout: seconds; None means the options' `flush_timeout`.

        Raises:
            ConnectFailed, ConnectionLost: not within that time.
            ConnectionClosed: it is closed.
        """
        try:
            async with asyncio.timeout(self._options.flush_timeout if timeout is None else timeout):
                await self.wait_connected()
                life = self._life
                if life is None:
                    raise ConnectionLost("a flush")
                self._outgoing.pump(at_once=True)
                mark = self._outgoing.mark()
                await life.guard(life.wire.flush(), "a flush")
                self._outgoing.confirm(life, mark)
        except TimeoutError:
            raise self._failure or ConnectionLost("a flush") from None

    async def prove(self, within: float) -> None:
        """Send what waits; a server that has not taken it after `within` seconds is taken for gone.

        For whoever has no time to wait until its silence is noticed (see `life.Pulse`). Does nothing while it is not
        connected.
        """
        life = self._life
        if life is None:
            return
        try:
            await self.flush(within)
        except (ConnectFailed, ConnectionLost, ConnectionClosed):
            life.give_up("the server does not answer in time")

    async def request(
        self, subject: str, payload: bytes = b"", *, headers: Mapping[str, str] | None = None, timeout: float
    ) -> Reply:
        """Ask and wait for the first answer.

        Args:
            timeout: seconds, for connecting and for the answer together.

        Raises:
            RequestTimeout, NoResponders: nobody answered, nobody listens.
            PublishRefused: the server forbids publishing there.
            ConnectFailed, ConnectionLost: no connection, or it went.
            ConnectionClosed: it is closed.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        await self.wait_connected(timeout)
        life = self._life
        if life is None:
            raise ConnectionLost(f"a request on {subject!r}")
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiters = self._publish_waiters.setdefault(subject.lower(), set())
        waiters.add(refused)
        left = max(0.001, deadline - asyncio.get_running_loop().time())
        asked = asyncio.ensure_future(
            life.client.request(subject, payload, timeout=left, headers=dict(headers) if headers else None)
        )
        life.asking.add(asked)
        asked.add_done_callback(life.asking.discard)
        try:
            return await life.guard(_answer(asked, refused, subject, timeout), f"a request on {subject!r}")
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            waiters.discard(refused)
            if not waiters:
                self._publish_waiters.pop(subject.lower(), None)

    # --- subscriptions -------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        subject: str,
        *,
        queue: str = "",
        sink: MessageSink | BatchSink,
        repeatable: bool = False,
        timeout: float = 10.0,
    ) -> Subscription:
        """Subscribe. When this returns the server delivers.

        Args:
            queue: queue group; "" for every message.
            repeatable: whether `sink` takes a message that comes twice for one, as an inbox of numbered answers does.
                None is missed then where another server takes over.
            timeout: seconds, for a connection to be there and the server to answer.

        Raises:
            SubscriptionRefused: the server forbids it, or the subject is none. Nothing stays subscribed.
            ConnectFailed, ConnectionLost: the server could not be asked in that time.
            ConnectionClosed: it is closed.
        """
        reason = valid_subject(subject, wildcards=True)
        if reason is None and queue:
            reason = valid_subject(queue, wildcards=False)
        if reason is not None:
            raise SubscriptionRefused(subject, "", queue=queue, reason=f"it {reason}")
        subscription = Subscription(self._subscriptions, subject, queue, sink, repeatable=repeatable)
        try:
            # One at a time of those that the server's answer would not tell apart.
            async with asyncio.timeout(timeout), self._subscriptions.turn(subject, queue):
                while True:
                    await self.wait_connected()
                    life = self._next or self._life
                    if life is None:
                        continue
                    try:
                        await self._subscriptions.ask(life, subscription)
                    except ConnectionLost:
                        continue
                    break
        except TimeoutError:
            raise self._failure or ConnectionLost(f"a subscription to {subject!r}") from None
        if subscription.refused:
            raise SubscriptionRefused(subject, subscription.refused, queue=queue)
        return subscription

    # --- the supervisor ------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        left, reason, attempts = "", "", 0
        while True:
            self._set_state(ConnectionState.CONNECTING)
            life: Life | None = None
            refused = False
            for server in self._servers.round(after=left):
                attempts += 1
                try:
                    life = await self._begin(server)
                    break
                except Exception as error:  # noqa: BLE001  # whatever it is, attempts go on
                    refused = self._fail(error, attempt=attempts).refused or refused
            if life is None:
                await self._rest(self._backoff.after_failure(refused=refused))
                continue
            attempts, began = 0, loop.time()
            while life is not None:
                left = life.server
                life, reason = await self._serve(life)
            self._log.warning("disconnected", reason=reason)
            self._set_state(ConnectionState.DISCONNECTED, reason)
            await self._rest(self._backoff.after_loss(loop.time() - began))

    async def _rest(self, seconds: float) -> None:
        """Before the next attempt; there is nothing to wait for once there are other credentials."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._other_credentials.wait()
        self._other_credentials.clear()

    async def _begin(self, server: str) -> Life:
        life = await Life.begin(
            server,
            self.credentials,
            self._options,
            name=self.name,
            on_error=self._complaint,
            failed=self._sink_failed,
        )
        life.wire.give_way(self._others_wait)
        return life

    async def _serve(self, life: Life) -> tuple[Life | None, str]:
        """From the moment a client is connected until it is lost or left.

        Returns:
            The one that has taken over, where that was possible before it was lost; and why it was lost.
        """
        successor: Life | None = None
        pulse = asyncio.create_task(self._feel(life), name="natsio-pulse")
        try:
            if self._life is not life:
                await self._take_up(life)
            successor = await self._stay(life)
        except (ConnectionLost, TimeoutError):
            pass  # lost while subscribing; `life.reason` has why
        except Exception as error:  # noqa: BLE001  # a bug, ours or nats-py's: the next client may do better
            self._log.error("a connection is given up", exc_info=error)
        finally:
            pulse.cancel()
            if successor is None:
                self._servers.learn(url.geturl() for url in life.client.discovered_servers)
                self._life = None
                self._outgoing.detach()
                self._up.clear()
            closing = self._let_go(life)
        if successor is None:
            await asyncio.shield(closing)
        return successor, life.reason or "the connection was lost"

    def _let_go(self, life: Life) -> asyncio.Task[None]:
        """Close a client, also where we are ended meanwhile: `close` waits for it then."""
        task = asyncio.create_task(self._end(life), name="natsio-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _end(self, life: Life) -> None:
        if life.unconfirmed:
            try:
                async with asyncio.timeout(min(_LEAVE_WITHIN, self._options.flush_timeout)):
                    await life.guard(life.wire.flush(), "a flush")
            except (ConnectionLost, TimeoutError):
                self._outgoing.unconfirmed += life.unconfirmed
        if life.left and life.asking and not life.over:
            # Their answers come by this one alone, and are none of the next one's.
            await asyncio.wait(set(life.asking), timeout=_LEAVE_WITHIN)
        await life.close()

    async def _take_up(self, life: Life) -> None:
        """Make a client that is connected the one of this connection."""
        async with asyncio.timeout(self._options.flush_timeout):
            await self._subscriptions.renew(life, self._subscriptions.all())
        self.max_payload = life.client.max_payload
        self._failure = None
        self._life = life
        self._connects += 1
        self._up.set()
        (self._log.debug if self._passing else self._log.info)(
            "connected" if self._connects == 1 else "connected again",
            subscriptions=len(self._subscriptions),
            refused=len(self._subscriptions.refused()),
            fast=life.wire.fast,
        )
        self._set_state(ConnectionState.CONNECTED)
        self._outgoing.attach(life, self.max_payload)

    async def _stay(self, life: Life) -> Life | None:
        """Until it is lost, or another one could take over from a server that is about to go: that one."""
        loop, options = asyncio.get_running_loop(), self._options
        retry = loop.time() + options.retry_refused
        leave = 0.0
        while not life.over:
            now = loop.time()
            if life.lame_duck.is_set() and now >= leave:
                if leave:
                    successor = await self._move(life)
                    if successor is not None:
                        return successor
                leave = now + random.uniform(0.0, _SPREAD)  # noqa: S311  # jitter, no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(_WATCH, leave - now)) if leave else _WATCH):
                    await life.lost.wait()
            if loop.time() >= retry and not life.over:
                retry = loop.time() + options.retry_refused
                refused = self._subscriptions.refused()
                if refused:
                    async with asyncio.timeout(options.flush_timeout):
                        await self._subscriptions.renew(life, refused, retry=True)
        return None

    async def _feel(self, life: Life) -> None:
        """The pulse of a server, until there is none."""
        pulse = Pulse(life.wire, misses=self._options.max_outstanding_pings, answered=lambda: self._to_confirm(life))
        while not life.over:
            if not pulse.look():
                life.give_up("the server is silent")
                return
            await asyncio.sleep(self._options.ping_interval)

    def _to_confirm(self, life: Life) -> Callable[[], None]:
        mark = self._outgoing.mark()
        return lambda: self._outgoing.confirm(life, mark)

    async def _move(self, old: Life) -> Life | None:
        """Another server takes over while the old one still serves, so that nothing is lost; None where there is none.

        Raises:
            ConnectionLost, TimeoutError: the new one was lost in between, and with it the way back.
        """
        self._servers.learn(url.geturl() for url in old.client.discovered_servers)
        for server in self._servers.round(after=old.server)[:-1]:
            try:
                new = await self._begin(server)
                break
            except (ConnectFailed, CredentialsInvalid):
                continue
        else:
            return None
        self._next = new
        try:
            async with asyncio.timeout(self._options.flush_timeout):
                await self._subscriptions.move(old, new)
        except BaseException:
            self._next = None
            await asyncio.shield(self._let_go(new))
            raise
        self._next = None
        self.max_payload = new.client.max_payload
        self._life = new
        # What waits was delivered on the way out of there, and is answered through there.
        self._outgoing.pump(at_once=True)
        old.unconfirmed = self._outgoing.move(new, self.max_payload)
        self._moves += 1
        self._log.info("moved away from a server that is about to go", to=redact_url(new.server))
        return new

    def _fail(self, error: Exception, *, attempt: int) -> ConnectFailed:
        if not isinstance(error, ConnectFailed):
            reason = str(error) if isinstance(error, CredentialsInvalid) else f"{type(error).__name__} while connecting"
            if not isinstance(error, CredentialsInvalid):
                self._log.error("connecting failed in an unforeseen way", exc_info=error)
            error = ConnectFailed(self.credentials.addresses, reason, refused=isinstance(error, CredentialsInvalid))
        self._failure = error
        # The first, and then ever more rarely: an outage must not fill the log.
        if attempt & (attempt - 1) == 0:
            more = {"advice": advice} if error.refused and (advice := self.credentials.advice(time.time())) else {}
            # Who has a passing one made waits for it, and is told.
            tell = self._log.debug if self._passing and not self._connects else self._log.warning
            tell("cannot connect, trying on", reason=error.reason, attempt=attempt, **more)
        for waiting in tuple(self._failures):
            if not waiting.done():
                waiting.set_result(error)
        return error

    # --- what the server complains about ---------------------------------------------------------------------------

    def _complaint(self, text: str) -> None:
        violation = complaints.read(text)
        if violation is None:
            if complaints.TOO_MANY_SUBSCRIPTIONS in text.lower():
                self._subscriptions.too_many()
                self._log.warning("the server refused", what="subscription", reason=text)
            return
        if violation.kind == "publish":
            self._publish_violations += 1
            for waiting in self._publish_waiters.get(violation.subject, ()):
                if not waiting.done():
                    waiting.set_result(text)
        else:
            self._subscriptions.refuse(violation)
        seen = (violation.kind, violation.subject)
        if seen not in self._seen_violations and len(self._seen_violations) < _KEPT_VIOLATIONS:
            self._seen_violations.add(seen)
            self._log.warning("the server refused", what=violation.kind, subject=violation.subject, permission=text)
        self.violated(violation)

    def _sink_failed(self, error: BaseException) -> None:
        self._sink_errors += 1
        self._log.error("a message could not be handled", exc_info=error)

    # --- small things ------------------------------------------------------------------------------------------------

    def _set_state(self, state: ConnectionState, reason: str = "") -> None:
        if state is self._state:
            return
        self._state = state
        for callback in tuple(self._state_callbacks):
            self._call(callback, state, reason)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001  # a listener's bug must not end the connection
            self._log.error("a listener raised", exc_info=error)

    def __repr__(self) -> str:
        return f"Connection({self.name!r}, {self._state}, {self.credentials!r})"


async def _answer(asked: asyncio.Future[Any], refused: asyncio.Future[str], subject: str, timeout: float) -> Reply:
    await asyncio.wait((asked, refused), return_when=asyncio.FIRST_COMPLETED)
    if refused.done():
        raise PublishRefused(subject, refused.result())
    try:
        message = asked.result()
    except nats.errors.NoRespondersError:
        raise NoResponders(subject) from None
    except nats.errors.TimeoutError:
        raise RequestTimeout(subject, timeout) from None
    return Reply(message.data, dict(message.headers or {}))
