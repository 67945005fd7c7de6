"""Everything that touches nats-py's private names, in this one module.

Two things are worth it (see "The hot path" in docs/architecture.md): a batch of encoded messages written at once
instead of a coroutine for each, and a parser of our own for the messages of our sinks, which reach them with no
coroutine, no `Msg` and no parsed headers; everything else goes on to the client's own parser. Three more come with it:
a flush whose PING is written after everything before it, an unsubscribe that loses nothing, and the knowledge that a
client's reader has died, which the client itself notices minutes later.

Tested with nats-py 2.15 and 2.16. `why_not` looks at the client at hand, not at its version; where the private surface
is not the one described here, the connection takes `wire.PublicWire` and says so in its log.

The surface: `_pending` (list of bytes), `_pending_data_size`, `_flush_queue` (futures; the flusher writes `_pending`,
drains, and sets the future), `_pongs` (futures, first in first out), `_transport` (`write`, `writelines`, `close`, and
for TCP and TLS the `_io_writer` with its asyncio transport), `_subs`, `_remove_sub`, `_reading_task`, `_flusher_task`,
and `_ps`, whose `parse` the reader looks up on the client for each chunk it has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, cast

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as ClientSubscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from nexlet_functions.natsio.complaints import TOO_MANY_SUBSCRIPTIONS
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
_CRLF = b"\r\n"

DIRECT = 256 * 1024
"""Bytes that may wait in the transport before batches take the client's own way, which waits until it has drained."""


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


class _Route:
    """Where the messages of one subscription go."""

    __slots__ = ("end", "sink", "take")

    def __init__(self, sink: MessageSink | BatchSink) -> None:
        self.take: Callable[[bytes, bytes, bytes, bytes], None]
        self.end: Callable[[], None] | None = None
        self.sink: MessageSink | None = None
        if isinstance(sink, BatchSink):
            self.take, self.end = sink.take, sink.batch_end
        else:
            self.sink, self.take = sink, self._decoded

    def _decoded(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        assert self.sink is not None
        self.sink.message(subject.decode(), reply.decode(), payload, headers)


class RoutingParser(Parser):
    """Gives the messages of known subscriptions to their sinks, and everything else to nats-py's own parser, whole.

    The bytes of one read are walked once. What is incomplete at their end is kept in pieces until all of it is there,
    so that a large payload is joined once; nats-py's buffer is empty whenever `parse` returns.
    """

    def __init__(self, client: Any, routes: dict[bytes, _Route], failed: Callable[[BaseException], None]) -> None:
        self._routes = routes
        self._failed = failed
        self._client = client
        self._stats: dict[str, int] = client.stats
        self.reads = 0
        super().__init__(client)

    def reset(self) -> None:
        """Forget what is incomplete: the connection it came over is gone."""
        super().reset()
        self._parts: list[bytes] = []
        self._have = 0
        self._want = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take what the reader has read."""
        self.reads += 1
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._want:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        at, size, want = 0, len(data), 0
        find, routes = data.find, self._routes
        messages = payload_bytes = 0
        last: _Route | None = None
        touched: list[_Route] = []
        while at < size:
            end = find(_CRLF, at)
            if end < 0:
                break
            first = data[at]
            if first != 77 and first != 72:  # neither MSG nor HMSG: a line without a body
                line = data[at : end + 2]
                if first == 45 and TOO_MANY_SUBSCRIPTIONS.encode() in line.lower():
                    # The server goes on without that subscription. nats-py would close the connection of all others.
                    await self._client._error_cb(nats.errors.Error(TOO_MANY_SUBSCRIPTIONS))
                else:
                    await super().parse(line)
                at = end + 2
                continue
            words = data[at:end].split()
            try:
                total, route = int(words[-1]), routes.get(words[2])
            except (ValueError, IndexError):
                # Malformed: nats-py says so in its own way.
                await super().parse(data[at:])
                return
            start = end + 2
            stop = start + total
            if stop + 2 > size:
                want = stop + 2 - at
                break
            if route is None:
                await super().parse(data[at : stop + 2])
                at = stop + 2
                continue
            # What is raised here would end the client's reader.
            try:
                if first == 77:
                    route.take(words[1], words[3] if len(words) == 5 else b"", data[start:stop], b"")
                else:
                    body = start + int(words[-2])
                    route.take(words[1], words[3] if len(words) == 6 else b"", data[body:stop], data[start:body])
            except Exception as error:  # noqa: BLE001  # a sink's bug, or a subject that is no UTF-8: reported
                self._failed(error)
            if route is not last:
                last = route
                touched.append(route)
            messages += 1
            payload_bytes += total
            at = stop + 2
        if at < size:
            self._parts.append(data[at:])
            self._have = size - at
            self._want = want
        if messages:
            stats = self._stats
            stats["in_msgs"] += messages
            stats["in_bytes"] += payload_bytes
            for route in dict.fromkeys(touched):
                if route.end is not None:
                    try:
                        route.end()
                    except Exception as error:  # noqa: BLE001  # a sink's bug: reported, and the reader goes on
                        self._failed(error)
            # The client reads on without a pause while there is something to read: workers and timers have their turn.
            await asyncio.sleep(0)


class FastWire:
    """A wire over private names. Make one only for a connected client for which `why_not` has nothing to say."""

    fast = True

    def __init__(self, client: Client, failed: Callable[[BaseException], None]) -> None:
        self._client = cast(Any, client)
        self._failed = failed
        self._routes: dict[bytes, _Route] = {}  # by subscription id, as the server writes it
        self._parser = self._client._ps = RoutingParser(client, self._routes, failed)
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

    def signs(self) -> object:
        # Something was read; or the last PING is still here, behind what leaves slowly, but does leave. The PING itself
        # is no sign, wherever it is: it is part of what waits, and not of what was written.
        waiting = sum(map(len, self._client._pending)) - len(_PING)
        if self._direct is not None:
            waiting += self._direct.get_write_buffer_size()
        return self._parser.reads, min(self._written - waiting, self._pinged)

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
        self._routes[b"%d" % _sid(handle)] = _Route(sink)
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
            self._routes.pop(b"%d" % sid, None)

    async def close(self) -> None:
        self._routes.clear()

    def abandon(self) -> None:
        abort(self._client)


def _sid(handle: Any) -> int:
    number: int = handle._id
    return number
