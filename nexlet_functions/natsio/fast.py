"""Everything that touches nats-py's private names, in this one module.

Two things are worth it (see "The hot path" in docs/architecture.md): a batch of encoded messages written at once
instead of a coroutine for each, and a `Router` between the transport and the client's stream, by which the messages
of our sinks reach them with no task, no `Msg` and no parsed headers; everything else goes on, whole. Three more come
with it: a flush that is one round trip, its PING written after everything before it; reading that gives way to others;
and the knowledge that a client's reader has died, which the client itself notices minutes later.

Tested with nats-py 2.15 and 2.16. `why_not` looks at the client at hand, not at its version; where the private surface
is not the one described here, the connection takes `wire.PublicWire` and says so in its log.

The surface: `_pending` (list of bytes), `_pending_data_size`, `_flush_queue` (futures; the flusher writes `_pending`,
drains, and sets the future), `_pongs` (futures, first in first out), `_transport` (`write`, `writelines`, `close`, and
for TCP and TLS `_io_reader` and `_io_writer`, asyncio's streams over its transport), `_subs`, `_remove_sub`,
`_reading_task`, `_flusher_task`, and `_ps`, whose `parse` the reader looks up on the client for each chunk it has read.
Of asyncio's `StreamReader`: `_buffer`, `_paused` and `_maybe_resume_transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, cast

from nats.aio.client import Client
from nats.aio.subscription import Subscription as ClientSubscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from nexlet_functions.natsio.router import Router
from nexlet_functions.natsio.sinks import BatchSink, MessageSink
from nexlet_functions.natsio.wire import FutureSink, abort

__all__ = ["FastWire", "why_not"]

_PING = b"PING\r\n"
_ATTRIBUTES: dict[str, type] = {
    "_pending": list,
    "_pending_data_size": int,
    "_flush_queue": asyncio.Queue,
    "_pongs": list,
    "_subs": dict,
    "_ps": Parser,
    "_reading_task": asyncio.Task,
    "_flusher_task": asyncio.Task,
    "stats": dict,
}

DIRECT = 256 * 1024
"""Bytes that may wait in the transport before batches take the client's own way, which waits until it has drained."""

TURN = 32 * 1024
"""Bytes that are walked in one turn of the loop: what a flood gets of it before workers and timers have their turn."""

PIECE = 8 * 1024
"""Bytes after which a connection that gives way looks whether others wait: half a hundred small messages, 0.3 ms."""


def why_not(client: Client) -> str:
    """What of the private surface a connected client lacks; "" where it is all there."""
    for name, kind in _ATTRIBUTES.items():
        if not isinstance(getattr(client, name, None), kind):
            return f"{name} is no {kind.__name__}"
    transport = getattr(client, "_transport", None)
    for name in ("write", "writelines", "close"):
        if not callable(getattr(transport, name, None)):
            return f"_transport has no {name}()"
    if not callable(getattr(client, "_remove_sub", None)):
        return "there is no _remove_sub()"
    parser: Any = getattr(client, "_ps", None)
    if type(parser) is not Parser or not inspect.iscoroutinefunction(parser.parse):
        return "_ps is not the parser we know"
    if not isinstance(getattr(parser, "buf", None), bytearray) or parser.buf or parser.state != AWAITING_CONTROL_LINE:
        return "_ps is in the middle of something"
    return ""


