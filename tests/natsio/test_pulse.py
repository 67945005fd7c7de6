"""When a server is taken for gone, look by look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from nexlet_functions.natsio.life import Pulse
from nexlet_functions.natsio.wire import Wire


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
