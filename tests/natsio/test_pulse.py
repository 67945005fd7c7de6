"""When a server is taken for gone, look by look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Credentials, Options
from nexlet_functions.natsio.life import Life, Pulse
from nexlet_functions.natsio.wire import Wire
from tests.support.proxy import FaultyProxy


class _Server:
    """The wire's part that a pulse needs."""

    def __init__(self) -> None:
        self.heard = 0
        self.open: list[Callable[[], None]] = []

    def signs(self) -> object:
        return self.heard

    def ping(self, answered: Callable[[], None]) -> None:
        self.open.append(answered)

    def pong(self) -> None:
        self.heard += 1
        self.open.pop(0)()


def pulse(server: _Server, *, misses: int = 2) -> tuple[Pulse, list[str]]:
    told: list[str] = []

    def asked() -> Callable[[], None]:
        told.append("asked")
        return lambda: told.append("answered")

    return Pulse(cast(Wire, cast(Any, server)), misses=misses, answered=asked), told


def test_a_server_that_answers_lives() -> None:
    server = _Server()
    made, told = pulse(server)
    for _ in range(50):
        assert made.look()
        server.pong()
    assert told == ["asked", "answered"] * 50


def test_a_server_that_is_silent_for_two_looks_is_gone() -> None:
    server = _Server()
    made, told = pulse(server)
    assert made.look()
    server.pong()
    assert [made.look() for _ in range(3)] == [True, True, False]
    assert told == ["asked", "answered", "asked"]  # one question at a time


def test_a_server_that_is_busy_sending_something_else_lives() -> None:
    server = _Server()
    made, told = pulse(server)
    for _ in range(50):
        assert made.look()
        server.heard += 1
    assert told == ["asked"]


def test_looks_are_counted_and_not_seconds() -> None:
    # A process that was stopped itself looks once when it goes on, however long that was.
    server = _Server()
    made, _ = pulse(server, misses=3)
    assert made.look()
    server.pong()
    assert [made.look() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("more", [b"", b"PUB n 2\r\nhi\r\n"], ids=["nothing else", "and a message each time"])
async def test_what_we_say_ourselves_is_no_sign_of_life(
    nats_server: EmbeddedServer, options: Options, more: bytes
) -> None:
    async with FaultyProxy(nats_server.url) as proxy:
        life = await Life.begin(
            proxy.url, Credentials((proxy.url,)), options, name="n", on_error=lambda _: None, failed=lambda _: None
        )
        try:
            proxy.stop()
            made = Pulse(life.wire, misses=2, answered=lambda: lambda: None)
            seen = []
            for _ in range(3):
                seen.append(made.look())
                if more:
                    life.wire.send([more], len(more), lambda: None)
                for _ in range(20):  # the client has its turns, and what it holds is written
                    await asyncio.sleep(0)
            assert seen == [True, True, False]
        finally:
            life.give_up("the test is over")
            await life.close()