class _Taken:
    """Stands in the flusher's queue for a future; tells us when it has written and drained."""

    __slots__ = ("_taken",)

    def __init__(self, taken: Callable[[], None]) -> None:
        self._taken = taken

    def done(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        self._taken()


class _Pong:
    """Stands in the client's list for a future that nobody can cancel: the client sets it without looking."""

    __slots__ = ("_answered",)

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered

    def set_result(self, _: object) -> None:
        self._answered()


def _nothing() -> None:
    pass


class _RoutingParser(Parser):
    """In place of the client's parser, where its transport is one that cannot be tapped, such as a WebSocket."""

    def __init__(self, client: Any, router: Router) -> None:
        self._router = router
        super().__init__(client)

    def reset(self) -> None:
        """Forget what is incomplete: the connection it came over is gone."""
        super().reset()
        self._router.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what the reader has read."""
        for other in self._router.walk(data):
            await super().parse(other)
        self._router.end()
        # The client reads on without a pause while there is something to read: workers and timers have their turn.
        await asyncio.sleep(0)


class _Tap(asyncio.Protocol):
    """Between a transport and the client's stream: our messages go straight on, and the stream gets the rest.

    So a message wakes no reader's task, and is there two turns of the loop earlier. What is read at once is walked a
    piece a turn, with the transport paused: it may be 256 KiB, and workers and timers are to have their turn.

    Attributes:
        others_wait: ends a turn early; None where it gives way to nobody.
    """

    def __init__(self, transport: Any, stream: asyncio.StreamReaderProtocol, reader: Any, router: Router) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._stream = stream
        self._reader = reader
        self._router = router
        self._waiting = b""
        self.others_wait: Callable[[], bool] | None = None
        # What the client has not looked at yet comes first.
        unread = bytes(reader._buffer)
        reader._buffer.clear()
        reader._maybe_resume_transport()
        transport.set_protocol(self)
        if unread:
            self.data_received(unread)

    @classmethod
    def into(cls, client: Any, router: Router) -> _Tap | None:
        """Tap a connected client's transport; None where that cannot be done."""
        reader, writer = (getattr(client._transport, name, None) for name in ("_io_reader", "_io_writer"))
        transport: Any = getattr(writer, "transport", None)
        if not isinstance(reader, asyncio.StreamReader) or not hasattr(transport, "set_protocol"):
            return None
        stream = transport.get_protocol()
        if not isinstance(stream, asyncio.StreamReaderProtocol) or not isinstance(
            getattr(reader, "_buffer", None), bytearray
        ):
            return None
        return cls(transport, stream, reader, router)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        if self._waiting:  # resumed by the stream, or there was more in hand when it was paused
            self._waiting += data
            self._transport.pause_reading()
        elif len(data) <= (TURN if self.others_wait is None else PIECE) or len(data) <= self._router.missing:
            self._walk(data)
            self._router.end()
        else:
            self._waiting = data
            self._transport.pause_reading()
            self._go_on()

    def _go_on(self) -> None:
        if not self._waiting:
            return  # the connection ended, and `_finish` took it
        others_wait = self.others_wait
        gives_way, walked = False, 0
        while self._waiting and walked < TURN and not gives_way:
            size = max(TURN if others_wait is None else PIECE, self._router.missing)
            piece, self._waiting = self._waiting[:size], self._waiting[size:]
            self._walk(piece)
            walked += size
            gives_way = others_wait is not None and others_wait()
        self._router.end()
        if self._waiting:
            self._loop.call_soon(self._pass if gives_way else self._go_on)
        elif not self._reader._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _pass(self) -> None:
        # What is called soon comes before what has come over sockets: only after those have been looked at.
        self._loop.call_soon(self._go_on)

    def _walk(self, data: bytes) -> None:
        others = self._router.walk(data)
        if others:
            self._stream.data_received(others[0] if len(others) == 1 else b"".join(others))

    def _finish(self) -> None:
        data, self._waiting = self._waiting, b""
        if data:
            self._walk(data)
            self._router.end()

    def eof_received(self) -> bool | None:
        """The server will send nothing more."""
        self._finish()
        return self._stream.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._finish()
        self._router.reset()
        self._stream.connection_lost(exc)

    def pause_writing(self) -> None:
        """The transport holds as much as it should."""
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        """It has room again."""
        self._stream.resume_writing()


class FastWire:
    """A wire over private names. Make one only for a connected client for which `why_not` has nothing to say."""

    fast = True

    def __init__(
        self, client: Client, failed: Callable[[BaseException], None], complained: Callable[[str], None]
    ) -> None:
        self._client = cast(Any, client)
        self._failed = failed
        self._router = Router(self._client.stats, failed=failed, complained=complained)
        self._tap = _Tap.into(self._client, self._router)
        if self._tap is None:
            self._client._ps = _RoutingParser(client, self._router)
        self._written = 0  # bytes of ours, ever
        self._pinged = 0  # of them, those before the last PING
        self._queued: list[bytes] = []  # what the flusher has still to take
        # A WebSocket has another transport and sends only when it is drained: batches then take the client's own way.
        writer = getattr(self._client._transport, "_io_writer", None)
        self._direct = getattr(writer, "transport", None)

    @property
    def alive(self) -> bool:
        client = self._client
        return (
            bool(client.is_connected)
            and not client._reading_task.done()
            and not client._flusher_task.done()
            # Lost, and the reader has not come to it yet: what is written now would be gone without a word.
            and not (self._direct is not None and self._direct.is_closing())
        )

    def send(self, blobs: list[bytes], size: int, taken: Callable[[], None]) -> None:
        client, direct = self._client, self._direct
        self._written += size
        if direct is not None and not client._pending and direct.get_write_buffer_size() < DIRECT:
            # Nothing is before it, so it can go at once: the flusher's way costs two more turns of the loop.
            direct.write(blobs[0] if len(blobs) == 1 else b"".join(blobs))
            taken()
            return
        client._pending.extend(blobs)
        client._pending_data_size += size
        self._queued += blobs

        def took() -> None:
            self._queued = []
            taken()

        try:
            client._flush_queue.put_nowait(_Taken(took))
        except asyncio.QueueFull:
            taken()  # a thousand others have woken the flusher already

    async def flush(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ping(lambda: None if future.done() else future.set_result(None))
        await future

    def ping(self, answered: Callable[[], None]) -> None:
        client = self._client
        pending, client._pending = client._pending, []
        if pending:
            client._transport.writelines(pending)
        client._pongs.append(_Pong(answered))
        client._transport.write(_PING)
        self._pinged = self._written
        # What a flusher finds to do makes it drain: a WebSocket transport sends only then.
        client._pending_data_size = len(_PING)
        # With a queue that is full, a thousand others have woken the flusher already.
        with contextlib.suppress(asyncio.QueueFull):
            client._flush_queue.put_nowait(_Taken(_nothing))

    @property
    def socket(self) -> int:
        direct = self._direct
        known = direct.get_extra_info("socket") if direct is not None and not direct.is_closing() else None
        return known.fileno() if known is not None else -1

    def give_way(self, others_wait: Callable[[], bool] | None) -> None:
        if self._tap is not None:
            self._tap.others_wait = others_wait

    def signs(self) -> object:
        # Something was read; or the last PING is still here, behind what leaves slowly, but does leave. The PING itself
        # is no sign, wherever it is: it is part of what waits, and not of what was written.
        waiting = sum(map(len, self._client._pending)) - len(_PING)
        if self._direct is not None:
            waiting += self._direct.get_write_buffer_size()
        return self._router.reads, min(self._written - waiting, self._pinged)

    def take_back(self) -> list[bytes]:
        queued, self._queued = {id(blob) for blob in self._queued}, []
        pending = self._client._pending
        back = [blob for blob in pending if id(blob) in queued]
        if back:
            self._client._pending = [blob for blob in pending if id(blob) not in queued]
        return back

    async def subscribe(self, subject: str, queue: str, sink: MessageSink | BatchSink) -> ClientSubscription:
        future: Any = FutureSink(sink, self._failed)
        handle: ClientSubscription = await self._client.subscribe(subject, queue=queue, future=future)
        # Messages that come before this line go the client's own way to the same sink.
        self._router.add(_sid(handle), sink)
        return handle

    async def unsubscribe(self, handle: ClientSubscription) -> None:
        client, sid = self._client, _sid(handle)
        if sid not in client._subs:
            return
        command = b"UNSUB %d\r\n" % sid
        client._pending.append(command)
        client._pending_data_size += len(command)
        try:
            await self.flush()
        finally:
            client._remove_sub(sid)
            self._router.remove(sid)

    async def close(self) -> None:
        self._router.clear()

    def abandon(self) -> None:
        abort(self._client)


def _sid(handle: Any) -> int:
    number: int = handle._id
    return number
