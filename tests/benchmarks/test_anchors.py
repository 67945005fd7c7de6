"""What measures functions-framework and FastStream, without them: load over HTTP, and where nothing installs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.anchors import __main__ as anchors
from benchmarks.anchors.http_load import http_requests
from benchmarks.load import Measured

Answer = Callable[[int, bytes], bytes]
"""What the request of this number, over all connections, and of this body is answered."""


def good(number: int, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def serving(answer: Answer, *, closing_after: int = 0) -> AsyncIterator[tuple[int, list[int]]]:
    """Yields the port, and of each connection how many requests it brought."""
    connections: list[int] = []
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(connections)
        connections.append(0)
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        while not closing_after or connections[at] < closing_after:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            assert head.startswith(b"POST / HTTP/1.1\r\n")
            body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            connections[at] += 1
            writer.write(answer(sum(connections), body))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], connections
        await asyncio.gather(*served)


async def load(port: int, *, count: int = 100, in_flight: int = 8) -> Measured:
    return await asyncio.to_thread(
        http_requests, "127.0.0.1", port, count=count, in_flight=in_flight, payload=b"x" * 70_000
    )


async def test_connections_are_kept_and_used_again() -> None:
    async with serving(good) as (port, connections):
        measured = await load(port)
    assert (measured.answers, measured.errors, len(measured.latencies)) == (100, 0, 100)
    assert measured.latencies == sorted(measured.latencies)
    assert measured.rate > 0
    assert len(connections) == 8
    assert sum(connections) == 100


async def test_a_connection_that_is_closed_between_answers_is_opened_anew() -> None:
    async with serving(good, closing_after=3) as (port, connections):
        measured = await load(port)
    assert (measured.answers, measured.errors) == (100, 0)
    assert sum(connections) == 100
    assert max(connections) == 3


async def test_other_answers_than_good_ones_are_counted() -> None:
    def every_tenth(number: int, body: bytes) -> bytes:
        if number % 10:
            return good(number, body)
        return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"

    async with serving(every_tenth) as (port, _):
        assert (await load(port)).errors == 10


async def test_who_does_not_keep_to_http_is_refused() -> None:
    async with serving(lambda number, body: b"HTTP/1.1 200 OK\r\n\r\n") as (port, _):
        with pytest.raises(ConnectionError, match="does not say how long"):
            await load(port)


def test_where_there_is_no_registry_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens to the port `discard`
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    assert anchors.main([]) == 2
    said = capfd.readouterr().err
    assert "functions-framework and faststream cannot be installed here:\nERROR: " in said
    assert "package registry" in said
