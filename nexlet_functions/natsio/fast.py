"""Everything that touches nats-py's private names, in this one module.

Two things are worth it (see "The hot path" in docs/architecture.md): a batch of encoded messages appended to the
client's outgoing buffer instead of a coroutine for each, and messages handed to their sink before headers are parsed
and a `Msg` is built. Three more come with it: a flush whose PING is written after everything before it, an unsubscribe
that loses nothing, and the knowledge that a client's reader has died, which the client itself notices minutes later.

Tested with nats-py 2.12 to 2.16. `why_not` looks at the client at hand, not at its version; where the private surface
is not the one described here, the connection takes `wire.PublicWire` and says so in its log.

The surface: `_pending` (list of bytes), `_pending_data_size`, `_flush_queue` (futures; the flusher writes `_pending`,
drains, and sets the future), `_pongs` (futures, first in first out), `_transport` (`write`, `writelines`, `close`),
`_subs`, `_remove_sub`, `_reading_task`, `_flusher_task`, and `_process_msg`, which the parser looks up on the client
for each message.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from nats.aio.client import Client
from nats.aio.subscription import Subscription as ClientSubscription

from nexlet_functions.natsio.sinks import MessageSink
from nexlet_functions.natsio.wire import FutureSink

__all__ = ["FastWire", "why_not"]

_PING = b"PING\r\n"
_ATTRIBUTES: dict[str, type] = {
    "_pending": list,
    "_pending_data_size": int,
    "_flush_queue": asyncio.Queue,
    "_pongs": list,
    "_subs": dict,
    "_reading_task": asyncio.Task,
    "_flusher_task": asyncio.Task,
    "stats": dict,
}
_PROCESS_MSG = ["sid", "subject", "reply", "data", "headers"]


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
    process = getattr(client, "_process_msg", None)
    if not inspect.iscoroutinefunction(process) or list(inspect.signature(process).parameters) != _PROCESS_MSG:
        return f"_process_msg() does not take {', '.join(_PROCESS_MSG)}"
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

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def set_result(self, _: object) -> None:
        if not self._future.done():
            self._future.set_result(None)


def _nothing() -> None:
    pass


class FastWire:
    """A wire over private names. Make one only for a connected client for which `why_not` has nothing to say."""

    fast = True

    def __init__(self, client: Client, failed: Callable[[BaseException], None]) -> None:
        self._client = cast(Any, client)
        self._failed = failed
        self._sinks: dict[int, MessageSink] = {}
        self._unsinked: Callable[..., Awaitable[None]] = self._client._process_msg
        self._client._process_msg = self._process_msg

    @property
    def alive(self) -> bool:
        client = self._client
        return bool(client.is_connected) and not client._reading_task.done() and not client._flusher_task.done()

    def send(self, blobs: list[bytes], size: int, taken: Callable[[], None]) -> None:
        client = self._client
        client._pending.extend(blobs)
        client._pending_data_size += size
        try:
            client._flush_queue.put_nowait(_Taken(taken))
        except asyncio.QueueFull:
            taken()  # a thousand others have woken the flusher already

    async def flush(self) -> None:
        client = self._client
        pending, client._pending = client._pending, []
        if pending:
            client._transport.writelines(pending)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        client._pongs.append(_Pong(future))
        client._transport.write(_PING)
        # What a flusher finds to do makes it drain: a WebSocket transport sends only then.
        client._pending_data_size = len(_PING)
        await client._flush_queue.put(_Taken(_nothing))
        await future

    async def subscribe(self, subject: str, queue: str, sink: MessageSink) -> ClientSubscription:
        future: Any = FutureSink(sink, self._failed)
        handle: ClientSubscription = await self._client.subscribe(subject, queue=queue, future=future)
        # Messages that come before this line go the client's own way to the same sink.
        self._sinks[_sid(handle)] = sink
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
            self._sinks.pop(sid, None)

    async def close(self) -> None:
        self._sinks.clear()

    def abandon(self) -> None:
        self._client._transport.close()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        sink = self._sinks.get(sid)
        if sink is None:
            await self._unsinked(sid, subject, reply, data, headers)
            return
        stats = self._client.stats
        stats["in_msgs"] += 1
        stats["in_bytes"] += len(data)
        # What is raised here would end the client's reader: that of a sink, and that of a subject which is not UTF-8.
        try:
            sink.message(subject.decode(), reply.decode(), data, headers or b"")
        except Exception as error:  # noqa: BLE001  # reported, and the reader goes on
            self._failed(error)


def _sid(handle: Any) -> int:
    number: int = handle._id
    return number
