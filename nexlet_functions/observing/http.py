"""A small HTTP server for a few pages, that no client can hurt by being slow, loud or wrong.

h11 reads and writes the protocol; what is ours are the bounds, all of them constants below. One request a connection,
GET and HEAD alone, no bodies: that is what Prometheus and the probes of orchestrators send. When too many connections
are open, the one that has taken longest to say what it wants goes first, so that a crowd of silent clients keeps
nobody else out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import h11
import structlog

from nexlet_functions.observing.listening import Address

__all__ = ["Page", "PageServer"]

MAX_CONNECTIONS: Final = 64
MAX_HEAD: Final = 8 * 1024
"""Bytes of a request line and its headers."""
READ_TIMEOUT: Final = 5.0
"""Seconds for a client to say what it wants."""
SERVE_TIMEOUT: Final = 15.0
"""Seconds for making the answer and for the client to take it; Prometheus waits ten by default."""

_log = structlog.stdlib.get_logger("nexlet_functions.observing")


@dataclass(frozen=True, slots=True)
class Page:
    """What a page answers."""

    status: int
    content_type: str
    body: bytes


Render = Callable[[Mapping[str, str]], Awaitable[Page]]
"""Makes a page, of the request's headers by their names in lower case."""


class PageServer:
    """Serves pages by their paths."""

    def __init__(self, pages: Mapping[str, Render], *, read_timeout: float) -> None:
        """Nothing is served yet; see `start`."""
        self._pages = dict(pages)
        self._read_timeout = read_timeout
        self._server: asyncio.Server | None = None
        self._reading: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._clients: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(
        cls, listening: socket.socket, pages: Mapping[str, Render], *, read_timeout: float = READ_TIMEOUT
    ) -> Self:
        """Serve on a socket that listens. It is closed with the server."""
        server = cls(pages, read_timeout=read_timeout)
        server._server = await asyncio.start_server(server._connected, sock=listening, limit=MAX_HEAD)
        return server

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._server is not None, "not started"
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def close(self) -> None:
        """End, and end whoever is connected."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CONNECTIONS:
            slowest = next(iter(self._reading), None)
            if slowest is None:
                writer.transport.abort()
                return
            self._reading.pop(slowest).cancel()
        client = asyncio.create_task(self._serve(reader, writer), name="http client")
        self._reading[writer] = client
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            try:
                async with asyncio.timeout(self._read_timeout):
                    asked: h11.Request | Page | None = await _request(connection, reader)
            except h11.RemoteProtocolError as error:
                asked = _plain(error.error_status_hint, "this is no request that is read here")
            except TimeoutError:
                asked = _plain(408, "no request came in time")
            finally:
                self._reading.pop(writer, None)
            if asked is None or connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return
            async with asyncio.timeout(SERVE_TIMEOUT):
                if isinstance(asked, h11.Request):
                    writer.write(_encode(connection, await self._page(asked), body=asked.method != b"HEAD"))
                else:
                    writer.write(_encode(connection, asked))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except OSError:  # TimeoutError is one
            pass  # it went, or takes nothing: nobody is left to be told
        finally:
            self._reading.pop(writer, None)
            writer.transport.abort()  # where it was closed in order, this does nothing

    async def _page(self, request: h11.Request) -> Page:
        target = request.target.decode("ascii", "replace").partition("?")[0]
        render = self._pages.get(target)
        if render is None:
            return _plain(404, f"there are {', '.join(sorted(self._pages))}")
        if request.method not in (b"GET", b"HEAD"):
            return _plain(405, "GET and HEAD alone")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        try:
            return await render(headers)
        except Exception as error:  # noqa: BLE001  # whatever it is: whoever asks next may have more luck
            _log.error("a page could not be made", page=target, exc_info=error)
            return _plain(500, "it could not be made; the log has the reason")


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The request; None where the client went without one."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        try:
            connection.receive_data(await reader.read(MAX_HEAD))
        except RuntimeError as error:
            # What uvloop says where the client went while reading was paused.
            raise ConnectionResetError from error


def _plain(status: int, text: str) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _encode(connection: h11.Connection, page: Page, *, body: bool = True) -> bytes:
    headers = [
        ("Content-Type", page.content_type),
        ("Content-Length", str(len(page.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
    ]
    if page.status == 405:
        headers.append(("Allow", "GET, HEAD"))
    parts = [connection.send(h11.Response(status_code=page.status, headers=headers))]
    if body:
        parts.append(connection.send(h11.Data(data=page.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
