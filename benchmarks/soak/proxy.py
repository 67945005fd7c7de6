"""A relay between the nexlet and the server, for cutting connections without a goodbye, in the middle of a message.

Bytes pass as they are. One that is cut is reset towards both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self, cast
from urllib.parse import urlsplit

__all__ = ["Proxy"]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing resets


class _Side(asyncio.Protocol):
    """One side of a relayed connection; what it reads goes to `other`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Near(_Side):
    """The side of whoever connects; it reads nothing before the far side is there."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._proxy.connect(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._proxy.forget(self)


class Proxy:
    """Listens on a port of its own; an async context manager.

    Attributes:
        url: where to connect instead of to the server.
    """

    def __init__(self, url: str) -> None:
        """Nothing listens yet.

        Args:
            url: of the server.
        """
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 4222
        self._server: asyncio.Server | None = None
        self._open: list[_Near] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut(len(self._open))

    @property
    def connections(self) -> int:
        """How many pass through now."""
        return len(self._open)

    def cut(self, count: int) -> None:
        """Reset the oldest `count` connections."""
        for near in self._open[:count]:
            for side in (near, near.other):
                if side is None or side.transport is None:
                    continue
                raw = side.transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                side.transport.abort()

    def connect(self, near: _Near) -> None:
        """Someone has connected: connect on to the server."""
        self._open.append(near)
        task = asyncio.get_running_loop().create_task(self._connect(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, near: _Near) -> None:
        """A connection is over."""
        if near in self._open:
            self._open.remove(near)

    async def _connect(self, near: _Near) -> None:
        far = _Side()
        far.other, near.other = near, far
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, self._host, self._port)
        except OSError:
            if near.transport is not None:
                near.transport.abort()
            return
        if near.transport is None:
            assert far.transport is not None
            far.transport.abort()
        else:
            near.transport.resume_reading()
