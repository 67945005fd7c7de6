"""The seam between our connection and one nats-py client: what we need of it, and how its public interface gives it.

- `Wire`: subscribe to a synchronous sink, take a batch of encoded messages, flush, unsubscribe without losing what is
  on its way. A wire lives as long as its client.
- `PublicWire`: all of it over public names of nats-py. Its price: a task that publishes message by message, headers
  that are encoded again, and header names with a slash left out (the client refuses them).
- `PatientClient`: a client whose flush comes after what it still holds back, and so its unsubscribe as well.
- `fast.FastWire` does the same over private names, where the installed version has them as we know them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription

from nexlet_functions.natsio.protocol import decode_headers, encode_headers, parse_publishes
from nexlet_functions.natsio.sinks import BatchSink, MessageSink

__all__ = ["FutureSink", "PatientClient", "PublicWire", "Wire"]

_FOREVER = 7 * 24 * 3600
"""Seconds. nats-py's own time limit on a flush must never strike: it cancels a future that its reader still sets, which
ends the reader. Whoever waits for us has a limit of his own."""

_BLOCKS: Final = 256
_BLOCK: Final = 512
"""How many header blocks are kept read, and of how many bytes at most: all answers of a function have the same one, but
for those that have headers of their own."""


class Wire(Protocol):
    """One client's worth of connection."""

    @property
    def fast(self) -> bool:
        """Whether private names are used."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the client still reads and writes, as far as it can be told without asking the server."""
        ...

    def send(self, blobs: list[bytes], size: int, taken: Callable[[], None]) -> None:
        """Hand over encoded messages, `size` bytes together; `taken` is called when the next batch may come."""
        ...

    async def flush(self) -> None:
        """Return when the server has processed everything handed over before. May wait for ever; can be cancelled."""
        ...

    def ping(self, answered: Callable[[], None]) -> None:
        """Ask for a sign; `answered` is called when the server has processed everything handed over before."""
        ...

    @property
    def socket(self) -> int:
        """The descriptor of what messages come over; -1 where it is not known."""
        ...

    def give_way(self, others_wait: Callable[[], bool] | None) -> None:
        """Look no further at what has come, until the loop has had a turn, whenever this says so; None: at all of it.

        Where that cannot be done, it is not.
        """
        ...

    def signs(self) -> object:
        """Something that differs from what it was before where the server has since shown that it lives."""
        ...

    def take_back(self) -> list[bytes]:
        """What was handed over and has surely not left yet. It is the caller's again; for a wire that is lost."""
        ...

    async def subscribe(self, subject: str, queue: str, sink: MessageSink | BatchSink) -> ClientSubscription:
        """Ask for a subscription; the server's verdict is known after a flush."""
        ...

    async def unsubscribe(self, handle: ClientSubscription) -> None:
        """End a subscription; what the server sent before it knew still reaches the sink. May wait for ever."""
        ...

    async def close(self) -> None:
        """End what the wire itself runs; the client is closed by its owner."""
        ...

    def abandon(self) -> None:
        """Have the client let go of its socket at once, whatever still waits to be written to it."""
        ...


def abort(client: Client) -> None:
    """Close the client's socket without waiting for what its buffer still holds.

    Nothing public does it, and a client whose server takes nothing any more would keep socket and buffer for as long as
    the kernel tries, a quarter of an hour. Where its insides are other ones than we know, that is what happens.
    """
    transport: Any = getattr(client, "_transport", None)
    for writer in (getattr(transport, "_io_writer", None), getattr(transport, "_bare_io_writer", None)):
        end = getattr(getattr(writer, "transport", None), "abort", None)
        if callable(end):
            end()


class FutureSink:
    """What `Client.subscribe(future=...)` takes for a future: each message "sets its result", and it is never done."""

    def __init__(self, sink: MessageSink | BatchSink, failed: Callable[[BaseException], None]) -> None:
        self._batch = sink if isinstance(sink, BatchSink) else None
        self._sink = None if isinstance(sink, BatchSink) else sink
        self._failed = failed
        self._ending = False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        # What is raised here would end the client's reader.
        try:
            block = encode_headers(message.headers) if message.headers else b""
            if self._sink is not None:
                self._sink.message(message.subject, message.reply, message.data, block)
            elif self._batch is not None:
                self._batch.take(message.subject.encode(), message.reply.encode(), message.data, block)
                if not self._ending:
                    # The reader does not say when it is through; the next turn of the loop is when it is.
                    self._ending = True
                    asyncio.get_running_loop().call_soon(self._end, self._batch)
        except Exception as error:  # noqa: BLE001  # a sink's bug: reported, and the reader goes on
            self._failed(error)

    def _end(self, batch: BatchSink) -> None:
        self._ending = False
        try:
            batch.batch_end()
        except Exception as error:  # noqa: BLE001  # a sink's bug: reported
            self._failed(error)


