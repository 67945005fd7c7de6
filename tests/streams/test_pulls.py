"""What a consumer is asked for, as there is room for it, and anew where it says nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson
import pytest
import structlog

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.streams.consumers import make, wanted
from nexlet_functions.streams.pulls import HEARTBEAT, Pulls
from nexlet_models.start_request import StreamTrigger
from tests.support.sinks import KeepingSink

ONE = wanted(StreamTrigger(stream="ORDERS", filter="orders.*", batch=2), 0, "acme", "greet")
INBOX = "_INBOX.pulls"


class Bench:
    """Pulls over a connection, room for five messages, and all that is said to the consumer."""

    def __init__(self, connection: Connection, asked: KeepingSink) -> None:
        self.connection = connection
        self.asked = asked
        self.room = 5
        self.held: set[int] = set()
        self.pulls = Pulls(
            ONE,
            self.held,
            inbox=INBOX,
            pool=cast(Any, self),
            way=self,
            connection=connection,
            log=structlog.stdlib.get_logger(),
        )

    def capacity(self) -> int:
        return self.room

    def say(self, blob: bytes) -> None:
        assert self.connection.write(blob, 1)

    def flush(self) -> None:
        """It has left already."""

    async def said(self) -> list[tuple[str, int]]:
        """Of each request so far: what names it, and how many messages it is for."""
        await self.connection.flush()
        return [
            (one.reply.removeprefix(f"{INBOX}."), orjson.loads(one.payload)["batch"]) for one in self.asked.messages
        ]


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[Bench]:
    async with await Connection.open(Credentials(servers=(nats_server.url,))) as connection:
        await connection.client.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
        await make(connection, ONE)
        asked = KeepingSink()
        await connection.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.ORDERS.{ONE.name}", sink=asked)
        made = Bench(connection, asked)
        yield made
        made.pulls.stop()


async def test_as_much_as_there_is_room_for_in_requests_of_a_batch_at_most(bench: Bench) -> None:
    bench.pulls.begin()
    assert await bench.said() == [("1.1", 2), ("1.2", 2), ("1.3", 1)]
    assert (bench.pulls.asked, bench.pulls.refill_at) == (5, 4)
    bench.pulls.asked -= 2
    bench.held.update((1, 2))
    bench.pulls.refill()
    assert len(await bench.said()) == 3  # what is in hand takes its room
    bench.held.clear()
    bench.pulls.refill()
    assert (await bench.said())[3:] == [("1.4", 2)]


async def test_nothing_is_asked_for_before_it_begins_or_after_it_stopped(bench: Bench) -> None:
    bench.pulls.refill()
    bench.pulls.begin()
    bench.pulls.stop()
    bench.pulls.asked = 0
    bench.pulls.refill()
    assert len(await bench.said()) == 3


async def test_a_consumer_that_is_silent_is_asked_anew_and_the_former_requests_count_no_more(bench: Bench) -> None:
    bench.pulls.begin()
    now = time.monotonic_ns()
    bench.pulls.look(now + int(1.9 * HEARTBEAT * 1e9))
    assert len(await bench.said()) == 3
    bench.pulls.look(now + int(2.1 * HEARTBEAT * 1e9))
    assert (await bench.said())[3:] == [("2.4", 2), ("2.5", 2), ("2.6", 1)]
    word = b"NATS/1.0 409 Leadership Change\r\nNats-Pending-Messages: 2\r\n\r\n"
    bench.pulls.status(f"{INBOX}.1.1".encode(), word)
    assert bench.pulls.asked == 5
    bench.pulls.status(f"{INBOX}.2.4".encode(), word)
    assert bench.pulls.asked == 3


async def test_one_that_gives_nothing_is_asked_again_after_a_pause_and_said_to_be_in_trouble(bench: Bench) -> None:
    bench.pulls.begin()
    word = b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n"
    for times in range(1, 5):
        assert not bench.pulls.trouble
        bench.pulls.status(f"{INBOX}.1.1".encode(), word)
        assert (bench.pulls.asked, bench.pulls.absent) == (0, times)
    assert bench.pulls.trouble == "the consumer gives nothing: Exceeded MaxWaiting"
    bench.pulls.refill()
    assert len(await bench.said()) == 3  # not before the pause is over
    bench.pulls.well()
    assert (bench.pulls.trouble, bench.pulls.absent) == ("", 0)
