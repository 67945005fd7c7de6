"""A TCP proxy that breaks connections in every way that networks do, between a client under test and its server."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

__all__ = ["FaultyProxy", "Way"]


class Way(enum.Enum):
    """A direction."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class _Lane:
    """What happens to the bytes of one direction, over all connections."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.swallows = False
        self.rate = 0.0
        self.delay = 0.0
        self.cut_at = b""
        self.stop_at = b""
        self.stopped = asyncio.Event()
        self.passed = 0


class FaultyProxy:
    """Listens on a port of its own for one server; an async context manager.

    Attributes:
        url: where clients connect. Stays the same over `refuse` and `accept`.
        connections: how many there were.
    """

    def __init__(self, server: str) -> None:
        """Nothing listens yet. `server` is the URL of a NATS server."""
        parts = urlsplit(server)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = parts.hostname, parts.port
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._lanes = {way: _Lane() for way in Way}
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self.connections = 0
        self.url = ""

    # --- faults ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset all connections."""
        for task, writers in list(self._open.items()):
            for writer in writers:
                writer.transport.abort()
            task.cancel()

    def cut_at(self, way: Way, marker: bytes) -> None:
        """Cut the connection that `marker` passes on, right behind it. Once."""
        self._lanes[way].cut_at = marker

    def stop(self, *ways: Way) -> None:
        """Let nothing pass, and take nothing any more once buffers are full; `go` lets all of it pass."""
        for way in ways or Way:
            self._lanes[way].flows.clear()

    def stop_at(self, way: Way, marker: bytes) -> asyncio.Event:
        """Let nothing pass behind `marker`, once that passes; what is returned is set then. `go` lets it pass."""
        lane = self._lanes[way]
        lane.stop_at, lane.stopped = marker, asyncio.Event()
        return lane.stopped

    def swallow(self, *ways: Way) -> None:
        """Take everything and let nothing pass: it is gone."""
        for way in ways or Way:
            self._lanes[way].swallows = True

    def slow(self, way: Way, rate: float) -> None:
        """At most `rate` bytes a second."""
        self._lanes[way].rate = rate

    def late(self, way: Way, seconds: float) -> None:
        """Each read arrives later by so much."""
        self._lanes[way].delay = seconds

    def go(self) -> None:
        """Everything passes again."""
        for lane in self._lanes.values():
            lane.flows.set()
            lane.swallows, lane.rate, lane.delay, lane.cut_at, lane.stop_at = False, 0.0, 0.0, b"", b""

    def half_close(self) -> None:
        """Say to all clients that nothing more will come, and go on taking what they send."""
        for writers in self._open.values():
            writers[0].write_eof()

    async def refuse(self) -> None:
        """Cut all connections and listen no more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def accept(self) -> Self:
        """Listen, on the port it had before."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=65536)
        self._port = self._listener.sockets[0].getsockname()[1]
        self.url = f"nats://127.0.0.1:{self._port}"
        return self

    def passed(self, way: Way) -> int:
        """Bytes that passed, over all connections."""
        return self._lanes[way].passed

    # --- the machine -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        writers = [writer]
        self._open[task] = (writer,)
        try:
            to_reader, to_writer = await asyncio.open_connection(*self._target)
            writers.append(to_writer)
            self._open[task] = (writer, to_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(Way.TO_SERVER, reader, to_writer))
                pumps.create_task(self._pump(Way.TO_CLIENT, to_reader, writer))
        except* (OSError, _Cut):
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            for one in writers:
                if not one.is_closing():
                    one.transport.abort()
            del self._open[task]

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lane, tail = self._lanes[way], b""
        while True:
            await lane.flows.wait()
            data = await reader.read(int(max(1, min(65536, lane.rate / 20))) if lane.rate else 65536)
            await lane.flows.wait()
            if not data:
                writer.close()  # what was written still arrives
                raise _Cut
            if lane.swallows:
                continue
            if lane.rate:
                await asyncio.sleep(len(data) / lane.rate)
            if lane.delay:
                await asyncio.sleep(lane.delay)
            marker = lane.cut_at
            if marker:
                seen = tail + data
                at = seen.find(marker)
                if at >= 0:
                    lane.cut_at = b""
                    writer.write(seen[len(tail) : at + len(marker)])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    writer.close()  # what was written still arrives
                    raise _Cut
                tail = seen[-len(marker) + 1 :] if len(marker) > 1 else b""
            if lane.stop_at and (end := data.find(lane.stop_at) + len(lane.stop_at)) >= len(lane.stop_at):
                lane.stop_at = b""
                lane.flows.clear()
                writer.write(data[:end])
                lane.stopped.set()
                await lane.flows.wait()
                lane.passed += end
                data = data[end:]
            writer.write(data)
            await writer.drain()
            lane.passed += len(data)

    async def __aenter__(self) -> Self:
        return await self.accept()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go()
        await self.refuse()


class _Cut(Exception):
    """The connection ends here."""
