"""A server of HTTP that says what it is told to, byte by byte: well-formed answers, and the others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["Asked", "Script", "Server", "answer", "serving", "silent"]

MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as it came over the wire.

    Attributes:
        line: its first one.
        headers: name in lower case to value.
        reader: what comes behind it.
    """

    line: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader = field(repr=False)

    @property
    def path(self) -> str:
        return self.line.split(" ")[1].partition("?")[0]


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]
"""Writes an answer; the connection stays open behind it."""


async def silent(asked: Asked, _: asyncio.StreamWriter) -> None:
    """Says nothing, until whoever asked has gone."""
    await asked.reader.read()


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """A well-formed answer."""
    lines = [f"HTTP/1.1 {status} It", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


@dataclass
class Server:
    """What it answers by path, and what it was asked.

    Attributes:
        pages: path to bytes or to what writes them; whatever is not there is 404.
        connections: how many there were.
        open: how many there are.
    """

    pages: dict[str, bytes | Script] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    names: list[str | None] = field(default_factory=list)
    """What clients named in TLS."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                asked = Asked(line, headers, body, reader)
                self.asked.append(asked)
                page = self.pages.get(asked.path, answer(b"nothing here", 404))
                if isinstance(page, bytes):
                    writer.write(page)
                else:
                    await page(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client went
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A server on an address of this machine, at a free port unless one is named."""
    made = Server()
    clients: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(made._serve(reader, writer))
        clients.add(client)
        client.add_done_callback(clients.discard)

    if tls is not None:
        tls.sni_callback = lambda _connection, name, _context: made.names.append(name)
    server = await asyncio.start_server(connected, host, port, ssl=tls, limit=MAX)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
