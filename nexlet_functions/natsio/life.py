"""One client of nats-py, from its connect to its loss.

nats-py can reconnect by itself, but it also gives up for good (a revoked user, a limit reached), keeps to the servers
it began with, and has no jitter. So a client here is used for one connection only: when that is lost, the `Life` is
over, and `connection.Connection` begins the next one. One path for every kind of loss.

- `Life`: the client and its wire.
- `Pulse`: whether its server still lives.
- `Options`: how all of that behaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats.errors

from nexlet_functions.natsio import fast
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import ConnectFailed, ConnectionLost
from nexlet_functions.natsio.wire import PatientClient, PublicWire, Wire

__all__ = ["Life", "Options", "Pulse"]

_Result = TypeVar("_Result")
_NEVER = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Options:
    """How a connection behaves. Durations in seconds, sizes in bytes.

    Attributes:
        connect_timeout: for each step of one attempt at one server. Two seconds are nats-py's and nats.go's.
        ping_interval: how often the server is asked for a sign of life.
        max_outstanding_pings: a server of which nothing was heard in so many intervals is taken for gone. By default
            that is within nine seconds: a node takes an agent for unhealthy ten seconds after its last heartbeat.
        backoff_first, backoff_max: pause after a loss, doubling while no server can be reached, each shortened by
            chance. With the longest below a second, a server that is back is found within a second.
        backoff_refused: the longest where a server answers and turns us down.
        max_outgoing: what may wait to be sent; one message more is dropped and counted.
        flush_timeout: how long a flush may take before the connection is taken for lost.
        retry_refused: how often a subscription that the server came to refuse is tried again.
        public_only: do without nats-py's private names (see `fast`).
    """

    connect_timeout: float = 2.0
    ping_interval: float = 3.0
    max_outstanding_pings: int = 2
    backoff_first: float = 0.1
    backoff_max: float = 0.8
    backoff_refused: float = 5.0
    max_outgoing: int = 8 * 1024 * 1024
    flush_timeout: float = 10.0
    retry_refused: float = 30.0
    public_only: bool = False


class Life:
    """A connected client and its wire.

    Attributes:
        client: nats-py's.
        wire: how messages get in and out of it.
        server: the URL it was made for.
        lost: set when the connection is gone, for whatever reason.
        lame_duck: set when the server has said that it is about to go.
        left: whether another one takes over from it, so that nothing more is subscribed to here.
        unconfirmed: messages that it had when that was done, and that may be on their way still.
        asking: requests that it has no answer to yet.
        reason: why, in the server's or the system's words.
    """

    def __init__(self, client: PatientClient, server: str, on_error: Callable[[str], None]) -> None:
        self.client = client
        self.server = server
        self.wire: Wire
        self.lost = asyncio.Event()
        self._loss: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # the same, for many who wait
        self.lame_duck = asyncio.Event()
        self.left = False
        self.unconfirmed = 0
        self.asking: set[asyncio.Future[Any]] = set()
        self.reason = ""
        self._released = asyncio.Event()
        self._complained = asyncio.Event()
        self._on_error = on_error

    @classmethod
    async def begin(
        cls,
        server: str,
        credentials: Credentials,
        options: Options,
        *,
        name: str,
        on_error: Callable[[str], None],
        failed: Callable[[BaseException], None],
    ) -> Life:
        """Connect to one server.

        Args:
            on_error: told what the server complains about while connected, as it says it (nats-py lowers the case).
            failed: told what a sink raised.

        Raises:
            ConnectFailed: the attempt failed.
            CredentialsInvalid: a file of the credentials is missing or unusable.
        """
        life = cls(PatientClient(), server, on_error)
        arguments = credentials.connect_options()
        # A server that another one told us of by its address has a certificate for the name we know.
        first = credentials.servers[0]
        known = urlsplit(first if "://" in first else f"nats://{first}").hostname
        if "tls" in arguments and server not in credentials.servers and known:
            arguments["tls_hostname"] = known
        connecting = asyncio.ensure_future(
            life.client.connect(
                [server],
                name=name,
                error_cb=life._error,
                disconnected_cb=life._disconnected,
                closed_cb=life._closed,
                lame_duck_mode_cb=life._lame_duck,
                connect_timeout=options.connect_timeout,  # type: ignore[arg-type]  # a float does
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                ping_interval=_NEVER,  # `Pulse` does it: nats-py's own takes a server that is busy sending for gone
                pending_size=options.max_outgoing,
                **arguments,
            )
        )
        failed_once = asyncio.ensure_future(life._complained.wait())
        try:
            async with asyncio.timeout(options.connect_timeout + 1):
                await asyncio.wait((connecting, failed_once), return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                # It would try once more, and after a TLS handshake that failed wait for ever for a socket to close.
                raise nats.errors.Error(life.reason)
            connecting.result()
            await _end(failed_once)  # in here: whoever is cancelled now has a client that is connected
        except BaseException as error:
            await _end(connecting, failed_once)
            await life._close_client()
            if not isinstance(error, OSError | TimeoutError | nats.errors.Error):
                raise
            reason = life.reason or _text(error)
            refused = any(word in reason.lower() for word in ("authorization", "authentication"))
            raise ConnectFailed(credentials.addresses, reason, refused=refused) from None
        life.reason = ""
        if options.public_only or fast.why_not(life.client):
            life.wire = PublicWire(life.client, failed)
        else:
            life.wire = fast.FastWire(life.client, failed, life._complain)
        return life

    @property
    def over(self) -> bool:
        """Whether the connection is gone, also where the client has told nobody."""
        return self.lost.is_set() or not self.wire.alive

    async def guard(self, asked: Coroutine[Any, Any, _Result], doing: str) -> _Result:
        """Await something of this client, but not beyond its loss.

        Raises:
            ConnectionLost: it was lost first; `doing` says what was not finished.
        """
        task = asyncio.ensure_future(asked)
        try:
            await asyncio.wait((task, self._loss), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                try:
                    return task.result()
                except (nats.errors.ConnectionClosedError, nats.errors.ConnectionReconnectingError, OSError):
                    raise ConnectionLost(doing) from None
                except RuntimeError:
                    if not self.over:
                        raise
                    raise ConnectionLost(doing) from None  # uvloop says it like this that a socket is closed
            raise ConnectionLost(doing)
        finally:
            await _end(task)

    def give_up(self, reason: str) -> None:
        """Take it for lost, without waiting for anything."""
        self.reason = reason
        self._lose()

    async def close(self) -> None:
        """End it. What was handed to the wire and not yet flushed may be lost."""
        if self.lost.is_set():
            # The client would wait for what it holds to be taken by a server that takes nothing any more.
            self.wire.abandon()
        self._lose()
        await self.wire.close()
        await self._close_client()
        self.wire.abandon()

    async def _close_client(self) -> None:
        self._released.set()
        try:
            async with asyncio.timeout(5):
                await self.client.close()
        except (OSError, RuntimeError, TimeoutError, nats.errors.Error):
            pass  # it writes what it still holds to a socket that is gone; uvloop makes that a RuntimeError

    async def _error(self, error: Exception) -> None:
        self._complain(_text(error))

    def _complain(self, text: str) -> None:
        if "permissions violation" not in text:
            self.reason = text
        self._complained.set()
        self._on_error(text)

    async def _disconnected(self) -> None:
        self._over()
        # nats-py would now reconnect by itself. It waits for this callback first, and looks whether it was closed.
        await self._released.wait()

    async def _closed(self) -> None:
        self._over()

    async def _lame_duck(self) -> None:
        self.lame_duck.set()

    def _over(self) -> None:
        if not self.reason and self.client.last_error is not None:
            self.reason = _text(self.client.last_error)
        self._lose()

    def _lose(self) -> None:
        self.lost.set()
        if not self._loss.done():
            self._loss.set_result(None)


class Pulse:
    """Whether a server still shows signs of life. `look` at regular intervals.

    Looks are counted, not seconds: a process that was itself stopped for a minute has not seen its server be silent.
    """

    def __init__(self, wire: Wire, *, misses: int, answered: Callable[[], Callable[[], None]]) -> None:
        """Nothing is asked yet.

        Args:
            misses: looks in a row without a sign, after which the server is taken for gone.
            answered: called when a question is asked; what it returns is called when that is answered.
        """
        self._wire = wire
        self._misses = misses
        self._answered = answered
        self._asked = False
        self._missed = 0
        self._signs: object = None

    def look(self) -> bool:
        """Ask for a sign, unless a question is open; False where too many looks have seen none."""
        signs = self._wire.signs()
        self._missed = self._missed + 1 if signs == self._signs else 0
        if self._missed >= self._misses:
            return False
        if not self._asked:
            self._asked = True
            told = self._answered()
            self._wire.ping(lambda: self._pong(told))
        self._signs = self._wire.signs()
        return True

    def _pong(self, told: Callable[[], None]) -> None:
        self._asked = False
        told()


async def _end(*tasks: asyncio.Future[Any]) -> None:
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        # Again, where it was to no effect: before Python 3.12 `wait_for`, which nats-py connects with, forgets a
        # cancellation that meets what it waits for, and nats-py then waits for ever for a socket to close.
        _, pending = await asyncio.wait(pending, timeout=0.1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen


def _text(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    if isinstance(error, TimeoutError) and not isinstance(error, nats.errors.Error):
        return "no answer in time"
    text = " ".join(str(error).split())
    return text.removeprefix("nats: ").strip("'") or type(error).__name__
