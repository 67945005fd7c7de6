"""The network under HTTP: whom to believe, whom to connect to, and how much to take.

All connections of a function's HTTP come from its `Network`: a name is looked up once, the addresses that it leads to
are held to what is permitted, and one of those is connected to, as the number that was looked at. `Meter` counts what
one call reads, of everything that a server sends. `Trust` has the certificates.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, cast

import certifi
import httpcore

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.outwards import Address, plain, refused_address
from nexlet_functions.grants.resolving import Resolver
from nexlet_models.sizes import format_size

__all__ = ["METER", "Meter", "Network", "Trust"]

MAX_ADDRESSES: Final = 4
"""Addresses of a name that are tried."""
READ: Final = 8 * 1024
"""Bytes that are read at once. The event loop is everybody's, and parsing as many of the worst kind takes 10 ms."""


class Trust:
    """Whose certificates are believed: those that the system trusts, and the operator's."""

    def __init__(self) -> None:
        """Nothing is read before the first call."""
        self._contexts: dict[Path | None, ssl.SSLContext] = {}
        self._reading = threading.Lock()

    async def context(self, authorities: Path | None) -> ssl.SSLContext:
        """What TLS is done with.

        Args:
            authorities: a file with certificates of further authorities.

        Raises:
            OSError: the file cannot be read, or is none (`ssl.SSLError`).
        """
        context = self._contexts.get(authorities)
        if context is None:
            # Reading the system's takes some ten milliseconds.
            context = await asyncio.to_thread(self._read, authorities)
        return context

    def _read(self, authorities: Path | None) -> ssl.SSLContext:
        with self._reading:  # once, however many ask
            if authorities not in self._contexts:
                self._contexts[authorities] = _context(authorities)
            return self._contexts[authorities]


def _context(authorities: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:  # an image without any
        context.load_verify_locations(certifi.where())
    if authorities is not None:
        context.load_verify_locations(authorities)
    return context


@dataclass(slots=True)
class Meter:
    """What one call has read so far.

    Attributes:
        most: bytes that it may read, of all that a server sends: also of what never becomes part of an answer.
        held: bytes of its answers, unpacked.
        at: whom it asks, for messages.
    """

    most: int
    read: int = 0
    held: int = 0
    at: str = "the server"

    def count(self, size: int) -> None:
        self.read += size
        if self.read > self.most:
            raise CallFailed(Failure.TOO_LARGE, f"{self.at} sends more than {format_size(self.most)}")


METER: Final[ContextVar[Meter]] = ContextVar("METER")
"""Of the call that this task makes."""


class Network(httpcore.AsyncNetworkBackend):
    """Where all connections come from: to a permitted address, and to the one that was looked at."""

    def __init__(
        self, resolver: Resolver, permitted: Sequence[Any], on_refused: Callable[[str, Address, str], None]
    ) -> None:
        self._resolver = resolver
        self._permitted = permitted
        self._on_refused = on_refused
        # Which is one; but where anyio is missing it is a class that only says so, and that is what type checkers see.
        self._system = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        assert timeout is not None, "connecting has a time limit"
        end = loop.time() + timeout
        addresses = await self._addresses(host, timeout)
        failed: Exception = httpcore.ConnectTimeout()
        for number, address in enumerate(addresses):
            # So that one that is silent leaves time for the others.
            share = (end - loop.time()) / (len(addresses) - number)
            if share <= 0:
                break
            try:
                stream = await self._system.connect_tcp(str(address), port, timeout=share)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
                continue
            peer = stream.get_extra_info("server_addr")
            if plain(ip_address(peer[0])) != address:
                await stream.aclose()
                raise CallFailed(Failure.DENIED, f"the connection to {host} leads to another address than asked")
            return _Stream(stream)
        raise failed

    async def _addresses(self, host: str, timeout: float) -> Sequence[Address]:
        try:
            found: Sequence[Address] = [plain(ip_address(host))]
        except ValueError:
            try:
                async with asyncio.timeout(timeout):
                    found = await self._resolver(host)
            except TimeoutError:
                raise CallFailed(Failure.TIMED_OUT, f"the address of {host} was not found in time") from None
            except OSError:
                raise CallFailed(Failure.UNAVAILABLE, f"the name {host} has no address") from None
        permitted = []
        reason = ""
        for address in found:
            what = refused_address(address, self._permitted)
            if what is None:
                permitted.append(address)
            else:
                reason = what
                self._on_refused(host, address, what)
        if not permitted:
            if not reason:
                raise CallFailed(Failure.UNAVAILABLE, f"the name {host} has no address")
            raise CallFailed(
                Failure.DENIED,
                f"{host} leads to {reason}, which HTTP is not permitted to reach: ask the operator, "
                "who permits ranges of addresses for a namespace",
            )
        return permitted[:MAX_ADDRESSES]


class _Stream(httpcore.AsyncNetworkStream):
    """A connection, counted by whoever reads from it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(min(max_bytes, READ), timeout)
        METER.get().count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
