"""The load generator: what it counts, that it never waits for answers where it is to keep a pace, whole messages."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.load import Load, Pace
from nexlet_functions.devnode.server import EmbeddedServer

SECOND = 1_000_000_000


@given(st.integers(1, 2_000_000), st.integers(1, 10**6), st.integers(0, 10**15), st.data())
def test_a_request_is_due_from_the_nanosecond_it_is_due_at(
    rate: int, count: int, began: int, data: st.DataObject
) -> None:
    pace = Pace(rate, count, began)
    number = data.draw(st.integers(0, count - 1))
    assert pace.due(pace.at(number)) >= number + 1
    assert pace.due(pace.at(number) - 1) <= number
    assert pace.at(0) == began
    assert 0 <= pace.at(number) - began - number * SECOND / rate <= 1 + number / 10**6, "evenly, to the nanosecond"
    assert pace.due(began - 1) == 0
    assert pace.due(began + 10**18) == count


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    connection = await nats.connect(nats_server.url)
    yield connection
    await connection.close()


async def echo(client: Client, subject: str) -> list[bytes]:
    seen: list[bytes] = []

    async def answer(message: Msg) -> None:
        seen.append(message.data)
        if message.reply:
            await client.publish(message.reply, message.data)

    await client.subscribe(subject, cb=answer)
    await client.flush()
    await client.flush()
    return seen


async def loaded(url: str, work: Callable[[Load], object]) -> None:
    """Run it in a thread of its own: it blocks."""

    def run() -> None:
        with Load(url) as load:
            work(load)

    await asyncio.to_thread(run)


@pytest.mark.parametrize("size", [0, 128, 900_000])
async def test_requests_are_all_answered(nats_server: EmbeddedServer, client: Client, size: int) -> None:
    seen = await echo(client, "echo")

    def work(load: Load) -> None:
        measured = load.requests("echo", count=20, in_flight=7, payload=bytes(size))
        assert (measured.answers, measured.messages, measured.errors, len(measured.latencies)) == (20, 20, 0, 20)
        assert measured.latencies == sorted(measured.latencies)
        assert load.ask("echo", b"x" * size) == b"x" * size

    await loaded(nats_server.url, work)
    assert list(map(len, seen)) == [size] * 21


async def test_what_wants_no_answer_is_sent_and_counted(nats_server: EmbeddedServer, client: Client) -> None:
    seen = await echo(client, "echo")

    def work(load: Load) -> None:
        measured = load.requests("echo", count=5, in_flight=2, payload=b"abc", quiet=9)
        assert (measured.answers, measured.messages) == (5, 50)
        assert measured.rate == pytest.approx(50 / measured.seconds)

    await loaded(nats_server.url, work)
    assert seen == [b"abc"] * 50


async def test_it_ends_when_it_is_told(nats_server: EmbeddedServer, client: Client) -> None:
    seen = await echo(client, "echo")

    def work(load: Load) -> None:
        measured = load.requests("echo", count=10**9, in_flight=3, payload=b"", over=lambda: len(seen) > 30)
        assert measured.answers == len(seen)

    await loaded(nats_server.url, work)


async def test_errors_and_nobody_are_counted(nats_server: EmbeddedServer, client: Client) -> None:
    async def refuse(message: Msg) -> None:
        await client.publish(message.reply, b"", headers={"workload_id": "w", "error": "no"})

    await client.subscribe("refuse", cb=refuse)
    await client.flush()
    await client.flush()

    def work(load: Load) -> None:
        assert load.requests("refuse", count=4, in_flight=2, payload=b"").errors == 4
        assert load.paced("nobody", rate=1000, count=3, payload=b"").errors == 3
        with pytest.raises(RuntimeError, match="nobody"):
            load.ask("nobody")

    await loaded(nats_server.url, work)


async def test_who_keeps_a_pace_does_not_wait_for_answers(nats_server: EmbeddedServer, client: Client) -> None:
    waiting: list[Msg] = []
    count, rate = 50, 1000

    async def hold(message: Msg) -> None:
        waiting.append(message)
        if len(waiting) == count:  # who waits for an answer before the next request never comes so far
            for one in waiting:
                await client.publish(one.reply, b"")

    await client.subscribe("hold", cb=hold)
    await client.flush()
    await client.flush()

    def work(load: Load) -> None:
        measured = load.paced("hold", rate=rate, count=count, payload=b"")
        # The first one waited from when it was due until the last one was, at least; the last hardly at all.
        assert measured.latencies[-1] >= (count - 1) * SECOND // rate
        assert len(measured.latencies) == len(measured.late) == count
        assert min(measured.late) >= 0

    await loaded(nats_server.url, work)


async def test_what_the_generator_is_late_counts_as_waiting(nats_server: EmbeddedServer, client: Client) -> None:
    await echo(client, "echo")
    clock = Stalling(after=10, stall=SECOND)

    def work(load: Load) -> None:
        # A tenth of a second's worth of requests, all of them due when the clock has jumped by a second.
        measured = load.paced("echo", rate=1000, count=100, payload=b"", now=clock)
        late = [one for one in measured.late if one > SECOND // 2]
        assert len(late) > 80
        assert sum(one > SECOND // 2 for one in measured.latencies) >= len(late)
        assert measured.late_percentile(1.0) <= measured.percentile(1.0)

    await loaded(nats_server.url, work)


class Stalling:
    """A clock that stands still while it is asked for the first time or so, and then jumps."""

    def __init__(self, *, after: int, stall: int) -> None:
        self._asked, self._after, self._stall = 0, after, stall
        self._began = time.perf_counter_ns()

    def __call__(self) -> int:
        self._asked += 1
        if self._asked <= self._after:
            return self._began
        return time.perf_counter_ns() + self._stall


@contextmanager
def scripted(*said: bytes) -> Iterator[str]:
    """A server that says these things after its greeting, piece by piece, each when something came in."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"INFO {}\r\n")
                for piece in said:
                    connection.recv(65536)
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_server_that_says_no_is_no_answer() -> None:
    with (
        scripted(b"PONG\r\n", b"-ERR 'Maximum Payload Violation'\r\n") as url,
        Load(url) as load,
        pytest.raises(RuntimeError, match="Maximum Payload"),
    ):
        load.requests("a", count=1, in_flight=1, payload=b"")


def test_a_server_that_goes_is_no_answer() -> None:
    with scripted(b"PONG\r\n", b"") as url, Load(url) as load, pytest.raises(ConnectionError):
        load.requests("a", count=1, in_flight=1, payload=b"")