class PatientClient(Client):
    """nats-py's client with a flush that is one. Its own `drain` of a subscription flushes by it, too.

    The client writes its PING past what it still holds back, so that only the second one comes after all of it. Where
    it is the UNSUB that is held back, what came between the PONG and the end of the subscription was lost: nothing of a
    function that keeps up, but up to 8,600 of 58,700 messages of one that was sent twice what it could take.
    """

    async def flush(self, timeout: int = _FOREVER) -> None:
        """Return when the server has processed everything before. `timeout` is not looked at: see `_FOREVER`."""
        await super().flush(_FOREVER)
        await super().flush(_FOREVER)


class PublicWire:
    """A wire over public names only. Make it for a `PatientClient`."""

    fast = False

    def __init__(self, client: PatientClient, failed: Callable[[BaseException], None]) -> None:
        self._client = client
        self._failed = failed
        self._batches: deque[tuple[list[bytes], Callable[[], None]]] = deque()
        self._more = asyncio.Event()
        self._publisher = asyncio.create_task(self._publish_all(), name="natsio-publisher")
        self._tasks: set[asyncio.Task[Any]] = {self._publisher}
        self._pongs = 0

    @property
    def alive(self) -> bool:
        return self._client.is_connected and not self._publisher.done()

    def send(self, blobs: list[bytes], size: int, taken: Callable[[], None]) -> None:
        self._batches.append((blobs, taken))
        self._more.set()

    async def flush(self) -> None:
        passed = asyncio.get_running_loop().create_future()
        self.send([], 0, lambda: None if passed.done() else passed.set_result(None))
        await passed
        await self._undisturbed(self._client.flush())

    def ping(self, answered: Callable[[], None]) -> None:
        task = asyncio.create_task(self.flush(), name="natsio-ping")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: self._answered(done, answered))

    def _answered(self, task: asyncio.Task[None], answered: Callable[[], None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._pongs += 1
            answered()

    @property
    def socket(self) -> int:
        return -1

    def give_way(self, others_wait: Callable[[], bool] | None) -> None:
        pass  # what has been read is taken a message at a time by nats-py's own tasks

    def signs(self) -> object:
        # What is on its way out cannot be seen here: a server that reads slowly and sends nothing counts as silent.
        return self._client.stats["in_bytes"], self._client.stats["in_msgs"], self._pongs

    def take_back(self) -> list[bytes]:
        batches, self._batches = self._batches, deque()
        return [blob for blobs, _ in batches for blob in blobs]

    async def subscribe(self, subject: str, queue: str, sink: MessageSink | BatchSink) -> ClientSubscription:
        future: Any = FutureSink(sink, self._failed)
        return await self._client.subscribe(subject, queue=queue, future=future)

    async def unsubscribe(self, handle: ClientSubscription) -> None:
        try:
            await self._undisturbed(handle.drain())  # type: ignore[no-untyped-call]  # nats-py left out its types
        except (nats.errors.BadSubscriptionError, nats.errors.ConnectionClosedError):
            pass  # it is gone already, which is what was asked for

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abandon(self) -> None:
        abort(self._client)

    async def _undisturbed(self, asked: Any) -> None:
        """Await it in a task that our own caller's cancellation does not reach (see `_FOREVER`)."""
        task = asyncio.ensure_future(asked)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _publish_all(self) -> None:
        # What is done for each message is done here, with no coroutine around it but the client's own.
        publish, known = self._client.publish, lru_cache(_BLOCKS)(_public_headers)
        while True:
            await self._more.wait()
            self._more.clear()
            while self._batches:
                blobs, taken = self._batches.popleft()
                for number, blob in enumerate(blobs):
                    if not self._client.is_connected:  # it would take the message and lose it
                        self._batches.appendleft((blobs[number:], taken))
                        return
                    for subject, reply, block, payload in parse_publishes(blob):
                        headers = None
                        if block:
                            headers = known(block) if len(block) <= _BLOCK else _public_headers(block)
                        try:
                            await publish(subject, payload, reply, headers)
                        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError):
                            return  # lost; the next client's wire goes on with the next batch
                        except nats.errors.Error as error:
                            self._failed(error)
                taken()


def _public_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a block as `Client.publish` takes them, and only reads them; None where it takes none of them."""
    return {name: value for name, value in decode_headers(block).items() if "/" not in name} or None
