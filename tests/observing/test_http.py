"""The page server over real sockets: what it answers, and what slow, loud and wrong clients cannot do to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest

from nexlet_functions.observing.http import MAX_CONNECTIONS, MAX_HEAD, Page, PageServer
from nexlet_functions.observing.listening import Address, AddressUnusable, listen, parse_address


async def hello(headers: Mapping[str, str]) -> Page:
    return Page(200, "text/plain", f"hello {headers.get('name', '')}".encode())


async def broken(_: Mapping[str, str]) -> Page:
    raise RuntimeError("s-e-c-r-e-t")


@contextlib.asynccontextmanager
async def serving(read_timeout: float = 5.0) -> AsyncIterator[Address]:
    server = await PageServer.start(
        listen(Address("127.0.0.1", 0)), {"/hello": hello, "/broken": broken}, read_timeout=read_timeout
    )
    try:
        yield server.address
    finally:
        await server.close()


async def say(address: Address, request: bytes) -> bytes:
    """Everything that is answered to these bytes."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /hello HTTP/1.1", 200),
        (b"GET /hello?x=1 HTTP/1.1", 200),
        (b"GET /nowhere HTTP/1.1", 404),
        (b"GET /../hello HTTP/1.1", 404),
        (b"POST /hello HTTP/1.1", 405),
        (b"BREW /hello HTTP/1.1", 405),
        (b"GET /broken HTTP/1.1", 500),
        (b"nonsense", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_what_is_asked_has_its_status(request_line: bytes, status: int) -> None:
    async with serving() as address:
        answer = await say(address, request_line + b"\r\nHost: x\r\nName: Ada\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), answer
        assert b"\r\nConnection: close" in head
        assert (body == b"hello Ada") == (status == 200)
        assert (b"\r\nAllow: GET, HEAD" in head) == (status == 405)
        assert b"s-e-c-r-e-t" not in answer


async def test_head_has_the_length_and_no_body() -> None:
    async with serving() as address:
        answer = await say(address, b"HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: 6" in head
    assert body == b""


@pytest.mark.parametrize(
    "noise", [b"GET /" + b"a" * MAX_HEAD, b"GET /hello HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD]
)
async def test_a_head_without_end_is_refused(noise: bytes) -> None:
    async with serving() as address:
        assert (await say(address, noise + b"a" * 4096)).startswith(b"HTTP/1.1 4")


async def test_whoever_says_nothing_is_told_so_and_let_go() -> None:
    async with serving(read_timeout=0.05) as address:
        assert (await say(address, b"GET /hel")).startswith(b"HTTP/1.1 408 ")


async def test_whoever_only_comes_and_goes_leaves_nothing() -> None:
    async with serving() as address:
        for _ in range(3 * MAX_CONNECTIONS):
            _, writer = await asyncio.open_connection(*address)
            writer.transport.abort()
        assert (await say(address, b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_crowd_of_silent_clients_keeps_nobody_out() -> None:
    async with serving(read_timeout=600) as address:
        crowd = [await asyncio.open_connection(*address) for _ in range(MAX_CONNECTIONS)]
        for _ in range(3):
            assert (await say(address, b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        gone = await asyncio.wait_for(crowd[0][0].read(), 20)
        assert gone == b"", "the first of them had to go"
        for _, writer in crowd:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9464", "127.0.0.1", 9464),
        (":9464", "127.0.0.1", 9464),
        ("localhost:0", "127.0.0.1", 0),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_an_address_is_this_machine_unless_it_says_otherwise(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":", "x", "127.0.0.1", "127.0.0.1:", "::1:80", "a.host:80", "1.2.3.4:99999", "1:-1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|brackets|no address"):
        parse_address(text)


def test_a_taken_address_is_refused_by_name() -> None:
    with listen(Address("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressUnusable, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another"):
            listen(Address("127.0.0.1", port))
